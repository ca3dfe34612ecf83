import { randomBytes } from "node:crypto";
import { hostname, userInfo } from "node:os";
import { clearInterval, clearTimeout, now, setInterval, setTimeout } from "../clock.js";
import { BucketError, InvalidRequestError, NoJobContextError } from "../errors.js";
import type { JsonObject } from "./json.js";
import { type Context, type Key, nameFor } from "./state.js";

const HEARTBEAT_MS = 15_000;
/** How long a hold waits for its holder after a restart. */
const GRACE_MS = 5_000;

/** What the body of a request for a hold says. */
interface Wanted {
  readonly name: string;
  readonly waitSeconds: number;
  readonly exclusive: boolean;
  readonly label: string | null;
  readonly fence: string | null;
}

/** The connection of a holder or waiter, once it is answered. */
export type Answer = (outcome: HoldStream | BucketError) => void;

/** All holds and, in the order of their arrival, those that wait for one. */
export class Holds {
  private readonly entries: Hold[] = [];

  constructor(private readonly live: () => Context[]) {}

  /** Answer with the stream of the hold once it is had, or with a refusal; return what to call when the client has gone. */
  take(key: Key, body: JsonObject, context: Context | undefined, answer: Answer): () => void {
    const wanted = wantedBy(body);
    if (wanted.fence !== null) return this.comeBack(wanted.fence, key, answer);
    const hold = new Hold(key, wanted, context, answer);
    this.entries.push(hold);
    this.watchExpiry(hold);
    this.serveWaiting();
    if (hold.state === "waiting") hold.waitFor(wanted.waitSeconds, () => this.refuse(hold));
    return () => {
      if (hold.state === "waiting") this.leave(hold);
    };
  }

  /** Refuse a write without the fence that it needs, or with one whose hold has ended. */
  check(key: Key, given: string | undefined): void {
    const { held } = this;
    const fences = given?.split(/, */) ?? [];
    if (!fences.every((fence) => held.some((hold) => hold.fence === fence && hold.guards(key)))) {
      const cause = "its fence is not that of a hold of this bucket or device, or the hold has ended";
      throw new BucketError(`cannot change the bucket: ${cause}; nothing was changed`, "hold_lost");
    }
    const exclusive = held.find((hold) => hold.wanted.exclusive && hold.covers(key) && !fences.includes(hold.fence));
    if (exclusive) throw heldBy("cannot change the bucket", [exclusive]);
  }

  /** End the holds and waits of contexts that are no longer valid. */
  endContexts(): void {
    const live = this.live();
    for (const hold of [...this.entries]) {
      if (!hold.context || live.includes(hold.context)) continue;
      if (hold.state === "held") this.lose(hold, hold.context.expires > now() ? "revoked" : "expired");
      else this.leave(hold, new NoJobContextError("no job context: the token was revoked or has expired"));
    }
  }

  /** Let holders go, as a daemon that stops: they may come back, and waiters try again. */
  suspend(): void {
    for (const hold of [...this.entries]) {
      if (hold.state === "held") hold.detach();
      else this.remove(hold).answer(new BucketError("cannot hold the bucket: the server is stopping", "shutting_down"));
    }
  }

  /** Give holders some time to come back after a restart. */
  resume(): void {
    const absent = this.held.filter(({ connected }) => !connected);
    const expire = () => absent.filter(({ connected }) => !connected).forEach((hold) => this.leave(hold));
    if (absent.length > 0) setTimeout(expire, GRACE_MS).unref?.();
  }

  private get held(): Hold[] {
    return this.entries.filter(({ state }) => state === "held");
  }

  /** Give each waiter its hold that no holder and no earlier waiter keeps from it. */
  private serveWaiting(): void {
    this.entries.forEach((hold, index) => {
      if (hold.state === "held" || this.before(hold, index).length > 0) return;
      hold.grant(() => this.leave(hold));
    });
  }

  /** Return who keeps this waiter from its hold: holders, and waiters before it. */
  private before(waiter: Hold, index = this.entries.indexOf(waiter)): Hold[] {
    return this.entries.filter((hold, at) => hold !== waiter && hold.excludes(waiter) && (hold.state === "held" || at < index));
  }

  private comeBack(fence: string, key: Key, answer: Answer): () => void {
    const hold = this.held.find((each) => each.fence === fence);
    if (!hold || hold.connected || hold.key.device !== key.device || hold.key.job !== key.job) {
      throw new BucketError("cannot come back to the hold: it has ended; take it again", "hold_lost");
    }
    hold.attach(answer, () => this.leave(hold));
    return () => undefined;
  }

  private refuse(hold: Hold): void {
    const [first, ...others] = this.before(hold).sort((one, other) => one.state.localeCompare(other.state));
    // Holders come first. There is somebody, since it still waits.
    const holders = others.filter(({ state }) => state === "held");
    this.leave(hold, heldBy(`cannot hold ${hold.what}`, [first!, ...holders]));
  }

  private lose(hold: Hold, reason: string): void {
    hold.stream?.lose(reason);
    this.leave(hold);
  }

  private leave(hold: Hold, refusal?: BucketError): void {
    this.remove(hold);
    if (refusal) hold.answer(refusal);
    this.serveWaiting();
  }

  /** Look at the token of a hold when it expires; again where the timer goes off a moment early. */
  private watchExpiry(hold: Hold): void {
    if (!hold.context || !this.entries.includes(hold)) return;
    const left = Math.min(2 ** 31 - 1, Math.max(1, hold.context.expires - now()));
    hold.expiry = setTimeout(() => {
      this.endContexts();
      this.watchExpiry(hold);
    }, left);
    hold.expiry.unref?.();
  }

