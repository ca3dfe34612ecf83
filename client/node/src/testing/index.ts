import type { StoredBucket } from "./stored-bucket.js";
import { Server, type ServerOptions } from "./server.js";

const MAX_LABEL = 128; // characters that bucketd accepts

export { StoredBucket } from "./stored-bucket.js";
export { Server, type ServerOptions } from "./server.js";
export type { Write } from "./state.js";

/** The part of a test's context that is used: of `node:test` (`after`), or of vitest (`onTestFinished`). */
export interface TestContext {
  after?(clean: () => unknown): unknown;
  onTestFinished?(clean: () => unknown): unknown;
  /** The name of the test, which is the label of its context. */
  readonly name?: string;
  readonly task?: { readonly name: string };
}

export interface TestBuckets extends ServerOptions {
  /** What the bucket holds at first. */
  bucket?: object;
  /** What the device bucket holds at first. */
  deviceBucket?: object;
  device?: string;
  job?: string;
  /** The run label of the test's context; by default the test's name. */
  label?: string;
}

export interface TestBucketd {
  readonly server: Server;
  /** The bucket that `agent.utils.bucket` and `new Bucket()` use in this test. */
  readonly bucket: StoredBucket;
  /** The bucket that `agent.utils.deviceBucket` uses in this test. */
  readonly deviceBucket: StoredBucket;
  /** Stop the server, and restore `process.env`; done by itself where a context of the test was given. */
  close(): Promise<void>;
  /** As `close`, for `await using`. */
  [Symbol.asyncDispose](): Promise<void>;
}

/** Start a bucketd in memory; `close` it when done. */
export async function startServer(options: ServerOptions = {}): Promise<Server> {
  const server = new Server(options);
  await server.start();
  return server;
}

/**
 * Start a bucketd for this test alone: in memory, on a real socket, with a job context in
 * `process.env`, which is restored after the test.
 *
 * `t` is the context of the test, as `node:test` and vitest pass it. Without it, as in jest, `close`
 * the result in `afterEach`, or take it with `await using`.
 */
export function useBucketd(options?: TestBuckets): Promise<TestBucketd>;
export function useBucketd(t: TestContext, options?: TestBuckets): Promise<TestBucketd>;
export async function useBucketd(first: TestContext | TestBuckets = {}, second: TestBuckets = {}): Promise<TestBucketd> {
  const [t, options] = isContext(first) ? [first, second] : [undefined, first];
  const { device = "test-device", job = "test-job" } = options;
  const server = await startServer(options);
  const label = options.label ?? labelOf(t?.task?.name ?? t?.name);
  const [bucket, deviceBucket] = [server.bucket(device, job, { label }), server.bucket(device)];
  if (options.bucket) bucket.seed(options.bucket);
  if (options.deviceBucket) deviceBucket.seed(options.deviceBucket);
  const restore = setEnvironment(bucket.environ);
  let closed: Promise<void> | undefined;
  const close = () => {
    if (!closed) restore();
    return (closed ??= server.close());
  };
  (t?.after ?? t?.onTestFinished)?.call(t, close);
  const found = { server, bucket, deviceBucket, close };
  // Older runtimes have no such symbol.
  return (Symbol.asyncDispose ? Object.assign(found, { [Symbol.asyncDispose]: close }) : found) as TestBucketd;
}

function isContext(given: TestContext | TestBuckets): given is TestContext {
  return "after" in given || "onTestFinished" in given;
}

/** Return the name of a test as a label that bucketd accepts; null for none. */
function labelOf(name: string | undefined): string | null {
  const characters = [...(name ?? "").replace(/[\p{Cc}\p{Cs}]/gu, " ")];
  return characters.slice(0, MAX_LABEL).join("") || null;
}

/** Make the BUCKETD_ variables exactly these; return the function that restores them. */
function setEnvironment(variables: Record<string, string>): () => void {
  const ours = () => Object.keys(process.env).filter((name) => name.startsWith("BUCKETD_"));
  const before = Object.fromEntries(ours().map((name) => [name, process.env[name]]));
  const assign = (wanted: Record<string, string | undefined>) => {
    for (const name of ours()) delete process.env[name];
    Object.assign(process.env, wanted);
  };
  assign(variables);
  return () => assign(before);
}
