import { type JsonObject, write } from "./json.js";
import { bucketOf, type Context, type Key, type State, type Told } from "./state.js";

const HEARTBEAT_MS = 15_000;

/** What a stream is about: one bucket or, without `key`, all that fit the names. */
export interface Only {
  readonly key: Key | undefined;
  readonly names: Readonly<Partial<Record<"device" | "job" | "automation", string | undefined>>>;
  readonly members: readonly string[] | undefined;
}

/** One stream: what comes first is settled when it is made, and whatever happens then follows. */
export class Stream {
  private at: number;
  private readonly first: string;

  constructor(
    private readonly state: State,
    private readonly only: Only,
    private readonly context: Context | undefined,
    since: string | undefined,
    snapshot: boolean,
  ) {
    this.at = state.told.length;
    const known = since === undefined ? undefined : state.place(since);
    // The id is behind what is still to be said, lest that be lost with the connection.
    const begin = since === undefined ? `retry: 1000\n${this.id}` : "retry: 1000\n\n";
    const gap = since !== undefined && known === undefined ? this.gap : "";
    const whole = known === undefined && snapshot && only.key ? this.snapshot(only.key) : "";
    this.first = begin + gap + whole;
    this.at = known ?? this.at;
  }

  /** Say it all, until the server stops or the token opens nothing more. */
  start(say: (text: string) => void, end: () => void): () => void {
    say(this.first);
    const go = () => {
      const alive = this.alive;
      this.news.forEach(say);
      if (!alive) stop();
    };
    const beat = setInterval(() => say(`: \n${this.id}`), HEARTBEAT_MS);
    const expiry = setTimeout(go, Math.min(2 ** 31 - 1, (this.context?.expires ?? Infinity) - Date.now()));
    const stop = () => {
      this.state.watchers.delete(go);
      clearInterval(beat);
      clearTimeout(expiry);
      end();
    };
    this.state.watchers.add(go);
    go();
    return stop;
  }

  private get alive(): boolean {
    return this.state.serving && (!this.context || this.state.live().includes(this.context));
  }

  private get news(): string[] {
    const told = this.state.told.slice(this.at);
    return told.flatMap((each) => {
      this.at += 1;
      return this.frame(each);
    });
  }

  private frame({ key, automation, revision, set, removed }: Told): string[] {
    const { key: wanted, names, members } = this.only;
    const called = { ...key, automation };
    const other = wanted && (wanted.device !== key.device || wanted.job !== key.job);
    const misfits = (["device", "job", "automation"] as const).some(
      (name) => names[name] !== undefined && names[name] !== called[name],
    );
    if (other || misfits) return [];
    const [some, gone] = [this.among(set), removed.filter((name) => members?.includes(name) ?? true)];
    if (members && some.size === 0 && gone.length === 0) return [];
    return [bucketEvent(key, revision, some, gone, this.state.id(this.at))];
  }

  private among(set: JsonObject): JsonObject {
    const { members } = this.only;
    return members ? new Map([...set].filter(([name]) => members.includes(name))) : set;
  }

  private get id(): string {
    return `id: ${this.state.id(this.at)}\n\n`;
  }

  private get gap(): string {
    return event("gap", this.state.id(this.at), JSON.stringify(this.only.key ?? {}));
  }

  private snapshot(key: Key): string {
    const now = this.state.read(key);
    return bucketEvent(key, now.revision, this.among(bucketOf(now)), [], this.state.id(this.at));
  }
}

function bucketEvent({ device, job }: Key, revision: number, set: JsonObject, removed: string[], id: string): string {
  const names = JSON.stringify({ device, job, revision }).slice(0, -1);
  return event("bucket", id, `${names},"set":${write(set)},"removed":${JSON.stringify(removed)}}`);
}

function event(kind: string, id: string, data: string): string {
  return `event: ${kind}\nid: ${id}\ndata: ${data}\n\n`;
}
