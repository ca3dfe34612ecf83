// Both faces against a running bucketd.
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { Bucket, NoJobContextError, PatchFailedError, PreconditionFailedError, TooLargeError, agent } from "../dist/index.mjs";
import { Daemon } from "./support/daemon.mjs";
import { environment } from "./support/temp.mjs";

const daemon = await Daemon.start(after);
const open = (job, more = {}) => new Bucket({ device: "d", job, socket: daemon.socket, ...more });

async function inContext(t, context) {
  const minted = await daemon.mint(context);
  environment(t, { BUCKETD_SOCKET: daemon.socket, BUCKETD_TOKEN: minted.token });
  return minted;
}

test("get and set, as an automation uses them", async (t) => {
  await inContext(t, { device: "d", job: "agent" });
  const { bucket } = agent.utils;
  assert.deepEqual(await bucket.get(), { success: true, bucket: {}, revision: 0 });
  assert.equal((await daemon.api("GET", "/v1/buckets?job=agent")).body.buckets.length, 0, "get creates nothing");
  assert.deepEqual(await bucket.set({ a: { x: 1 }, keep: null, gone: undefined }), {
    success: true, bucket: { a: { x: 1 }, keep: null }, revision: 1,
  });
  assert.deepEqual(await bucket.set({ a: { y: 2 } }), {
    success: true, bucket: { a: { y: 2 }, keep: null }, revision: 2,
  });
  assert.equal((await bucket.set({ keep: null })).revision, 2);
  assert.deepEqual(daemon.file("d", "agent").bucket, { a: { y: 2 }, keep: null });
});

test("the device bucket, from a job's context and from the device's own", async (t) => {
  await inContext(t, { device: "phone", job: "one" });
  const { bucket, deviceBucket } = agent.utils;
  assert.deepEqual(await deviceBucket.get(), { success: true, deviceBucket: {}, revision: 0 });
  assert.deepEqual(await deviceBucket.set({ model: "x" }), { success: true, deviceBucket: { model: "x" }, revision: 1 });
  assert.deepEqual((await bucket.get()).bucket, {});
  process.env.BUCKETD_TOKEN = (await daemon.mint({ device: "phone" })).token;
  assert.deepEqual((await deviceBucket.get()).deviceBucket, { model: "x" });
  const refused = await bucket.get();
  assert.equal(refused.success, false);
  assert.equal(refused.code, "no_job_context");
});

test("a token that is unknown or revoked is refused, and never shown", async (t) => {
  const { id, token } = await inContext(t, { device: "d", job: "revoked" });
  assert.equal((await agent.utils.bucket.set({ a: 1 })).success, true);
  await daemon.api("DELETE", `/v1/contexts/${id}`);
  const refused = await agent.utils.bucket.set({ a: 2 });
  assert.equal(refused.code, "no_job_context");
  assert.ok(!JSON.stringify(refused).includes(token));
  await assert.rejects(new Bucket().get(), NoJobContextError);
  assert.deepEqual(await open("revoked").get(), { a: 1 });
});

test("the throwing face: every verb", async () => {
  const bucket = open("verbs");
  assert.deepEqual(await bucket.snapshot(), { bucket: {}, revision: 0, etag: null });
  assert.deepEqual(await bucket.set({ a: 1, b: 2, c: 3 }), { a: 1, b: 2, c: 3 });
  assert.deepEqual(await bucket.get("a", "b", "none"), { a: 1, b: 2 });
  assert.deepEqual(await bucket.remove("a", "none"), { b: 2, c: 3 });
  assert.deepEqual(await bucket.mergePatch({ b: null, d: { e: 1 } }), { c: 3, d: { e: 1 } });
  assert.deepEqual(await bucket.jsonPatch([{ op: "replace", path: "/d/e", value: [1] }]), { c: 3, d: { e: [1] } });
  assert.deepEqual(await bucket.replace({ z: 0 }), { z: 0 });
  const { revision, etag } = await bucket.snapshot();
  assert.equal(revision, 5);
  assert.equal(typeof etag, "string");
  assert.equal(await bucket.clear(), undefined);
  assert.equal((await bucket.snapshot()).revision, 0);
});

test("keys of any text are kept apart", async () => {
  const bucket = open("keys");
  const data = { "": 1, "a.b": 2, "a/b": 3, $x: 4, constructor: 5, ["__proto__"]: 6, "é&=?#%20+": 7 };
  assert.deepEqual(Object.entries(await bucket.set(data)).sort(), Object.entries(data).sort());
  assert.deepEqual(Object.entries(await bucket.get("__proto__", "é&=?#%20+")).sort(), [["__proto__", 6], ["é&=?#%20+", 7]]);
  assert.deepEqual(Object.keys(await bucket.remove("", "a/b", "__proto__", "constructor", "é&=?#%20+")).sort(), ["$x", "a.b"]);
});

