// `bucketd-client/testing`, as the author of an automation uses it.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, readFileSync } from "node:fs";
import http from "node:http";
import { createRequire } from "node:module";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { Bucket, agent } from "../dist/index.mjs";
import { startServer, useBucketd } from "../dist/testing/index.mjs";
import { node } from "./support/daemon.mjs";
import { environment, tempDir } from "./support/temp.mjs";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));

async function automation() {
  const result = await agent.utils.bucket.get();
  if (!result.success) throw new Error(result.error);
  if (!result.bucket.loggedIn) await agent.utils.bucket.set({ loggedIn: true, at: [1, { b: null }] });
  await agent.utils.deviceBucket.set({ lastJob: "login" });
}

test("what the automation sets can be asserted", async (t) => {
  const { bucket, deviceBucket } = await useBucketd(t);
  assert.deepEqual([bucket.data, bucket.revision, bucket.writes], [{}, 0, []]);
  await automation();
  bucket.assertSet({ loggedIn: true, at: [1, { b: null }] });
  deviceBucket.assertSet({ lastJob: "login" });
  assert.deepEqual(bucket.data, { loggedIn: true, at: [1, { b: null }] });
  assert.deepEqual(bucket.writes, [{ method: "PATCH", set: bucket.data, removed: [], revision: 1 }]);
});

test("a seeded session is gone on with", async (t) => {
  const seeds = { bucket: { loggedIn: true }, deviceBucket: { model: "p7" }, job: "log in" };
  const { bucket, deviceBucket } = await useBucketd(t, seeds);
  await automation();
  bucket.assertUnchanged();
  assert.deepEqual(deviceBucket.data, { model: "p7", lastJob: "login" });
  assert.equal((await new Bucket().context()).job, "log in");
});

test("its context has the name of the test", async (t) => {
  const { bucket } = await useBucketd(t);
  assert.equal((await new Bucket().context()).label, t.name);
  assert.equal(bucket.environ.BUCKETD_RUN, t.name);
});

test("a context has a label that is given, or none", async (t) => {
  const { server } = await useBucketd(t, { label: "nightly" });
  assert.equal((await new Bucket().context()).label, "nightly");
  assert.equal(server.bucket("d", "j").environ.BUCKETD_RUN, undefined);
  const nameless = { after: (clean) => t.after(clean), name: `${"é\n".repeat(100)}` };
  const { bucket } = await useBucketd(nameless);
  assert.equal(bucket.environ.BUCKETD_RUN, "é ".repeat(64));
});

test("removed keys, and the same value again", async (t) => {
  const { bucket } = await useBucketd(t, { bucket: { a: 1, b: 2 } });
  await new Bucket().set({ b: 2 });
  bucket.assertSet({ b: 2 });
  bucket.assertUnchanged();
  await new Bucket().remove("a");
  bucket.assertRemoved("a");
});

test("assertions fail with what was done", async (t) => {
  const { bucket } = await useBucketd(t, { bucket: { gone: 1 } });
  await new Bucket().set({ a: 1 });
  assert.throws(() => bucket.assertSet({ b: 1 }), /"b" was not set; set were: "a"/);
  assert.throws(() => bucket.assertSet({ a: 2 }), /"a" was set to 1, not to 2/);
  assert.throws(() => bucket.assertRemoved("gone"), /"gone" was not removed; removed were: none/);
  assert.throws(() => bucket.assertUnchanged(), /it was \{"gone":1\}, it is \{"gone":1,"a":1\}/);
  await new Bucket().remove("gone");
  await new Bucket().set({ gone: 1 });
  assert.throws(() => bucket.assertRemoved("gone"), /set again/);
});

test("refusals, a revoked token and a restart", async (t) => {
  const { bucket, server } = await useBucketd(t);
  server.refuse("storage_full", { times: 2 });
  await assert.rejects(automation, /storage_full, as the test wants it/);
  assert.equal((await agent.utils.bucket.set({ a: 1 })).code, "storage_full");
  bucket.assertUnchanged();
  await agent.utils.bucket.set({ a: 1 });
  await server.stop();
  await server.start();
  assert.deepEqual((await agent.utils.bucket.get()).bucket, { a: 1 });
  bucket.revoke();
  assert.equal((await agent.utils.bucket.get()).code, "no_job_context");
  assert.throws(() => server.refuse("nonsense"), /it must be one of/);
});

test("watching, across a restart", async (t) => {
  const { bucket, server } = await useBucketd(t, { bucket: { a: 1 } });
  const changes = new Bucket().watch({ snapshot: true });
  assert.deepEqual((await changes.next()).value.set, { a: 1 });
  await new Bucket().set({ a: 2 });
  assert.deepEqual((await changes.next()).value.set, { a: 2 });
  await server.stop();
  await server.start();
  await new Bucket().set({ b: 1 });
  assert.deepEqual((await changes.next()).value.set, { b: 1 });
  bucket.revoke();
  await assert.rejects(changes.next(), { code: "no_job_context" });
});

test("the environment and the socket go with the test", async (t) => {
  environment(t, { BUCKETD_TOKEN: "before" });
  const clean = [];
  const { server } = await useBucketd({ after: (each) => clean.push(each) });
  assert.equal(process.env.BUCKETD_SOCKET, server.socket);
  for (const each of clean.reverse()) await each();
  assert.equal(process.env.BUCKETD_TOKEN, "before");
  assert.equal(process.env.BUCKETD_SOCKET, undefined);
  assert.equal(existsSync(server.socket), false);
});