  private remove(hold: Hold): Hold {
    hold.stopWaiting();
    clearTimeout(hold.expiry);
    const at = this.entries.indexOf(hold);
    if (at >= 0) this.entries.splice(at, 1);
    return hold;
  }
}

/** One hold, or the wait for it. */
class Hold {
  readonly id = randomBytes(6).toString("hex");
  readonly fence = randomBytes(12).toString("base64url");
  state: "held" | "waiting" = "waiting";
  stream: HoldStream | undefined;
  expiry: ReturnType<typeof setTimeout> | undefined;
  since = new Date();
  private began = now();
  private timer: ReturnType<typeof setTimeout> | undefined;

  constructor(
    readonly key: Key,
    readonly wanted: Wanted,
    readonly context: Context | undefined,
    readonly answer: Answer,
  ) {}

  get connected(): boolean {
    return this.state === "waiting" || this.stream !== undefined;
  }

  /** Who it is, without the fence. */
  get row(): object {
    const { id, state, connected } = this;
    const { id: context = null, automation = null } = this.context ?? {};
    // Node does not tell who the peer is: only this user can connect, and a test is mostly one process.
    const by = { user: userName(), uid: process.getuid?.() ?? null, pid: process.pid, context, automation };
    const seconds = (now() - this.began) / 1000;
    return { id, state, ...this.shown, seconds, connected, by, host: hostname() };
  }

  get shown(): object {
    const { name, exclusive, label } = this.wanted;
    return { name, ...this.key, exclusive, label, since: this.since.toISOString() };
  }

  get what(): string {
    const { device, job } = this.key;
    return `device '${device}'${job === null ? "" : `, job '${job}'`}`;
  }

  excludes(other: Hold): boolean {
    const [{ device, job }, key] = [this.key, other.key];
    return this.wanted.name === other.wanted.name && device === key.device && (job === null || key.job === null || job === key.job);
  }

  /** Report whether an exclusive hold protects this bucket. */
  covers({ device, job }: Key): boolean {
    return device === this.key.device && (this.key.job === null || job === this.key.job);
  }

  /** Report whether writes of this bucket may carry the fence. */
  guards(key: Key): boolean {
    return this.covers(key) || (key.device === this.key.device && key.job === null);
  }

  waitFor(seconds: number, expire: () => void): void {
    this.timer = setTimeout(expire, 1000 * seconds);
    this.timer.unref?.();
  }

  stopWaiting(): void {
    clearTimeout(this.timer);
  }

  grant(release: () => void): void {
    this.stopWaiting();
    this.state = "held";
    [this.since, this.began] = [new Date(), now()];
    this.attach(this.answer, release);
  }

  attach(answer: Answer, release: () => void): void {
    const { id, fence } = this;
    const stream = new HoldStream({ id, fence, ...this.shown }, () => {
      if (this.stream === stream) release();
    });
    this.stream = stream;
    answer(stream);
  }

  /** End the stream, and keep the hold for its holder to come back. */
  detach(): void {
    const { stream } = this;
    this.stream = undefined;
    stream?.finish();
  }
}

/** The stream of one hold, whose end releases it. */
export class HoldStream {
  private send: (text: string) => void = () => undefined;
  private end: () => void = () => undefined;

  constructor(private readonly event: object, private readonly release: () => void) {}

  /** Send the hold, and heartbeats; return what to call when the client has gone. */
  start(send: (text: string) => void, end: () => void): () => void {
    const beat = setInterval(() => send(":\n\n"), HEARTBEAT_MS);
    beat.unref?.();
    [this.send, this.end] = [send, end];
    send(event("hold", this.event));
    return () => {
      clearInterval(beat);
      this.release();
    };
  }

  /** End the stream, and say why. */
  lose(reason: string): void {
    const { id } = this.event as { id: string };
    this.send(event("lost", { id, reason }));
    this.finish();
  }

  finish(): void {
    this.end();
  }
}

function userName(): string {
  try {
    return userInfo().username;
  } catch {
    // The system knows no name for this user.
    return String(process.getuid?.() ?? "");
  }
}

function event(kind: string, data: object): string {
  return `event: ${kind}\ndata: ${JSON.stringify(data)}\n\n`;
}

/** Return the refusal that names who holds, or waits before. */
function heldBy(verb: string, [first, ...others]: readonly [Hold, ...Hold[]]): BucketError {
  const does = first.state === "waiting" ? "waits for it before you" : "holds it";
  const message = `${verb}: ${userName()} ${does} since ${first.since.toISOString()}; wait longer, or try again once that ends`;
  return new BucketError(message, "held", { details: [first, ...others].map(({ row }) => row) });
}

function wantedBy({ name = "", exclusive = false, label = null, fence = null, wait_seconds: waitSeconds = 0 }: JsonObject): Wanted {
  const isText = (value: unknown) => value === null || typeof value === "string";
  if (typeof exclusive !== "boolean" || typeof waitSeconds !== "number" || !isText(label) || !isText(fence)) {
    throw new InvalidRequestError("cannot hold it: a member of the request has another type");
  }
  if (exclusive && name !== "") throw new InvalidRequestError("cannot hold it: only the unnamed hold can be exclusive");
  return { name: name === "" ? name : nameFor(name, "hold"), waitSeconds, exclusive, label: label as string | null, fence: fence as string | null };
}
