/** The live table: a list at the start, then events; sizes and violations follow the events. */

import { signal } from "@preact/signals";
import { call, daemonAway, pageEnded, pages, refusal, Refused, send } from "./api.js";
import {
  cellKey,
  Table,
  type BucketEvent,
  type Hold,
  type ListedBucket,
  type Violation,
} from "./cells.js";
import { EventParser, type ServerEvent } from "./sse.js";

export const table = new Table();
/** Counts the frames in which something of the table has changed. */
export const tableVersion = signal(0);
export const tableLoaded = signal(false);
/** The seconds of the wall clock, for ages. */
export const now = signal(Date.now());
/** Violations of stored buckets by their cell, of schemas whose buckets were checked. */
export const violations = signal<ReadonlyMap<string, Violation[]>>(new Map());
/** Automations with more violating buckets than the daemon names. */
export const unnamedViolations = signal<ReadonlyMap<string, number>>(new Map());

export type BucketListener = (event: BucketEvent) => void;
const bucketListeners = new Set<BucketListener>();
const otherListeners = new Set<(event: string) => void>();

/** Call `listener` at each change of a bucket until the returned function is called. */
export function onBucket(listener: BucketListener): () => void {
  bucketListeners.add(listener);
  return () => bucketListeners.delete(listener);
}

/** Call `listener` with the kind of each other event: hold, context, gap, connected. */
export function onOther(listener: (event: string) => void): () => void {
  otherListeners.add(listener);
  return () => otherListeners.delete(listener);
}

let framePending = false;

function touch(): void {
  if (framePending) return;
  framePending = true;
  requestAnimationFrame(() => {
    framePending = false;
    tableVersion.value++;
  });
}

// --- the list

let loading: Promise<void> | null = null;

/** Read the whole list; what changes meanwhile comes as events. */
export function loadTable(): Promise<void> {
  loading ??= load().finally(() => (loading = null));
  return loading;
}

async function load(): Promise<void> {
  const keys = new Set<string>();
  table.nameless = [];
  const changed = onBucket((event) => keys.add(cellKey(event.device, event.job)));
  try {
    await pages("/v1/buckets", (members) => {
      for (const row of members.buckets as ListedBucket[]) {
        const key = cellKey(row.device, row.job);
        // An event that has come meanwhile is newer.
        if (!keys.has(key)) table.put(row);
        keys.add(key);
      }
      for (const path of (members.unreadable as string[] | undefined) ?? []) {
        const cell = table.putDamaged(path);
        if (cell) keys.add(cellKey(cell.device, cell.job));
      }
      touch();
    });
  } finally {
    changed();
  }
  table.keepOnly(keys);
  tableLoaded.value = true;
  touch();
  await checkSchemas();
}

// --- sizes, which events do not tell

const SIZES_EVERY = 1500;
const MOST_DEVICES = 40;
const stale = new Set<string>();
let visibleDevices: ReadonlySet<string> = new Set();
let sizesTimer = 0;

/** Say which devices are on the screen: their sizes are read again after a change. */
export function setVisibleDevices(devices: ReadonlySet<string>): void {
  visibleDevices = devices;
  scheduleSizes();
}

function scheduleSizes(): void {
  if (sizesTimer || stale.size === 0) return;
  sizesTimer = window.setTimeout(() => void readSizes(), SIZES_EVERY);
}

async function readSizes(): Promise<void> {
  const wanted = [...stale].filter((device) => visibleDevices.has(device)).slice(0, MOST_DEVICES);
  const unread = new Set(wanted);
  try {
    for (const device of wanted) {
      // What changes while its list is on the way makes it stale again.
      stale.delete(device);
      await pages(`/v1/buckets?device=${encodeURIComponent(device)}`, (members) => {
        for (const row of members.buckets as ListedBucket[]) {
          const cell = table.at(row.device, row.job);
          if (cell === undefined || row.revision >= cell.revision) table.put(row);
        }
      });
      unread.delete(device);
      touch();
    }
  } catch {
    // The daemon is away, which the page says; these are read once it is back.
    unread.forEach((device) => stale.add(device));
  } finally {
    sizesTimer = 0;
    if (wanted.length > 0) scheduleSizes();
  }
}

// --- violations, which events do not tell either

const CHECK_EVERY = 5000;
let checkTimer = 0;
let checkTook = 0;
let checked = new Map<string, string>();

