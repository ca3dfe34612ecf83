import type { StoredBucket } from "./stored-bucket.js";
import { Server, type ServerOptions } from "./server.js";

const MAX_LABEL = 128; // characters that bucketd accepts

export { StoredBucket } from "./stored-bucket.js";
export { Server, type ServerOptions } from "./server.js";
export type { Write } from "./state.js";

/** The part of `node:test`'s context that is used; other runners have an equivalent. */
export interface TestContext {
  after(clean: () => unknown): void;
  /** The name of the test, which is the label of its context. */
  readonly name?: string;
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
 */
export async function useBucketd(t: TestContext, options: TestBuckets = {}): Promise<TestBucketd> {
  const { device = "test-device", job = "test-job" } = options;
  const server = await startServer(options);
  t.after(() => server.close());
  const label = options.label ?? labelOf(t.name);
  const [bucket, deviceBucket] = [server.bucket(device, job, { label }), server.bucket(device)];
  if (options.bucket) bucket.seed(options.bucket);
  if (options.deviceBucket) deviceBucket.seed(options.deviceBucket);
  t.after(setEnvironment(bucket.environ));
  return { server, bucket, deviceBucket };
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
