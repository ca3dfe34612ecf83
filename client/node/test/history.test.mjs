// The history of a bucket: who changed what, an earlier state, and taking a change back.
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { Bucket, HoldLostError, InvalidRequestError, NotFoundError, agent } from "../dist/index.mjs";
import { Daemon } from "./support/daemon.mjs";
import { environment } from "./support/temp.mjs";

const daemon = await Daemon.start(after);
let jobs = 0;
const open = (more = {}) => new Bucket({ device: "d", job: `j${++jobs}`, socket: daemon.socket, ...more });

test("changes, the newest first, with their earlier values if wanted", async () => {
  const bucket = open();
  assert.deepEqual(await bucket.history(), []);
  await bucket.set({ a: 1 });
  await bucket.set({ a: 2, b: [1] });
  await bucket.remove("a");
  const [last, second, first] = await bucket.history({ values: true });
  assert.deepEqual([last.revision, last.set, last.removed, last.before], [3, [], ["a"], { a: 2 }]);
  assert.deepEqual([second.revision, second.set.sort(), second.before], [2, ["a", "b"], { a: 1 }]);
  assert.deepEqual([first.revision, first.removed, first.before], [1, [], {}]);
  assert.equal(typeof last.by.user, "string");
  assert.deepEqual((await bucket.history({ limit: 2 })).map(({ revision, before }) => [revision, before]), [[3, undefined], [2, undefined]]);
});

test("the label of the run and its context are told", async () => {
  const { token, id } = await daemon.mint({ device: "d", job: "labelled", label: "nightly" });
  const bucket = new Bucket({ token, socket: daemon.socket });
  await bucket.set({ a: 1 });
  const [{ by }] = await bucket.history();
  assert.deepEqual([by.run, by.context, by.device, by.job], ["nightly", id, "d", "labelled"]);
});

test("pages are followed until there are as many as wanted", async () => {
  const bucket = open();
  for (let n = 1; n <= 60; n++) await bucket.set({ n }, { returning: false });
  assert.equal((await bucket.history()).length, 50);
  const all = await bucket.history({ limit: null });
  assert.deepEqual(all.map(({ revision }) => revision), Array.from({ length: 60 }, (_, n) => 60 - n));
});

test("an earlier state, and taking changes back", async () => {
  const bucket = open();
  await bucket.set({ a: 1 });
  await bucket.set({ a: 2 });
  await bucket.set({ b: 1 });
  assert.deepEqual(await bucket.at(1), { a: 1 });
  assert.deepEqual(await bucket.undo(2), { a: 1, b: 1 });
  assert.deepEqual(await bucket.undo(3, { returning: false }), { success: true, revision: 5, undone: 3 });
  assert.deepEqual(await bucket.get(), { a: 1 });
  assert.equal((await bucket.history({ limit: 1 }))[0].undoes, 3);
  await assert.rejects(bucket.undo(undefined, { ifMatch: '"other"' }), { code: "precondition_failed" });
  await bucket.set({ a: 5 });
  await assert.rejects(bucket.undo(1), { code: "undo_conflict" });
  await assert.rejects(bucket.at(99), NotFoundError);
  for (const call of [() => bucket.at(0), () => bucket.undo("1"), () => bucket.history({ limit: 0 }), () => bucket.history({ pages: 1 })]) {
    await assert.rejects(call, InvalidRequestError);
  }
  await bucket.clear();
  assert.deepEqual(await bucket.undo(), { a: 5 });
});

test("on the held bucket, where an undo passes only while the hold lasts", async () => {
  const bucket = open();
  await bucket.set({ a: 1 });
  const held = await bucket.hold({ exclusive: true });
  await held.set({ a: 2 });
  await assert.rejects(bucket.undo(), { code: "held" });
  assert.deepEqual(await held.undo(), { a: 1 });
  assert.deepEqual([(await held.history()).length, await held.at(2)], [3, { a: 2 }]);
  await held.release();
  await assert.rejects(held.undo(), HoldLostError);
});

test("as results, of the bucket and of the device bucket", async (t) => {
  const { token } = await daemon.mint({ device: "results", job: "j" });
  environment(t, { BUCKETD_SOCKET: daemon.socket, BUCKETD_TOKEN: token });
  for (const name of ["bucket", "deviceBucket"]) {
    const bucket = agent.utils[name];
    await bucket.set({ a: 1 });
    await bucket.set({ a: 2 });
    const told = await bucket.history({ values: true, limit: 1 });
    assert.deepEqual([told.success, told.history[0].before], [true, { a: 1 }]);
    assert.deepEqual((await bucket.at(1))[name], { a: 1 });
    const undone = await bucket.undo();
    assert.deepEqual([undone.success, undone[name], undone.revision], [true, { a: 1 }, 3]);
    assert.equal((await bucket.at(9)).code, "not_found");
    assert.equal((await bucket.undo(0)).code, "invalid_request");
    assert.equal((await bucket.history({ limit: -1 })).code, "invalid_request");
  }
});