const names = ["/", "..", ".", "%2e", "a/../b", "with space", "(b)!*'~", "\u{1F4F1}", "\u{1F4F1}".repeat(128), "Case", "case"];
test("dangerous names are legal, each its own bucket", async () => {
  const named = (name) => new Bucket({ device: name, job: name, automation: name, socket: daemon.socket });
  for (const name of names) await named(name).set({ name });
  for (const name of names) assert.deepEqual(await named(name).get(), { name });
  for (const name of names) assert.deepEqual(await new Bucket({ device: name, socket: daemon.socket }).get(), {});
});

test("refused names and bodies are told with their code", async () => {
  await assert.rejects(open("a\nb").get(), (error) => {
    assert.match(error.requestId, /^[0-9a-f]{12}$/);
    return error.code === "invalid_request" && error.status === 400;
  });
  await assert.rejects(open("x".repeat(129)).get(), { code: "invalid_request", status: 400 });
  const deep = JSON.parse(`${'{"a":'.repeat(300)}1${"}".repeat(300)}`);
  await assert.rejects(open("bad").set(deep), { code: "invalid_json", status: 400 });
  await assert.rejects(open("bad").set({ s: "\ud800" }), { code: "invalid_request", status: 0 });
  await assert.rejects(open("bad").jsonPatch([{ op: "remove", path: "/no" }]), PatchFailedError);
  assert.deepEqual(await open("bad").snapshot(), { bucket: {}, revision: 0, etag: null });
});

test("too large: told although the daemon refuses before it has read all", async () => {
  for (const size of [2 << 20, 16 << 20]) {
    await assert.rejects(open("large").set({ big: "x".repeat(size) }), (error) => {
      assert.ok(error instanceof TooLargeError, String(error));
      assert.equal(error.status, 413);
      return true;
    });
  }
  assert.deepEqual(await open("large").get(), {});
});

test("context: who the daemon takes the caller for", async () => {
  const minted = await daemon.mint({ device: "d", job: "c", automation: "login" });
  const seen = await new Bucket({ token: minted.token, socket: daemon.socket }).context();
  assert.deepEqual(seen, {
    device: "d",
    job: "c",
    automation: "login",
    label: null,
    expires_at: minted.expires_at,
    schema: false,
  });
});

test("update: creates, alters the draft, takes another object, refuses what is none", async () => {
  const bucket = open("update");
  assert.deepEqual(await bucket.update((b) => void (b.n = 1)), { n: 1 });
  assert.deepEqual(await bucket.update(async (b) => ({ m: b.n + 1 })), { m: 2 });
  await assert.rejects(bucket.update(() => 7), { code: "invalid_request" });
  await assert.rejects(bucket.update(() => { throw new RangeError("mine"); }), RangeError);
  assert.deepEqual(await bucket.get(), { m: 2 });
});

test("update begins again when somebody wrote in between, also when the bucket came or went", async () => {
  const bucket = open("between");
  const rounds = [() => open("between").set({ n: 10 }), () => open("between").clear(), () => undefined];
  let round = 0;
  const seen = [];
  await bucket.update(async (b) => {
    seen.push({ ...b });
    b.n = (b.n ?? 0) + 1;
    await rounds[round++]?.();
  });
  assert.deepEqual(seen, [{}, { n: 10 }, {}]);
  assert.deepEqual(await bucket.snapshot().then((s) => s.bucket), { n: 1 });
});

test("concurrent updates and sets of one process are all applied", async () => {
  const bucket = open("many");
  await Promise.all(Array.from({ length: 20 }, (_, n) => Promise.all([
    bucket.update((b) => void (b.count = (b.count ?? 0) + 1)),
    open("many").set({ [`k${n}`]: n }),
  ])));
  const all = await bucket.get();
  assert.equal(all.count, 20);
  assert.equal(Object.keys(all).length, 21);
});

test("a guard that fails carries the revision", async () => {
  await open("guard").set({ a: 1 });
  const { request } = await import("../dist/request.js");
  const { resolve } = await import("../dist/context.js");
  const target = resolve({ device: "d", job: "guard", socket: daemon.socket });
  const put = { method: "PUT", body: "{}", headers: { "If-Match": '"other"' } };
  await assert.rejects(request(target, put), (error) => {
    assert.ok(error instanceof PreconditionFailedError);
    assert.equal(error.revision, 1);
    return true;
  });
});
