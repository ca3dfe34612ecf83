import { clearInterval, clearTimeout, now, setInterval, setTimeout } from "../clock.js";
import { type JsonObject, write } from "./json.js";
import type { Context, Key, State, Notification } from "./state.js";

const HEARTBEAT_MS = 15_000;

/** The changes that a stream reports: of one bucket, and with `members` of these keys alone. */
export interface Filter {
  readonly key: Key;
  readonly members: readonly string[] | undefined;
}

/** One event stream: its beginning is fixed when it is made, and later changes follow. */
export class Stream {
  private at: number;
  private readonly first: string;

  constructor(
    private readonly state: State,
    private readonly filter: Filter,
    private readonly context: Context | undefined,
    since: string | undefined,
    snapshot: boolean,
  ) {
    this.at = state.notifications.length;
    const known = since === undefined ? undefined : state.indexOf(since);
    // A resumed stream gets no id first: it would skip the changes that are still to be sent.
    const start = since === undefined ? `retry: 1000\n${this.id}` : "retry: 1000\n\n";
    const gap = since !== undefined && known === undefined ? this.gap : "";
    const current = known === undefined && snapshot ? this.snapshot(filter.key) : "";
    this.first = start + gap + current;
    this.at = known ?? this.at;
  }

  /** Send everything, until the server stops or the token is no longer valid. */
  start(send: (text: string) => void, end: () => void): () => void {
    send(this.first);
    let expiry: ReturnType<typeof setTimeout>;
    const flush = () => {
      clearTimeout(expiry);
      const isOpen = this.isOpen;
      this.pendingFrames.forEach(send);
      if (!isOpen) return stop();
      // Set anew each time: a timer may go off a moment early, when the token is still valid.
      expiry = setTimeout(flush, Math.min(2 ** 31 - 1, (this.context?.expires ?? Infinity) - now()));
    };
    const beat = setInterval(() => send(`: \n${this.id}`), HEARTBEAT_MS);
    const stop = () => {
      this.state.watchers.delete(flush);
      clearInterval(beat);
      clearTimeout(expiry);
      end();
    };
    this.state.watchers.add(flush);
    flush();
    return stop;
  }

  private get isOpen(): boolean {
    return this.state.serving && (!this.context || this.state.live().includes(this.context));
  }

  private get pendingFrames(): string[] {
    return this.state.notifications.slice(this.at).flatMap((notification) => {
      this.at += 1;
      return this.frame(notification);
    });
  }

  private frame({ key, revision, set, removed }: Notification): string[] {
    const { key: onlyKey, members } = this.filter;
    if (onlyKey.device !== key.device || onlyKey.job !== key.job) return [];
    const [kept, gone] = [this.selected(set), removed.filter((name) => members?.includes(name) ?? true)];
    if (members && Object.keys(kept).length === 0 && gone.length === 0) return [];
    return [bucketEvent(key, revision, kept, gone, this.state.id(this.at))];
  }

  private selected(set: JsonObject): JsonObject {
    const { members } = this.filter;
    return members ? Object.fromEntries(Object.entries(set).filter(([name]) => members.includes(name))) : set;
  }

  private get id(): string {
    return `id: ${this.state.id(this.at)}\n\n`;
  }

  private get gap(): string {
    return event("gap", this.state.id(this.at), JSON.stringify(this.filter.key));
  }

  private snapshot(key: Key): string {
    const now = this.state.read(key);
    return bucketEvent(key, now.revision, this.selected(now.bucket), [], this.state.id(this.at));
  }
}

function bucketEvent({ device, job }: Key, revision: number, set: JsonObject, removed: string[], id: string): string {
  const names = JSON.stringify({ device, job, revision }).slice(0, -1);
  return event("bucket", id, `${names},"set":${write(set)},"removed":${JSON.stringify(removed)}}`);
}

function event(kind: string, id: string, data: string): string {
  return `event: ${kind}\nid: ${id}\ndata: ${data}\n\n`;
}
