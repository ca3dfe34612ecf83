// `returning: false`: the response to a write without the bucket, also from a daemon that sends it.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Bucket, agent } from "../dist/index.mjs";
import { useBucketd } from "../dist/testing/index.mjs";
import { Fake, answer, stored } from "./support/fake.mjs";
import { environment } from "./support/temp.mjs";

const WRITES = {
  set: (bucket, options) => bucket.set({ a: 1 }, options),
  replace: (bucket, options) => bucket.replace({ a: 2 }, options),
  mergePatch: (bucket, options) => bucket.mergePatch({ a: 3 }, options),
  jsonPatch: (bucket, options) => bucket.jsonPatch([{ op: "add", path: "/a", value: 4 }], options),
  update: (bucket, options) => bucket.update((b) => void (b.a = 5), options),
  remove: (bucket, options) => bucket.remove("a", options),
};

test("every write resolves to its revision, and asks for no more", async (t) => {
  const { bucket } = await useBucketd(t);
  let revision = 0;
  for (const [name, write] of Object.entries(WRITES)) {
    const result = await write(new Bucket(), { returning: false });
    assert.deepEqual(result, { success: true, revision: ++revision }, name);
    assert.equal(bucket.revision, revision);
  }
  assert.deepEqual(await agent.utils.bucket.set({ b: 1 }, { returning: false }), { success: true, revision: revision + 1 });
  assert.deepEqual(await agent.utils.deviceBucket.set({ c: 1 }, { returning: false }), { success: true, revision: 1 });
  assert.deepEqual(await agent.utils.bucket.set({ b: 2 }, { returning: true }), { success: true, bucket: { b: 2 }, revision: revision + 2 });
  assert.deepEqual(bucket.data, { b: 2 });
});

test("a daemon that does not know the preference sends the bucket, which is dropped", async (t) => {
  const fake = await Fake.start(t, ({ method }) => (method === "GET" ? stored({ a: 0 }, 6) : stored({ a: 1 }, 7)));
  const bucket = new Bucket({ token: "t", socket: fake.path });
  for (const [name, write] of Object.entries(WRITES)) {
    assert.deepEqual(await write(bucket, { returning: false }), { success: true, revision: 7 }, name);
    assert.equal(fake.requests.at(-1).headers.prefer, "return=minimal");
    assert.deepEqual(await write(bucket), { a: 1 }, name);
    assert.equal(fake.requests.at(-1).headers.prefer, undefined);
  }
  await bucket.set({ a: 1 }, { returning: false, ifMatch: '"e7"' });
  assert.equal(fake.requests.at(-1).headers["if-match"], '"e7"');
});

test("failures are told as without it, and what is no answer is refused", async (t) => {
  const { server } = await useBucketd(t);
  server.refuse("storage_full", { times: 2 });
  assert.equal((await agent.utils.bucket.set({ a: 1 }, { returning: false })).code, "storage_full");
  await assert.rejects(new Bucket().set({ a: 1 }, { returning: false }), { code: "storage_full" });
  await assert.rejects(new Bucket().set({ a: 1 }, { returning: false, ifMatch: '"none"' }), { code: "precondition_failed" });
  await assert.rejects(new Bucket().set({ a: 1 }, { returning: "no" }), { message: "cannot set the bucket: returning must be true or false" });
  await assert.rejects(new Bucket().clear({ returning: false }), { message: /no option "returning"; there is ifMatch$/ });
  assert.equal((await agent.utils.bucket.set({ a: 1 }, { returning: 0 })).code, "invalid_request");
  const fake = await Fake.start(t, () => answer(200, { success: true }));
  environment(t, { BUCKETD_TOKEN: "t", BUCKETD_SOCKET: fake.path });
  await assert.rejects(new Bucket().set({ a: 1 }, { returning: false }), { code: "internal", message: /it holds no revision/ });
});
