// Holds, on a running bucketd.
import assert from "node:assert/strict";
import { after, afterEach, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { Bucket, HeldBucket, HeldError, HoldLostError, agent } from "../dist/index.mjs";
import { limits } from "../dist/hold.js";
import { Daemon } from "./support/daemon.mjs";
import { environment } from "./support/temp.mjs";

const daemon = await Daemon.start(after);
const subject = Object.assign(daemon, { down: () => daemon.end("SIGKILL"), up: () => daemon.run() });
describe("holds", () => holds(subject));

function holds(subject) {
  let jobs = 0;
  const open = (job = `job-${++jobs}`, more = {}) => new Bucket({ device: "d", job, socket: subject.socket, ...more });
  const table = async () => (await subject.api("GET", "/v1/holds")).body;
  const until = async (condition) => {
    for (let turn = 0; turn < 500; turn++) {
      if (await condition()) return;
      await sleep(10);
    }
    assert.fail("it did not come true within 5 s");
  };
  const isFree = (bucket) => bucket.hold({ wait: 0 }, () => true);
  const isHeld = (bucket) => assert.rejects(bucket.hold({ wait: 0 }), HeldError);

  afterEach(async () => {
    const { holds, waiting } = await table();
    assert.deepEqual([...holds, ...waiting], [], "a test left holds");
  });

  test("a callback: its value, and the release however it ends", async () => {
    const bucket = open();
    const value = await bucket.hold({ wait: 1, label: "a test" }, async (held) => {
      assert.ok(held instanceof HeldBucket);
      const { holds: [row] } = await table();
      assert.deepEqual([row.id, row.label, row.name, row.device], [held.id, "a test", "", "d"]);
      assert.ok(!JSON.stringify(row).includes(held.fence));
      await held.set({ a: 1 });
      await isHeld(bucket);
      return held.update((b) => void (b.a += 1));
    });
    assert.deepEqual(value, { a: 2 });
    await assert.rejects(bucket.hold(() => Promise.reject(new TypeError("mine"))), TypeError);
    await assert.rejects(bucket.hold(() => { throw new RangeError("mine"); }), RangeError);
    assert.equal(await isFree(bucket), true);
  });

  test("the explicit form, and every verb of the held bucket", async () => {
    const bucket = open();
    const held = await bucket.hold({ wait: 0 });
    await isHeld(bucket);
    assert.match(held.since, /^\d{4}-.*Z$/);
    assert.deepEqual(await held.replace({ a: 1, b: 2 }), { a: 1, b: 2 });
    assert.deepEqual(await held.remove("b"), { a: 1 });
    assert.deepEqual(await held.mergePatch({ c: { d: 1 } }), { a: 1, c: { d: 1 } });
    assert.deepEqual(await held.jsonPatch([{ op: "remove", path: "/c" }]), { a: 1 });
    assert.equal((await held.set({ n: 1 }, { returning: false })).success, true);
    const changes = held.watch({ snapshot: true });
    assert.deepEqual((await changes.next()).value.set, { a: 1, n: 1 });
    await changes.return();
    await held.clear();
    assert.deepEqual(await held.snapshot(), { bucket: {}, revision: 0, etag: null });
    await held.release();
    await held.release();
    assert.equal(held.signal.aborted, false);
    await isFree(bucket);
  });

  test("await using releases it", { skip: Symbol.asyncDispose === undefined }, async () => {
    const bucket = open();
    const held = await bucket.hold();
    await isHeld(bucket);
    await held[Symbol.asyncDispose]();
    await isFree(bucket);
  });

  test("after the release every use says so", async () => {
    const held = await open().hold();
    await held.release();
    const uses = [
      () => held.get(), () => held.set({ a: 1 }), () => held.replace({}), () => held.remove("a"), () => held.clear(),
      () => held.update((b) => b), () => held.snapshot(), () => held.watch().next(), () => held.mergePatch({}),
    ];
    for (const use of uses) {
      await assert.rejects(use, (error) => {
        assert.ok(error instanceof HoldLostError);
        assert.deepEqual([error.code, error.details], ["hold_lost", [{ id: held.id, reason: "released" }]]);
        return /cannot use the held bucket: it was released/.test(error.message);
      });
    }
  });

  test("who holds it is told to those who do not get it", async () => {
    const bucket = open("told");
    const held = await bucket.hold({ label: "first" });
    const began = performance.now();
    const refused = await bucket.hold({ wait: 0.2 }).catch((error) => error);
    assert.ok(performance.now() - began > 190);
    assert.deepEqual([refused.constructor, refused.code, refused.status], [HeldError, "held", 423]);
    const [{ id, state, label, job }] = refused.details;
    assert.deepEqual([id, state, label, job], [held.id, "held", "first", "told"]);
    await held.release();
  });

  test("names are apart, a device excludes its jobs, and the other way round", async () => {
    const [bucket, device] = [open("one"), new Bucket({ device: "d", socket: subject.socket })];
    const held = await bucket.hold({ name: "login" });
    assert.equal(held.name, "login");
    await isFree(bucket);
    await isFree(device);
    await assert.rejects(device.hold({ name: "login", wait: 0 }), HeldError);
    await held.release();
    await device.hold({ wait: 0 }, async (held) => {
      await held.set({ who: "device" });
      await isHeld(bucket);
      await isHeld(open());
      await isFree(new Bucket({ device: "other", job: "one", socket: subject.socket }));
    });
    await isFree(bucket);
  });

  test("100 waiters get it in the order in which they came", { timeout: 60_000 }, async () => {
    const bucket = open();
    const first = await bucket.hold();
    const order = [];
    const waiters = [];
    for (let n = 0; n < 100; n++) {
      waiters.push(bucket.hold({ wait: 50 }, async (held) => {
        order.push(n);
        await held.set({ n });
      }));
      await until(async () => (await table()).waiting.length === n + 1);
    }
    await first.release();
    await Promise.all(waiters);
    assert.deepEqual(order, Array.from({ length: 100 }, (_, n) => n));
    assert.deepEqual(await bucket.get(), { n: 99 });
  });

  test("an exclusive hold keeps others from writing", async () => {
    const bucket = open();
    await bucket.hold({ exclusive: true }, async (held) => {
      const refused = await bucket.set({ a: 1 }).catch((error) => error);
      assert.deepEqual([refused.code, refused.status, refused.details[0].id], ["held", 423, held.id]);
      assert.deepEqual(await bucket.get(), {});
      await held.set({ a: 2 });
    });
    assert.deepEqual(await bucket.set({ b: 1 }), { a: 2, b: 1 });
    await assert.rejects(bucket.hold({ exclusive: true, name: "x" }), { code: "invalid_request" });
  });

  test("a hold inside a hold needs both", async () => {
    const bucket = open();
    await bucket.hold({ exclusive: true }, async (outer) => {
      await outer.hold({ name: "inner" }, async (inner) => {
        assert.deepEqual(await inner.set({ a: 1 }), { a: 1 });
        await outer.release();
        await assert.rejects(inner.set({ a: 2 }), HoldLostError);
      });
    });
    assert.deepEqual(await bucket.get(), { a: 1 });
  });

  test("broken by an operator: the next call fails, and the signal says why", async () => {
    const bucket = open();
    await bucket.set({ n: 0 });
    const held = await bucket.hold();
    const broken = await subject.api("DELETE", `/v1/holds/${held.id}`);
    assert.deepEqual([broken.status, broken.body.id, broken.body.state], [200, held.id, "held"]);
    await until(() => held.signal.aborted);
    assert.deepEqual([held.signal.reason.code, held.signal.reason.details[0].reason], ["hold_lost", "broken"]);
    let rounds = 0;
    await assert.rejects(held.update(() => void rounds++), HoldLostError);
    assert.equal(rounds, 0);
    // The daemon itself refuses the fence, also before the holder knows.
    const path = `/v1/devices/d/jobs/job-${jobs}/bucket`;
    const { status, body } = await subject.api("PATCH", path, { n: 1 }, { "Bucketd-Fence": held.fence });
    assert.deepEqual([status, body.code], [412, "hold_lost"]);
    assert.deepEqual(await bucket.get(), { n: 0 });
    await isFree(bucket);
  });

  test("a lost hold does not end the callback", async () => {
    const value = await open().hold(async (held) => {
      await subject.api("DELETE", `/v1/holds/${held.id}`);
      await until(() => held.signal.aborted);
      return "done";
    });
    assert.equal(value, "done");
  });

  test("a signal ends the wait, and leaves the queue", async () => {
    const bucket = open();
    const held = await bucket.hold();
    const stop = new AbortController();
    const waiting = bucket.hold({ wait: 30, signal: stop.signal });
    await until(async () => (await table()).waiting.length === 1);
    stop.abort(new Error("enough"));
    await assert.rejects(waiting, /^Error: enough$/);
    await until(async () => (await table()).waiting.length === 0);
    await assert.rejects(bucket.hold({ signal: AbortSignal.abort() }), { name: "AbortError" });
    await held.release();
  });

  test("a signal inside releases it at once", async () => {
    const bucket = open();
    const stop = new AbortController();
    await bucket.hold({ signal: stop.signal }, async (held) => {
      await held.set({ a: 1 });
      stop.abort(new Error("enough"));
      assert.equal(held.signal.reason.message, "enough");
      await assert.rejects(held.set({ a: 2 }), (error) => error.details[0].reason === "aborted");
      await bucket.hold({ wait: 5 }, () => undefined);
    });
    assert.deepEqual(await bucket.get(), { a: 1 });
  });

  test("a revoked token ends its hold", async () => {
    const { body } = await subject.api("POST", "/v1/contexts", { device: "d", job: "revoked" });
    const held = await new Bucket({ token: body.token, socket: subject.socket }).hold();
    await subject.api("DELETE", `/v1/contexts/${body.id}`);
    await until(() => held.signal.aborted);
    assert.equal(held.signal.reason.details[0].reason, "revoked");
  });

  test("options that are no options", async () => {
    const bucket = open();
    const wrong = [{ wait: -1 }, { wait: "5" }, { wait: NaN }, { wait: 3601 }, { exlusive: true }, null, { name: 5 }, { label: "a\nb" }];
    for (const options of wrong) await assert.rejects(bucket.hold(options, () => assert.fail()), { code: "invalid_request" });
    await assert.rejects(bucket.hold({}, "work"), { code: "invalid_request" });
    await assert.rejects(bucket.refresh(() => false, () => ({}), { wiat: 1 }), { code: "invalid_request" });
  });

  /** Change how long a holder tries to come back: a busy machine may take longer to start a daemon. */
  function comeBackFor(t, ms) {
    const { comeBack } = limits;
    t.after(() => (limits.comeBack = comeBack));
    limits.comeBack = ms;
  }

  test("a restart in time: the hold is kept, and calls wait for it", { timeout: 60_000 }, async (t) => {
    comeBackFor(t, 40_000);
    const bucket = open(undefined, { timeout: 40_000 });
    const held = await bucket.hold();
    const { id, fence } = held;
    await held.set({ n: 1 });
    await subject.down();
    const during = held.set({ n: 2 });
    await subject.up();
    assert.deepEqual(await during, { n: 2 });
    await until(async () => (await table()).holds[0].connected);
    assert.equal((await table()).holds[0].id, id);
    assert.deepEqual([held.fence, held.signal.aborted], [fence, false]);
    await isHeld(bucket);
    await held.set({ n: 3 });
    await held.release();
    await isFree(bucket);
  });

  test("no restart in time: the hold is lost", { timeout: 60_000 }, async (t) => {
    comeBackFor(t, 200);
    const bucket = open(undefined, { timeout: 40_000 });
    const held = await bucket.hold();
    await subject.down();
    await until(() => held.signal.aborted);
    await assert.rejects(held.set({ n: 1 }), HoldLostError);
    await subject.up();
    await assert.rejects(held.set({ n: 1 }), HoldLostError);
    const { status } = await subject.api("PATCH", `/v1/devices/d/jobs/job-${jobs}/bucket`, { n: 2 });
    assert.equal(status, 200);
    // Five seconds after its start the daemon gives it to the next.
    await bucket.hold({ wait: 20 }, () => undefined);
  });

  test("who waits goes on waiting across a restart", { timeout: 60_000 }, async (t) => {
    comeBackFor(t, 40_000);
    const bucket = open(undefined, { timeout: 40_000 });
    const held = await bucket.hold();
    const waiting = bucket.hold({ wait: 40 }, () => "had");
    await until(async () => (await table()).waiting.length === 1);
    await subject.down();
    await subject.up();
    await until(async () => (await table()).waiting.length === 1 && (await table()).holds[0]?.connected);
    await held.release();
    assert.equal(await waiting, "had");
  });

  test("refresh: one of twelve logs in, and a login that fails lets the next one try", async () => {
    const bucket = open();
    let [running, attempts] = [0, 0];
    const login = async (stale) => {
      assert.equal(++running, 1, "two logins at once");
      assert.deepEqual(stale, { keep: 1 });
      await sleep(20);
      running -= 1;
      if (++attempts < 3) throw new Error(`login ${attempts} failed`);
      return { token: `t${attempts}` };
    };
    await bucket.set({ keep: 1 });
    const fresh = (b) => b.token !== undefined;
    const results = await Promise.allSettled(Array.from({ length: 12 }, () => bucket.refresh(fresh, login)));
    assert.equal(attempts, 3);
    const failed = results.filter(({ status }) => status === "rejected").map(({ reason }) => reason.message);
    assert.deepEqual(failed.sort(), ["login 1 failed", "login 2 failed"]);
    for (const { value } of results.filter(({ status }) => status === "fulfilled")) assert.deepEqual(value, { keep: 1, token: "t3" });
    assert.equal((await bucket.snapshot()).revision, 2);
  });

  test("refresh: a fresh bucket needs no hold, and a bad result of login changes nothing", async () => {
    const bucket = open();
    const held = await bucket.hold({ name: "login" });
    await bucket.set({ token: 1 });
    assert.deepEqual(await bucket.refresh((b) => b.token === 1, () => assert.fail()), { token: 1 });
    await assert.rejects(bucket.refresh(() => false, () => ({}), { wait: 0 }), HeldError);
    await held.release();
    await assert.rejects(bucket.refresh(() => false, () => undefined), { code: "invalid_request" });
    assert.deepEqual(await bucket.get(), { token: 1 });
  });

  test("agent: results instead of exceptions, but for those of the caller's own functions", async (t) => {
    const { body } = await subject.api("POST", "/v1/contexts", { device: "d", job: "agent" });
    environment(t, { BUCKETD_SOCKET: subject.socket, BUCKETD_TOKEN: body.token });
    const { bucket, deviceBucket } = agent.utils;
    const inside = await bucket.hold({ wait: 5 }, async (held) => {
      assert.deepEqual(await held.set({ a: 1 }), { success: true, bucket: { a: 1 }, revision: 1 });
      const refused = await bucket.hold({ wait: 0 });
      assert.deepEqual([refused.success, refused.code, refused.details[0].id], [false, "held", held.id]);
      assert.equal((await deviceBucket.hold({ wait: 0 })).code, "held");
      return "value";
    });
    assert.deepEqual(inside, { success: true, value: "value" });
    const { success, held } = await deviceBucket.hold();
    assert.equal(success, true);
    assert.equal((await held.set({ model: "x" })).success, true);
    await held.release();
    const late = await held.set({ model: "y" });
    assert.deepEqual([late.success, late.code], [false, "hold_lost"]);
    assert.equal((await bucket.hold({ signal: AbortSignal.abort() })).code, "aborted");
    await assert.rejects(bucket.hold(() => { throw new RangeError("mine"); }), RangeError);
    const refreshed = await bucket.refresh((b) => b.token, (b) => ({ token: b.a + 1 }));
    assert.deepEqual(refreshed, { success: true, bucket: { a: 1, token: 2 }, revision: 2 });
    await assert.rejects(bucket.refresh(() => false, () => { throw new RangeError("mine"); }), RangeError);
    environment(t, { BUCKETD_SOCKET: subject.socket });
    assert.equal((await bucket.hold()).code, "no_job_context");
    assert.equal((await bucket.refresh(() => true, () => ({}))).code, "no_job_context");
  });

  test("BUCKETD_FENCE guards the writes of a program that runs under a hold", async (t) => {
    const { body } = await subject.api("POST", "/v1/contexts", { device: "d", job: "fenced" });
    environment(t, { BUCKETD_SOCKET: subject.socket, BUCKETD_TOKEN: body.token });
    const held = await new Bucket().hold({ exclusive: true });
    process.env.BUCKETD_FENCE = held.fence;
    assert.equal((await agent.utils.bucket.set({ a: 1 })).success, true);
    assert.equal((await agent.utils.deviceBucket.set({ a: 1 })).success, true);
    const refreshed = await agent.utils.bucket.refresh(() => false, () => ({ token: 1 }));
    assert.deepEqual(refreshed.bucket, { a: 1, token: 1 });
    await open("another").set({ a: 1 });
    await held.release();
    await assert.rejects(new Bucket().set({ a: 2 }), HoldLostError);
    assert.equal((await agent.utils.bucket.set({ a: 2 })).code, "hold_lost");
    assert.equal((await agent.utils.bucket.get()).bucket.a, 1);
  });
}
