// `defaults: true`: the server completes what is read, and nothing is stored.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Bucket, agent } from "../dist/index.mjs";
import { useBucketd } from "../dist/testing/index.mjs";

test("a read with defaults is completed", async (t) => {
  const { bucket } = await useBucketd(t);
  bucket.setDefaults({ status: "new", tags: [] });
  const client = new Bucket();
  assert.deepEqual(await client.get({ defaults: true }), { status: "new", tags: [] });
  await client.set({ status: "used" });
  assert.deepEqual(await client.get({ defaults: true }), { status: "used", tags: [] });
  assert.deepEqual(await client.get("tags", "absent", { defaults: true }), { tags: [] });
  assert.deepEqual(await client.get({ defaults: false }), { status: "used" });
  assert.deepEqual(await client.get("tags"), {});
  const result = await agent.utils.bucket.get({ defaults: true });
  assert.deepEqual(result, { success: true, bucket: { status: "used", tags: [] }, revision: 1 });
  assert.deepEqual(bucket.data, { status: "used" });
});

test("a default is never shared", async (t) => {
  const { bucket } = await useBucketd(t);
  bucket.setDefaults({ tags: [] });
  const client = new Bucket();
  (await client.get({ defaults: true })).tags.push("mine");
  assert.deepEqual(await client.get({ defaults: true }), { tags: [] });
});

test("other options of a read are refused", async (t) => {
  await useBucketd(t);
  const client = new Bucket();
  for (const options of [{ default: true }, { defaults: "yes" }, []]) {
    await assert.rejects(client.get(options), { code: "invalid_request" });
    const result = await agent.utils.bucket.get(options);
    assert.equal(result.code, "invalid_request");
  }
});