test("a process that the automation starts, and integers beyond JavaScript's", async (t) => {
  const { bucket, server } = await useBucketd(t);
  const program = `
    import { Bucket } from ${JSON.stringify(new URL("../dist/index.mjs", import.meta.url))};
    await new Bucket().set({ from: "a child" });`;
  const { code, stderr } = await node(["--input-type=module", "-e", program]);
  assert.deepEqual({ code, stderr }, { code: 0, stderr: "" });
  bucket.assertSet({ from: "a child" });
  assert.deepEqual(await new Bucket({ device: "d" }).get(), {});
  assert.equal(server.bucket("d").revision, 0);
});

test("streams end with their tokens, also where a timer goes off a moment early", { timeout: 10_000 }, async (t) => {
  const { server } = await useBucketd(t);
  const ask = async (method, path, body, headers = {}) => {
    const request = http.request({ socketPath: server.socket, method, path, headers, agent: false }).end(body);
    return (await once(request, "response"))[0];
  };
  await Promise.all(Array.from({ length: 100 }, async (_, n) => {
    const [minted] = await (await ask("POST", "/v1/contexts", `{"device":"d","job":"j","ttl_seconds":${0.5 + n / 777}}`)).toArray();
    const stream = await ask("GET", "/v1/bucket/events", undefined, { Authorization: `Bearer ${JSON.parse(minted).token}` });
    await once(stream.resume(), "end");
  }));
});

test("holds: one at a time, a refresh, exclusive ones, and the loss with the token", async (t) => {
  const { bucket } = await useBucketd(t);
  const client = new Bucket();
  const order = [];
  const first = client.hold({ label: "first" }, async (held) => {
    const refused = await client.hold({ wait: 0 }).catch((error) => error);
    assert.deepEqual([refused.code, refused.details[0].id, refused.details[0].label], ["held", held.id, "first"]);
    await held.set({ a: 1 });
    order.push("first");
  });
  const second = client.hold(() => order.push("second"));
  await Promise.all([first, second]);
  assert.deepEqual(order, ["first", "second"]);
  assert.equal((await client.refresh((b) => b.s !== undefined, () => ({ s: 1 }))).s, 1);
  await client.hold({ exclusive: true }, async (held) => {
    await assert.rejects(client.set({ a: 2 }), { code: "held" });
    await held.set({ a: 2 });
  });
  const device = await new Bucket({ deviceBucket: true }).hold();
  await assert.rejects(client.hold({ wait: 0.01 }), { code: "held" });
  await device.release();
  const held = await client.hold();
  bucket.revoke();
  await once(held.signal, "abort");
  await assert.rejects(held.set({ a: 3 }), { code: "hold_lost" });
});

const patches = JSON.parse(readFileSync(createRequire(import.meta.url).resolve("json-patch-test-suite/tests.json"), "utf8"));

test("JSON Patch is that of the public test suite, where it is about objects", async (t) => {
  const { bucket } = await useBucketd(t);
  let cases = 0;
  for (const { doc, patch, expected, error, comment, disabled } of patches) {
    const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);
    if (disabled || !patch || !isObject(doc) || (expected !== undefined && !isObject(expected))) continue;
    bucket.seed(doc);
    const told = new Bucket().jsonPatch(patch);
    if (error) await assert.rejects(told, { name: /^(PatchFailed|InvalidRequest)Error$/ }, comment ?? error);
    else assert.deepEqual(await told, expected ?? doc, comment);
    cases += 1;
  }
  assert.ok(cases > 40, `${cases} cases`);
});

test("an open server keeps no process alive", async () => {
  const program = `
    import { startServer } from ${JSON.stringify(new URL("../dist/testing/index.mjs", import.meta.url))};
    await startServer();`;
  assert.equal((await node(["--input-type=module", "-e", program])).code, 0);
});

test("it is held to the daemon's own tests", { timeout: 400_000 }, async () => {
  const server = `node ${here("support/serve-testing.mjs")}`;
  // To JavaScript 1 and 1.0 are one number.
  const tests = ["tests/client/testing/test_contract.py", "-k", "not changes_nothing and not each_kind"];
  const pytest = here("../../../.venv/bin/pytest");
  const env = { ...process.env, TESTING_SERVER: server };
  const run = promisify(execFile)(pytest, [...tests, "-p", "no:xdist"], { cwd: here("../../.."), env });
  await run.catch(({ stdout, stderr }) => assert.fail(stdout + stderr));
});

test("startServer, for those who want nothing else", async () => {
  const server = await startServer({ maxBytes: 10 });
  const { token } = server.bucket("d", "j");
  await assert.rejects(new Bucket({ token, socket: server.socket }).set({ key: "too long" }), { code: "too_large" });
  await server.close();
});

test("two servers below a TMPDIR that is too long for a socket", async (t) => {
  const TMPDIR = join(tempDir(t), "y".repeat(90));
  mkdirSync(TMPDIR);
  const program = `
    import { startServer } from ${JSON.stringify(new URL("../dist/testing/index.mjs", import.meta.url))};
    import { Bucket } from ${JSON.stringify(new URL("../dist/index.mjs", import.meta.url))};
    const servers = [await startServer(), await startServer()];
    const buckets = servers.map((server) => new Bucket({ token: server.bucket("d").token, deviceBucket: true, socket: server.socket }));
    await Promise.all(buckets.map((bucket, n) => bucket.set({ n })));
    console.log(JSON.stringify(await Promise.all(buckets.map((bucket) => bucket.get()))));
    for (const server of servers) await server.close();`;
  const { code, stdout, stderr } = await node(["--input-type=module", "-e", program], { env: { TMPDIR } });
  assert.deepEqual({ code, stdout, stderr }, { code: 0, stdout: '[{"n":0},{"n":1}]\n', stderr: "" });
});
