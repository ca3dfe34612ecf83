// The throwing face, generic.
import {
  agent, Bucket, BucketError, ConnectionLostError, HeldError, HoldLostError,
  type BucketOptions, type Context, type Held, type HeldBucket, type HoldOptions, type Snapshot, type WriteSuccess,
} from "bucketd-client";

interface Counter {
  count: number;
  label?: string;
}

const options: BucketOptions = { device: "d", job: "j", automation: "a", timeout: 100 };
const bucket = new Bucket<Counter>(options);
new Bucket({ socket: new URL("file:///run/bucketd.sock"), fence: "f" });
const all: Counter = await bucket.get();
const some: { count?: number } = await bucket.get("count");
const snapshot: Snapshot<Counter> = await bucket.snapshot();
const context: Context = await bucket.context();
await bucket.set({ label: "x" });
await bucket.replace({ count: 1 });
await bucket.update((b) => {
  b.count += 1;
});
await bucket.update(async (b) => ({ ...b, count: b.count + 1 }));
await bucket.remove("label");
await bucket.mergePatch({ label: null });
await bucket.jsonPatch([{ op: "add", path: "/count", value: 1 }, { op: "remove", path: "/label" }]);
const cleared: void = await bucket.clear();
await bucket.set({ label: "x" }, { ifMatch: snapshot.etag });
await bucket.remove("label", "count", { ifMatch: snapshot.etag });
await bucket.clear({ ifMatch: snapshot.etag });
const minimal: WriteSuccess = await bucket.set({ label: "x" }, { returning: false });
const writes: { revision: number }[] = [
  await bucket.replace({ count: 1 }, { returning: false, ifMatch: snapshot.etag }),
  await bucket.remove("label", { returning: false }),
  await bucket.mergePatch({ label: null }, { returning: false }),
  await bucket.jsonPatch([], { returning: false }),
  await bucket.update((b) => b, { returning: false }),
];
const returned: Counter = await bucket.set({ label: "x" }, { returning: true, ifMatch: null });
const brief = await agent.utils.bucket.set({ a: 1 }, { returning: false });
if (brief.success) console.log(brief.revision, minimal.revision, writes, returned.count);
console.log(all, some, snapshot.etag, context.job, cleared);

const anything = await new Bucket().get();
console.log(anything.a.b.c);

try {
  await bucket.get();
} catch (error) {
  if (error instanceof ConnectionLostError) console.log(error.code);
  if (error instanceof BucketError) console.log(error.status, error.details?.[0]?.path, error.revision);
}

// @ts-expect-error no such option
await bucket.set({ label: "x" }, { ifmatch: snapshot.etag });
// @ts-expect-error without the bucket there is no count
(await bucket.set({ label: "x" }, { returning: false })).count;
// @ts-expect-error clear resolves to nothing anyway
await bucket.clear({ returning: false });
// @ts-expect-error no such option
await bucket.remove("label", { ifmatch: snapshot.etag });
// @ts-expect-error no path
new Bucket({ socket: 5 });
// @ts-expect-error not a key
await bucket.get("cuont");
// @ts-expect-error a wrong type
await bucket.set({ count: "1" });
// @ts-expect-error a key that is missing
await bucket.replace({ label: "x" });
// @ts-expect-error not a key
await bucket.remove("cuont");
// @ts-expect-error no such operation
await bucket.jsonPatch([{ op: "put", path: "/a", value: 1 }]);

export {};

export async function held(bucket: Bucket<Counter>): Promise<number> {
  const stop = new AbortController();
  const options: HoldOptions = { wait: 60, name: "n", exclusive: false, label: "l", signal: stop.signal };
  const value: number = await bucket.hold(options, async (held) => {
    const all: Counter = await held.set({ count: 1 });
    await fetch("http://localhost", { signal: held.signal });
    return all.count;
  });
  const same: string = await bucket.hold(() => "x");
  const explicit: HeldBucket<Counter> = await bucket.hold({ wait: 0 });
  const facts: Held = explicit;
  await explicit[Symbol.asyncDispose]();
  await explicit.release();
  const fresh: Counter = await bucket.refresh((b) => b.count > 0, async (b, signal) => ({ count: signal.aborted ? 0 : b.count + 1 }));
  await bucket.refresh((b) => b.count > 0, () => ({ label: "x" }), { name: "login", wait: 5 });
  const result = await agent.utils.bucket.hold({ wait: 1 });
  if (result.success) await result.held.release();
  const counted = await agent.utils.deviceBucket.hold(async (held) => (await held.get()).success);
  if (counted.success) console.log(counted.value === true);
  const refreshed = await agent.utils.bucket.refresh((b) => b.token !== undefined, () => ({ token: "t" }));
  if (refreshed.success) console.log(refreshed.bucket.token);
  // @ts-expect-error no such option
  await bucket.hold({ exlusive: true });
  // @ts-expect-error a wrong type
  await bucket.refresh((b) => b.count > 0, () => ({ count: "1" }));
  // @ts-expect-error before the result is narrowed nothing is held
  result.held;
  const errors = [HeldError, HoldLostError].map(({ name }) => name);
  console.log(errors, facts.id, same, fresh.label);
  return value;
}

export async function watched(bucket: Bucket<{ n?: number }>): Promise<number | undefined> {
  const stop = new AbortController();
  for await (const change of bucket.watch({ keys: ["n"], snapshot: true, signal: stop.signal })) {
    const gap: boolean = change.gap;
    if (gap || change.job === null) stop.abort();
    return change.set.n;
  }
  for await (const each of agent.utils.bucket.watch()) {
    if (!each.success) throw new Error(each.error);
    return each.revision;
  }
  return undefined;
}

// Codes are a closed union, and `value` is typed by its key.
import type { ErrorCode } from "bucketd-client";

interface Counted { opened?: number; name: string }
const counted = new Bucket<Counted>();
const opened: number = await counted.value("opened", 0);
const maybe: number | undefined = await counted.value("opened");
const either: number | null = await counted.value("opened", null);
// @ts-expect-error: a misspelt key
await counted.value("opend", 0);
export const known: ErrorCode = "schema_violation";
// @ts-expect-error: a misspelt code
export const unknown: ErrorCode = "schema_violated";
const outcome = await agent.utils.bucket.get();
// @ts-expect-error: a misspelt code is never equal
if (!outcome.success && outcome.code === "no_job_contexts") throw new Error("never");
if (!outcome.success && outcome.code === "aborted") throw new Error("of a signal");
export { either, maybe, opened };
