/** The page of one bucket: tree and text, edit with a diff, history, live changes. */

import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import { call, consoleState, Refused } from "./api.js";
import { deleteBucket, readBucket, revealKey, type BucketState } from "./bucket-data.js";
import { cellKey } from "./cells.js";
import { age, size } from "./format.js";
import { History } from "./history.js";
import { now, onBucket, table, tableVersion, violations } from "./live.js";
import { curl, python, typescript, type BucketName } from "./snippets.js";
import { TextTab } from "./text-tab.js";
import { Tree } from "./tree.js";
import { attempt, complain, confirm, copy, Loading } from "./ui.js";

const FLASH_MILLISECONDS = 4000;
type Tab = "tree" | "text" | "history";
const TABS: [Tab, string][] = [
  ["tree", "Tree"],
  ["text", "Text"],
  ["history", "History"],
];

export function BucketPage({ name }: { name: BucketName }): JSX.Element {
  const [state, setState] = useState<BucketState | null>(null);
  const [problem, setProblem] = useState<Refused | null>(null);
  const [changed, setChanged] = useState<ReadonlySet<string>>(new Set());
  const [tab, setTab] = useState<Tab>("tree");
  const [schema, setSchema] = useState<unknown>(undefined);
  void tableVersion.value;
  const cell = table.at(name.device, name.job);
  const automation = cell?.automation ?? null;

  const reload = async (): Promise<void> => {
    try {
      setState(await readBucket(name));
      setProblem(null);
    } catch (cause) {
      if (cause instanceof Refused) setProblem(cause);
      else complain(cause);
    }
  };
  useEffect(() => {
    void reload();
    return followChanges(name, reload, setChanged);
  }, []);
  useEffect(() => {
    if (automation === null) return setSchema(undefined);
    call("GET", `/v1/schemas/${encodeURIComponent(automation)}`).then(
      ({ members }) => setSchema(members.json_schema ?? undefined),
      () => setSchema(undefined),
    );
  }, [automation]);

  return (
    <main class="bucket-page">
      <Heading name={name} state={state} />
      {problem && (
        <div class="warning" role="alert">
          <p>{problem.message}</p>
          {problem.code === "bucket_corrupt" && (
            <p>History and the files in the quarantine keep what can be brought back.</p>
          )}
        </div>
      )}
      <Violations name={name} />
      <div class="tabs" role="tablist" aria-label="Views of the bucket">
        {TABS.map(([id, label]) => (
          <button
            type="button"
            role="tab"
            id={`tab-${id}`}
            key={id}
            aria-selected={tab === id}
            aria-controls="panel"
            tabIndex={tab === id ? 0 : -1}
            onClick={() => setTab(id)}
            onKeyDown={(event) => moveTab(event, tab, setTab)}
          >
            {label}
          </button>
        ))}
      </div>
      <div id="panel" role="tabpanel" aria-labelledby={`tab-${tab}`}>
        {state === null ? (
          problem === null && <Loading what="the bucket" />
        ) : tab === "tree" ? (
          <Tree value={state.bucket} changed={changed} reveal={(key) => revealKey(name, key)} />
        ) : tab === "text" ? (
          <TextTab
            name={name}
            state={state}
            schema={schema}
            automation={automation}
            reload={reload}
          />
        ) : (
          <History name={name} state={state} reload={reload} />
        )}
      </div>
    </main>
  );
}

function moveTab(event: KeyboardEvent, tab: Tab, setTab: (tab: Tab) => void): void {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (step === undefined) return;
  const at = TABS.findIndex(([id]) => id === tab);
  const [to] = TABS[(at + step + TABS.length) % TABS.length] as [Tab, string];
  setTab(to);
  document.getElementById(`tab-${to}`)?.focus();
}

/** Read the bucket again after its changes, and highlight the keys that they set. */
function followChanges(
  name: BucketName,
  reload: () => Promise<void>,
  setChanged: (keys: ReadonlySet<string>) => void,
): () => void {
  const recent = new Map<string, number>();
  let timer = 0;
  let reading = false;
  let isStale = false;
  const show = (): void => {
    const since = Date.now() - FLASH_MILLISECONDS;
    for (const [key, at] of recent) if (at < since) recent.delete(key);
    setChanged(new Set(recent.keys()));
    window.clearTimeout(timer);
    if (recent.size > 0) timer = window.setTimeout(show, FLASH_MILLISECONDS);
  };
  const read = async (): Promise<void> => {
    if (reading) {
      isStale = true;
      return;
    }
    reading = true;
    do {
      isStale = false;
      await reload();
    } while (isStale);
    reading = false;
    show();
  };
  const stop = onBucket((event) => {
    if (event.device !== name.device || event.job !== name.job) return;
    for (const key of Object.keys(event.set)) recent.set(key, Date.now());
    void read();
  });
  return () => {
    stop();
    window.clearTimeout(timer);
  };
}

function Heading({ name, state }: { name: BucketName; state: BucketState | null }): JSX.Element {
  const cell = table.at(name.device, name.job);
  const hold = table.heldBy(name.device, name.job);
  const facts = [
    state === null ? "" : state.etag === null ? "not stored" : `revision ${state.revision}`,
    cell?.size ? size(cell.size) : "",
    cell?.updatedAt ? `changed ${age((now.value - cell.updatedAt) / 1000)} ago` : "",
    cell?.automation ? `automation ${cell.automation}` : "",
    hold ? `held by ${hold.by.user}, process ${hold.by.pid}${hold.label ? ` (${hold.label})` : ""}` : "",
  ].filter(Boolean);
  return (
    <header class="heading">
      <div>
        <h1>
          {name.device} <span class="dim">/</span> {name.job ?? "device bucket"}
        </h1>
        <p class="facts">{facts.join(" · ").replace("changed now ago", "changed now")}</p>
        {state?.recoveredFrom && (
          <p class="warning">
            Its file could not be read, so revision {state.recoveredFrom.revision} took its place:{" "}
            {state.recoveredFrom.reason}
          </p>
        )}
      </div>
      <div class="actions">
        <CopyAs name={name} />
        <button
          type="button"
          class="danger"
          disabled={state === null || state.etag === null}
          onClick={() => void remove(name, state)}
        >
          Delete
        </button>
      </div>
    </header>
  );
}

async function remove(name: BucketName, state: BucketState | null): Promise<void> {
  const what = `the bucket of ${name.device}, ${name.job ?? "(device)"}`;
  const text = `This removes ${what} with all its keys. The trash keeps it where the daemon has one.`;
  if (!(await confirm("Delete the bucket?", text, "Delete"))) return;
  await attempt(() => deleteBucket(name, state?.etag ?? null), "The bucket is deleted");
}

function CopyAs({ name }: { name: BucketName }): JSX.Element {
  const socket = consoleState.value?.socket ?? "";
  const forms: [string, string][] = [
    ["curl", curl(name, socket)],
    ["Python", python(name, socket)],
    ["TypeScript", typescript(name, socket)],
  ];
  return (
    <>
      {forms.map(([label, text]) => (
        <button type="button" key={label} onClick={() => void copy(text, label)}>
          Copy as {label}
        </button>
      ))}
    </>
  );
}

function Violations({ name }: { name: BucketName }): JSX.Element | null {
  const found = violations.value.get(cellKey(name.device, name.job)) ?? [];
  if (found.length === 0) return null;
  return (
    <div class="warning">
      <p>The bucket violates its schema:</p>
      <ul>
        {found.map((row) => (
          <li key={row.path + row.message}>
            <code>{row.path || "the bucket"}</code> {row.message}
          </li>
        ))}
      </ul>
    </div>
  );
}
