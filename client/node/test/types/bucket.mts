// The throwing face, generic.
import { agent, Bucket, BucketError, ConnectionLostError, type BucketOptions, type Context, type Snapshot, type WriteSuccess } from "bucketd-client";

interface Counter {
  count: number;
  label?: string;
}

const options: BucketOptions = { device: "d", job: "j", automation: "a", timeout: 100 };
const bucket = new Bucket<Counter>(options);
new Bucket({ socket: new URL("file:///run/bucketd.sock") });
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
