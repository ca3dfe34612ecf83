import { readFileSync, statSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { InvalidRequestError, NoJobContextError } from "./errors.js";
import type { RuntimeSignal } from "./types.js";

/** The bucket that a call addresses, and its credentials; resolved again for each call. */
export interface Target {
  readonly socket: string;
  /** The bucket's path, percent-encoded. */
  readonly path: string;
  readonly token?: string;
  readonly field: "bucket" | "deviceBucket";
  /** The names that a trusted caller gives instead of a token. */
  readonly named?: { device: string; job: string | null; automation: string | null };
  /** The hold that guards the writes. */
  readonly hold?: LiveHold;
  /** The fences of the holds around this one, the environment's first. */
  readonly outerFences?: string;
}

/** What the daemon says of a hold. */
export interface HoldEvent {
  readonly id: string;
  readonly fence: string;
  readonly name: string;
  readonly since: string;
}

/** A hold, as its bucket sees it. */
export interface LiveHold {
  readonly event: HoldEvent;
  /** Aborts when the hold is lost, or released by its own signal. */
  readonly signal: RuntimeSignal;
  /** Resolve once the hold is certain; reject with HoldLostError when it has ended, with TimedOut after `ms`. */
  ready(ms: number): Promise<void>;
  /** End the hold; resolve once the daemon has released it. */
  release(): Promise<void>;
}

/** The part of a URL that is used, so that a program needs no types of Node's or a browser's. */
export interface FileUrl {
  readonly href: string;
}

export interface BucketOptions {
  /** Token of a context; default `BUCKETD_TOKEN`, or the file that `BUCKETD_TOKEN_FILE` names. */
  token?: string;
  /** Name the context instead of giving a token, for a trusted local caller (an operator). */
  device?: string;
  /** The job on that device; without a job the call addresses the device bucket. */
  job?: string;
  /** The automation whose schema applies; only together with `device`. */
  automation?: string;
  /** Address the device bucket of the context instead of its job's bucket. */
  deviceBucket?: boolean;
  /** Fence of a hold, which lets the writes pass only while it lasts; default `BUCKETD_FENCE`. */
  fence?: string;
  /** Path of the daemon's socket, or its `file:` URL; default `BUCKETD_SOCKET`, then the usual places. */
  socket?: string | FileUrl;
  /** Milliseconds a call may take; default 5 s to reach a daemon, 30 s until its response is complete. */
  timeout?: number;
}

const MAX_TIMEOUT_MS = 2 ** 31 - 1; // the longest delay of a timer

const HOW_TO_FIX =
  "start it with: bucketctl run --device DEVICE --job JOB -- COMMAND";

/** Return the bucket that `options` name, else that of the environment. */
export function resolve(options: BucketOptions): Target {
  refuseTimeout(options.timeout);
  const socket = options.socket ? pathOf(options.socket) : socketPath();
  const field = options.deviceBucket ? "deviceBucket" : "bucket";
  const outer = givenFence(options);
  if (options.device !== undefined) return { socket, ...fromNames(options, options.device), ...outer };
  refuseStrayNames(options);
  const token = options.token ?? tokenOfEnvironment();
  if (token !== undefined) return { socket, ...fromToken(token, field), ...outer };
  return { socket, ...fromEnvironment(field), ...outer };
}

function pathOf(socket: string | FileUrl): string {
  if (typeof socket === "string") return socket;
  try {
    return fileURLToPath(new URL((socket as FileUrl).href));
  } catch {
    throw new InvalidRequestError("cannot use the socket: give its path, or a file: URL");
  }
}

/** Return the path of the daemon's socket according to the current environment. */
export function socketPath(): string {
  const { XDG_RUNTIME_DIR: runtime } = process.env;
  const named = variable("BUCKETD_SOCKET");
  if (named !== undefined) return named;
  const ofUser = runtime ? `${runtime}/bucketd/bucketd.sock` : undefined;
  const exists = ofUser !== undefined && statSync(ofUser, { throwIfNoEntry: false }) !== undefined;
  return exists ? ofUser : "/run/bucketd/bucketd.sock";
}

type Bound = Omit<Target, "socket">;

function fromToken(given: string, field: Target["field"]): Bound {
  const token = typeof given === "string" ? given.replace(/^[ \t\r\n]+|[ \t\r\n]+$/g, "") : "";
  if (!/^[\x21-\x7e]+$/.test(token)) {
    throw new NoJobContextError(`cannot use the token: it is empty or contains characters that no token has; ${HOW_TO_FIX}`);
  }
  return { path: field === "bucket" ? "/v1/bucket" : "/v1/device/bucket", token, field };
}

function fromNames(options: BucketOptions, device: string): Bound {
  if (options.token !== undefined) {
    throw new InvalidRequestError("cannot name the context: give a token or a device, not both");
  }
  const ofDevice = options.deviceBucket || options.job === undefined;
  return named(device, ofDevice ? null : options.job!, options.automation ?? null);
}

function refuseTimeout(timeout: number | undefined): void {
  if (timeout === undefined || (typeof timeout === "number" && timeout > 0 && timeout <= MAX_TIMEOUT_MS)) return;
  throw new InvalidRequestError(
    `cannot use the timeout: it must be a number of milliseconds, more than 0 and at most ${MAX_TIMEOUT_MS}`,
  );
}

function refuseStrayNames(options: BucketOptions): void {
  if (options.job === undefined && options.automation === undefined) return;
  throw new InvalidRequestError("cannot name the context: a job or an automation needs a device");
}

function fromEnvironment(field: Target["field"]): Bound {
  const device = variable("BUCKETD_DEVICE");
  const job = variable("BUCKETD_JOB");
  if (device === undefined) {
    throw new NoJobContextError(
      `no job context: the environment of this process has none; ${HOW_TO_FIX}`,
    );
  }
  if (field === "bucket" && job === undefined) {
    throw new NoJobContextError(
      `no job context: BUCKETD_DEVICE is set, but BUCKETD_JOB is not; ${HOW_TO_FIX}`,
    );
  }
  return named(device, field === "bucket" ? job! : null, variable("BUCKETD_AUTOMATION") ?? null);
}

function named(device: string, job: string | null, automation: string | null): Bound {
  const base = `/v1/devices/${segment(device, "device")}`;
  const path = job === null ? `${base}/bucket` : `${base}/jobs/${segment(job, "job")}/bucket`;
  return {
    path,
    field: job === null ? "deviceBucket" : "bucket",
    named: { device, job, automation },
  };
}

/** Return the request target: the bucket's own path, or `path`, with its query. */
export function locate(target: Target, path = target.path, query: readonly string[] = []): string {
  const automation = target.named?.automation ?? null;
  const all = automation === null ? query : [`automation=${quote(automation, "automation")}`, ...query];
  return all.length === 0 ? path : `${path}?${all.join("&")}`;
}

/** Return the headers that authenticate the caller. */
export function authorization({ token }: Target): Record<string, string> {
  return token === undefined ? {} : { Authorization: `Bearer ${token}` };
}

/** Return the fences of all holds around a write, the outermost first. */
function fencesOf({ hold, outerFences }: Target): string {
  return [outerFences, hold?.event.fence].filter((fence) => fence !== undefined).join(", ");
}

/** Return the header that lets a write pass only while all holds around it live. */
export function fencing(target: Target): Record<string, string> {
  const fences = fencesOf(target);
  return fences === "" ? {} : { "Bucketd-Fence": fences };
}

/** Return the target for calls under `hold`, which was taken for `target`. */
export function heldTarget(target: Target, hold: LiveHold): Target {
  const outerFences = fencesOf(target);
  return { ...target, ...(outerFences && { outerFences }), hold };
}

/** Return `name` as one path segment that is never read as `.` or `..`. */
function segment(name: string, what: string): string {
  if (typeof name !== "string" || name === "") {
    throw new InvalidRequestError(`cannot use the ${what}: its name must be a string of 1 to 128 characters`);
  }
  if (/^\.\.?$/.test(name)) return name.replaceAll(".", "%2E");
  return quote(name, what);
}

/** Percent-encode everything but letters, digits and `-_.~`. */
export function quote(text: string, what: string): string {
  if (/^[\w.~-]*$/.test(text)) return text;
  try {
    const hex = (char: string) => `%${char.charCodeAt(0).toString(16).toUpperCase()}`;
    return encodeURIComponent(text).replace(/[!'()*]/g, hex);
  } catch {
    throw new InvalidRequestError(`cannot use the ${what}: it contains a lone surrogate`);
  }
}

function tokenOfEnvironment(): string | undefined {
  const file = variable("BUCKETD_TOKEN_FILE");
  const token = variable("BUCKETD_TOKEN");
  if (token !== undefined || file === undefined) return token;
  try {
    return readFileSync(file, "utf8");
  } catch (error) {
    const cause = (error as NodeJS.ErrnoException).code ?? "unreadable";
    throw new NoJobContextError(`cannot read the token file ${file}: ${cause}; ${HOW_TO_FIX}`);
  }
}

/** Return the given fence, else that of the hold around this process if it is of this context. */
function givenFence(options: BucketOptions): { outerFences?: string } {
  const fence = options.fence ?? variable("BUCKETD_FENCE");
  if (fence === undefined || (options.fence === undefined && !isOfEnvironment(options))) return {};
  if (/^[\x21-\x7e]+(?: [\x21-\x7e]+)*$/.test(fence)) return { outerFences: fence };
  throw new InvalidRequestError("cannot use the fence: it is empty or contains characters that no fence has");
}

/** Report whether the options name the context of the environment: a fence is refused for other buckets. */
function isOfEnvironment({ device, job, token, deviceBucket }: BucketOptions): boolean {
  if (token !== undefined) return token === variable("BUCKETD_TOKEN");
  if (device === undefined) return true;
  return device === variable("BUCKETD_DEVICE") && (deviceBucket || job === undefined || job === variable("BUCKETD_JOB"));
}

function variable(name: string): string | undefined {
  return process.env[name] || undefined;
}
