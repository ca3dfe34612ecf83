// Errors begin at the line of the caller, say what to do, and `value` reads one key.
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { Bucket, InvalidRequestError } from "../dist/index.mjs";
import { useBucketd } from "../dist/testing/index.mjs";
import { Daemon } from "./support/daemon.mjs";

const daemon = await Daemon.start(after);
let jobs = 0;
const open = (more = {}) => new Bucket({ device: "d", job: `j${++jobs}`, socket: daemon.socket, ...more });
const guard = { ifMatch: '"other"' };

/** Return the first line of the stack of an error. */
const firstLine = (error) => error.stack.split("\n").find((line) => line.startsWith("    at "));

const CALLS = {
  get: (bucket) => bucket.get({ wrong: 1 }),
  value: (bucket) => bucket.value("\ud800"),
  set: (bucket) => bucket.set({ a: 1 }, guard),
  replace: (bucket) => bucket.replace({ a: 1 }, guard),
  remove: (bucket) => bucket.remove(),
  clear: (bucket) => bucket.clear(guard),
  mergePatch: (bucket) => bucket.mergePatch({ a: 1 }, guard),
  jsonPatch: (bucket) => bucket.jsonPatch([{ op: "remove", path: "/none" }]),
  update: (bucket) => bucket.update(() => ({ a: NaN })),
  hold: (bucket) => bucket.hold({ wait: -1 }),
  snapshot: (_bucket) => new Bucket({ token: "none", socket: daemon.socket }).snapshot(),
  refresh: (_bucket) => new Bucket({ token: "none", socket: daemon.socket }).refresh(() => true, () => ({})),
  context: (_bucket) => new Bucket({ token: "none", socket: daemon.socket }).context(),
};

for (const [name, call] of Object.entries(CALLS)) {
  test(`the stack of a failed ${name} begins at its caller`, async () => {
    async function author() {
      await call(open());
    }
    const error = await author().then(() => assert.fail("no error"), (reason) => reason);
    assert.match(firstLine(error), /at async author \(.*call-site\.test\.mjs:\d+:\d+\)/, error.stack);
    assert.ok(error.stack.startsWith(`${error.name}: ${error.message}\n`));
  });
}

test("the stack of a watch begins at its loop, that of a call in a hold at the call", async () => {
  async function loop() {
    for await (const _ of new Bucket({ token: "none", socket: daemon.socket }).watch());
  }
  assert.match(firstLine(await loop().catch((error) => error)), /at async loop /);
  async function work(held) {
    await held.set({ a: 1 }, guard);
  }
  const error = await open().hold(work).catch((reason) => reason);
  assert.match(firstLine(error), /at async work /);
});

test("a call that nobody awaits keeps the stack of its error", async () => {
  const error = await new Promise((resolve) => open().set({ a: 1 }, guard).then(() => 0, resolve));
  assert.match(error.stack, /^PreconditionFailedError: cannot .*\n    at /);
});

test("value: one key, or what is given in its place", async () => {
  const bucket = open();
  assert.equal(await bucket.value("opened", 0), 0);
  assert.equal(await bucket.value("opened"), undefined);
  await bucket.set({ opened: 3, none: null });
  assert.deepEqual([await bucket.value("opened", 0), await bucket.value("none", 1)], [3, null]);
  assert.equal(await bucket.value("toString", "own"), "own");
  await bucket.hold(async (held) => assert.equal(await held.value("opened"), 3));
});

test("what JSON does not have is refused with its place and what to do", async () => {
  const bucket = open();
  for (const [value, advice] of [
    [new Map(), "store Object.fromEntries(map)"], [new Set(), "store [...set]"], [Promise.resolve(), "await it first"], [1n, "store its toString()"],
    [NaN, "store null or a string instead"], [new Error("x"), "store its message"], [Buffer.from("x").buffer, "base64"],
  ]) {
    const refused = await bucket.set({ a: [{ b: value }] }).catch((error) => error);
    assert.ok(refused instanceof InvalidRequestError);
    assert.ok(refused.message.includes("/a/0/b; ") && refused.message.includes(advice), refused.message);
  }
});

test("too_large names bucket, size, limit and the largest keys, from both ways in", async (t) => {
  const bucket = open();
  const large = "x".repeat(600_000);
  await bucket.set({ first: large });
  const merged = await bucket.set({ second: large }).catch((error) => error);
  const body = await bucket.set({ whole: large + large, small: 1 }).catch((error) => error);
  assert.deepEqual([merged.code, body.code], ["too_large", "too_large"]);
  assert.match(merged.message, /^cannot set the bucket of device 'd', job 'j\d+': it would have \d+ bytes, allowed are 1048576; its largest keys: 'first' \(600002 bytes\)/);
  assert.match(body.message, /^cannot set the bucket of device 'd', job 'j\d+': the request body has 12000\d\d bytes, allowed are 1048576; .*; its largest keys: "whole" \(1200002 bytes\), "small" \(1 bytes\)$/);
  assert.deepEqual(body.details, [{ key: "whole", bytes: 1_200_002 }, { key: "small", bytes: 1 }]);
  const { bucket: seen } = await useBucketd(t, { maxBytes: 100 });
  const { agent } = await import("../dist/index.mjs");
  const result = await agent.utils.bucket.set({ a: large });
  assert.deepEqual([result.code, result.details], ["too_large", [{ key: "a", bytes: 600_002 }]]);
  assert.deepEqual(seen.data, {});
});