/** Check the stored buckets of each automation by its schema, without changing anything. */
export async function checkSchemas(): Promise<void> {
  const began = performance.now();
  const found = new Map<string, Violation[]>();
  const unnamed = new Map<string, number>();
  const { members } = await call("GET", "/v1/schemas");
  const rows = members.schemas as { automation: string; form: string | null }[];
  const before = checked;
  checked = new Map();
  for (const { automation, form } of rows) {
    if (form === null) continue;
    const path = `/v1/schemas/${encodeURIComponent(automation)}`;
    const { schema } = (await call("GET", path)).members;
    const body = JSON.stringify(schema);
    const result = (await call("PUT", `${path}?dry_run=true`, { body })).members;
    const details = result.details as { device: string; job: string | null; violations: Violation[] }[];
    const counts = new Map<string, number>();
    for (const { device, job, violations: list } of details) {
      counts.set(cellKey(device, job), list.length);
      found.set(cellKey(device, job), list);
    }
    const rest = (result.count as number) - details.length;
    if (rest > 0) unnamed.set(automation, rest);
    checked.set(automation, body);
    table.setViolations(automation, counts);
  }
  for (const automation of before.keys()) {
    if (!checked.has(automation)) table.setViolations(automation, new Map());
  }
  violations.value = found;
  unnamedViolations.value = unnamed;
  checkTook = performance.now() - began;
  touch();
}

function scheduleCheck(automation: string | null): void {
  const isOfSchema = automation === null ? checked.size > 0 : checked.has(automation);
  if (!isOfSchema || checkTimer) return;
  // A check reads all buckets of the schema, so it may take a twentieth of the time at most.
  checkTimer = window.setTimeout(
    () => {
      checkTimer = 0;
      void checkSchemas().catch(() => undefined);
    },
    Math.max(CHECK_EVERY, checkTook * 20),
  );
}

// --- events

const FIRST_PAUSE = 250;
const MAX_PAUSE = 2000;
/** A page that nobody sees stops listening after this time, so that the console may end. */
const HIDDEN_SECONDS = 60;

let lastId: string | null = null;
let abort: AbortController | null = null;

/** Listen to the events of all buckets as long as the page is seen. */
export function listen(): void {
  window.setInterval(() => (now.value = Date.now()), 1000);
  let hiding = 0;
  document.addEventListener("visibilitychange", () => {
    window.clearTimeout(hiding);
    if (document.hidden) {
      hiding = window.setTimeout(() => abort?.abort(), HIDDEN_SECONDS * 1000);
    }
  });
  void follow();
}

async function follow(): Promise<void> {
  let pause = FIRST_PAUSE;
  while (pageEnded.value === null) {
    await untilSeen();
    try {
      await readStream(() => (pause = FIRST_PAUSE));
    } catch (problem) {
      if (problem instanceof Refused && problem.code === "console_unreachable") {
        daemonAway.value = problem.message;
      }
    }
    if (pageEnded.value !== null) return;
    await new Promise((resume) => setTimeout(resume, pause));
    pause = Math.min(pause * 2, MAX_PAUSE);
  }
}

function untilSeen(): Promise<void> {
  if (!document.hidden) return Promise.resolve();
  return new Promise((resume) => {
    const look = (): void => {
      if (document.hidden) return;
      document.removeEventListener("visibilitychange", look);
      resume();
    };
    document.addEventListener("visibilitychange", look);
  });
}

async function readStream(connected: () => void): Promise<void> {
  abort = new AbortController();
  const headers: Record<string, string> = { Accept: "text/event-stream" };
  const resumed = lastId !== null;
  if (lastId !== null) headers["Last-Event-ID"] = lastId;
  const response = await send("GET", "/v1/events?mask=secrets&holds=true", {
    headers,
    signal: abort.signal,
  });
  if (!response.ok || response.body === null) {
    throw refusal(response.status, (await response.json()) as Record<string, unknown>);
  }
  connected();
  daemonAway.value = null;
  // The stream begins with the holds that there are.
  table.clearHolds();
  otherListeners.forEach((listener) => listener("connected"));
  if (!resumed || !tableLoaded.value) void loadTable().catch(() => undefined);
  const parser = new EventParser();
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    for (const event of parser.feed(value)) take(event);
  }
  daemonAway.value = "The daemon has ended the stream of events; waiting for it to come back.";
}

function take({ event, id, data }: ServerEvent): void {
  if (id !== null) lastId = id;
  if (event === "bucket") {
    const change = JSON.parse(data) as BucketEvent;
    const cell = table.apply(change, Date.now());
    stale.add(change.device);
    scheduleSizes();
    scheduleCheck(cell?.automation ?? null);
    bucketListeners.forEach((listener) => listener(change));
    touch();
  } else if (event === "hold") {
    const hold = JSON.parse(data) as Hold & { change: string };
    table.setHold(hold, hold.change === "taken" || hold.change === "waiting");
    touch();
    otherListeners.forEach((listener) => listener(event));
  } else if (event === "gap") {
    void loadTable().catch(() => undefined);
    otherListeners.forEach((listener) => listener(event));
  } else if (event) {
    otherListeners.forEach((listener) => listener(event));
  }
}
