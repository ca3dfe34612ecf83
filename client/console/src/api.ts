/** Requests of the page: to the daemon, through the console, with the token of this page. */

import { signal } from "@preact/signals";

/** A request that was refused; the message is in the words of whoever refused it. */
export class Refused extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
    readonly members: Readonly<Record<string, unknown>>,
  ) {
    super(message);
  }

  get details(): unknown[] {
    return Array.isArray(this.members.details) ? this.members.details : [];
  }
}

export interface Reply {
  status: number;
  etag: string | null;
  text: string;
  members: Record<string, unknown>;
}

export interface Options {
  body?: string;
  headers?: Record<string, string>;
  signal?: AbortSignal;
}

export interface ConsoleState {
  version: string;
  user: string;
  host: string;
  socket: string;
  read_only: boolean;
  unlocked_seconds: number;
}

/** Why nothing can be asked any more, until another page is opened; null while all is well. */
export const pageEnded = signal<string | null>(null);
/** What the console says while the daemon cannot be reached. */
export const daemonAway = signal<string | null>(null);
export const consoleState = signal<ConsoleState | null>(null);

// The token lives in this variable alone: no storage and no cookie keeps it.
let token = "";

/** Exchange the one-time ticket of the link for the token of this page. Throw Refused. */
export async function openSession(ticket: string): Promise<void> {
  const response = await fetch("/console/session", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ ticket }),
  });
  const members = (await response.json()) as Record<string, unknown>;
  if (!response.ok) throw refusal(response.status, members);
  token = String(members.token);
  await refreshState();
}

export async function refreshState(): Promise<void> {
  takeState((await call("GET", "/console/state")).members);
}

export async function setLocked(locked: boolean): Promise<void> {
  takeState((await call("POST", locked ? "/console/lock" : "/console/unlock")).members);
}

let relock = 0;

function takeState(members: Record<string, unknown>): void {
  const state = members as unknown as ConsoleState;
  consoleState.value = state;
  window.clearTimeout(relock);
  if (state.unlocked_seconds > 0) {
    const soon = Math.min(state.unlocked_seconds + 1, 900) * 1000;
    relock = window.setTimeout(() => void refreshState().catch(() => undefined), soon);
  }
}

/** Send one request and return the raw response. Throw Refused where nobody answers. */
export async function send(method: string, target: string, options: Options = {}): Promise<Response> {
  const headers: Record<string, string> = { Authorization: `Bearer ${token}`, ...options.headers };
  if (options.body !== undefined) headers["Content-Type"] ??= "application/json";
  try {
    return await fetch(target, {
      method,
      headers,
      body: options.body ?? null,
      ...(options.signal ? { signal: options.signal } : {}),
    });
  } catch (cause) {
    if (options.signal?.aborted) throw cause;
    const message = "The console does not answer; it has ended, or its connection is broken.";
    throw new Refused(0, "console_unreachable", message, {});
  }
}

/** Send one request and return its response. Throw Refused for one that is no success. */
export async function call(method: string, target: string, options: Options = {}): Promise<Reply> {
  const response = await send(method, target, options);
  const text = await response.text();
  const isJson = response.headers.get("Content-Type")?.includes("json") ?? false;
  const members = isJson && text ? (JSON.parse(text) as Record<string, unknown>) : {};
  if (!response.ok) throw refusal(response.status, members);
  if (target.startsWith("/v1/")) daemonAway.value = null;
  return { status: response.status, etag: response.headers.get("ETag"), text, members };
}

/** Return the error of a response, and note what it says about the whole page. */
export function refusal(status: number, members: Record<string, unknown>): Refused {
  const code = String(members.code ?? "internal");
  const message = String(members.error ?? `the response had the status ${status}`);
  if (code === "no_session") pageEnded.value = message;
  if (code === "daemon_unreachable") daemonAway.value = message;
  if (code === "console_locked" && consoleState.value) {
    consoleState.value = { ...consoleState.value, unlocked_seconds: 0 };
  }
  return new Refused(status, code, message, members);
}

/** Read all pages of a list. `visit` gets the members of each page. */
export async function pages(
  target: string,
  visit: (members: Record<string, unknown>) => void,
): Promise<void> {
  let cursor: string | null = null;
  do {
    const join: string = target.includes("?") ? "&" : "?";
    const rest: string = cursor === null ? "" : `${join}cursor=${encodeURIComponent(cursor)}`;
    const { members }: Reply = await call("GET", target + rest);
    visit(members);
    cursor = (members.next_cursor as string | null | undefined) ?? null;
  } while (cursor !== null);
}
