// Watching, on a fake that breaks off and on real daemons: what is asked again, what is told, when it ends.
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { Bucket, agent } from "../dist/index.mjs";
import { EventParser } from "../dist/sse.js";
import { limits } from "../dist/watch.js";
import { Daemon } from "./support/daemon.mjs";
import { Fake, answer } from "./support/fake.mjs";
import { environment } from "./support/temp.mjs";

const HEAD = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n";
const GAP = 'event: gap\nid: g\ndata: {"device": "d", "job": "j"}\n\n';
const REVOKED = answer(401, { success: false, error: "no job context: revoked", code: "no_job_context" });
const PATH = "/v1/bucket/events";

function event(id, set, revision = 1) {
  const data = { device: "d", job: "j", revision, set, removed: [] };
  return `event: bucket\nid: ${id}\ndata: ${JSON.stringify(data)}\n\n`;
}

/** One text a connection, which then ends; null leaves it open; after the last the token is over. */
function streams(t, ...texts) {
  return Fake.start(t, (_request, socket, { requests }) => {
    const text = texts[requests.length - 1] ?? REVOKED;
    if (text.endsWith("OPEN")) socket.write(text.slice(0, -4));
    else socket.end(text);
  });
}

const bucketOf = (fake, options) => new Bucket({ token: "t", socket: fake.path, ...options });

/** All that is told until the token is over. */
async function told(changes) {
  const found = [];
  try {
    for await (const { id, set, gap } of changes) found.push([id, set, gap]);
  } catch (error) {
    assert.equal(error.code, "no_job_context");
    return found;
  }
  return assert.fail("it ended without saying why");
}

const asked = ({ requests }) => requests.map(({ target, headers }) => [target, headers["last-event-id"]]);

for (const size of [1, 2, 3, 7, 1000]) {
  test(`the parser takes pieces of ${size}`, () => {
    const text = "retry: 1\nid: 0\n\n: \n\nevent: bucket\r\nid: 1\r\ndata: {\r\ndata:}\r\n\r\ndata\n\nid: a\0b\n\n";
    const parser = new EventParser();
    const found = [];
    for (let at = 0; at < text.length; at += size) found.push(...parser.feed(text.slice(at, at + size)));
    assert.deepEqual(found.map(({ id }) => id), ["0", "0", "1", "1", "1"]);
    assert.deepEqual(found.filter(({ data }) => data), [{ kind: "bucket", id: "1", data: "{\n}" }]);
  });
}

test("it goes on behind the last change that was whole", async (t) => {
  const cut = event("3", { c: 1 }).slice(0, -1);
  const fake = await streams(t, `${HEAD}id: 0\n\n${event("1", { ü: 1 })}`, `${HEAD}${event("2", { b: null })}${cut}`, HEAD);
  assert.deepEqual(await told(bucketOf(fake).watch()), [["1", { ü: 1 }, false], ["2", { b: null }, false]]);
  assert.deepEqual(asked(fake), [[PATH, undefined], [PATH, "1"], [PATH, "2"], [PATH, "2"]]);
  assert.equal(fake.requests[0].headers.authorization, "Bearer t");
});

test("keys, snapshot, since and names", async (t) => {
  const one = `${HEAD}${event("1", {})}`;
  const fake = await streams(t, HEAD, one, REVOKED, one, REVOKED);
  await told(bucketOf(fake).watch({ keys: ["a b", "ü"], snapshot: true }));
  await told(new Bucket({ device: "d", job: "j", automation: "x", socket: fake.path }).watch({ since: "s" }));
  const query = "?key=a%20b&key=%C3%BC";
  assert.deepEqual(asked(fake).slice(0, 4), [
    [`${PATH}${query}&snapshot=true`, undefined],
    [`${PATH}${query}&snapshot=true`, undefined],
    [`${PATH}${query}`, "1"],
    ["/v1/devices/d/jobs/j/bucket/events?automation=x", "s"],
  ]);
  await assert.rejects(bucketOf(fake).watch({ snapshot: true, since: "1" }).next(), { code: "invalid_request" });
});

test("after a gap the whole bucket is read anew", async (t) => {
  const fake = await streams(t, `${HEAD}${event("1", { a: 1 })}${GAP}`, `${HEAD}${event("s", { a: 9 })}${event("10", { a: 10 })}`);
  assert.deepEqual(await told(bucketOf(fake).watch()), [
    ["1", { a: 1 }, false],
    ["s", { a: 9 }, true],
    ["10", { a: 10 }, false],
  ]);
  assert.deepEqual(asked(fake).slice(1), [[`${PATH}?snapshot=true`, undefined], [PATH, "10"]]);
});

test("who is silent is left", async (t) => {
  const before = limits.silent;
  limits.silent = 100;
  t.after(() => (limits.silent = before));
  const fake = await streams(t, `${HEAD}${event("1", {})}OPEN`, `${HEAD}${event("2", {})}`);
  assert.deepEqual((await told(bucketOf(fake).watch())).map(([id]) => id), ["1", "2"]);
});

test("what is refused, or nobody there", async (t) => {
  const missing = answer(404, { success: false, error: "cannot find it", code: "not_found" });
  await assert.rejects(bucketOf(await streams(t, missing)).watch().next(), { code: "not_found" });
  await assert.rejects(bucketOf(await streams(t, answer(200, { success: true }))).watch().next(), /not a stream of events/);
  await assert.rejects(bucketOf(await streams(t, `${HEAD}data: {\n\n`)).watch().next(), /not JSON/);
  const nobody = new Bucket({ token: "t", socket: "/nonexistent/s", timeout: 100 });
  await assert.rejects(nobody.watch().next(), { code: "daemon_unreachable" });
  const mute = await Fake.start(t, () => undefined);
  await assert.rejects(bucketOf(mute, { timeout: 100 }).watch().next(), { code: "timeout" });
});

test("busy is waited for, and then told", async (t) => {
  const busy = answer(503, { success: false, error: "too many", code: "overloaded" }, { "Retry-After": "0" });
  const { value } = await bucketOf(await streams(t, busy, busy, `${HEAD}${event("1", {})}`)).watch().next();
  assert.equal(value.id, "1");
  const always = await Fake.start(t, () => busy);
  await assert.rejects(bucketOf(always, { timeout: 100 }).watch().next(), { code: "overloaded" });
});

test("a signal ends it, while it waits for changes and while it waits for a daemon", async (t) => {
  const fake = await streams(t, `${HEAD}${event("1", {})}OPEN`);
  const stop = new AbortController();
  for await (const change of bucketOf(fake).watch({ signal: stop.signal })) {
    assert.equal(change.id, "1");
    setTimeout(() => stop.abort(), 50);
  }
  const absent = new Bucket({ token: "t", socket: "/nonexistent/s" });
  for await (const _ of absent.watch({ signal: AbortSignal.timeout(50) })) assert.fail("there is no daemon");
  for await (const _ of bucketOf(fake).watch({ signal: AbortSignal.abort() })) assert.fail("it had ended");
  assert.equal(fake.requests.length, 1);
});

test("leaving the loop closes the connection", async (t) => {
  const fake = await streams(t, `${HEAD}${event("1", {})}OPEN`);
  for await (const _ of bucketOf(fake).watch()) break;
  for (let turn = 0; turn < 200 && fake.sockets.size > 0; turn++) await new Promise((done) => setTimeout(done, 10));
  assert.equal(fake.sockets.size, 0);
});

test("agent ends with a failure, and never rejects", async (t) => {
  const fake = await streams(t, `${HEAD}${event("1", { a: 1 })}`);
  environment(t, { BUCKETD_SOCKET: fake.path, BUCKETD_TOKEN: "t" });
  const found = [];
  for await (const each of agent.utils.deviceBucket.watch({ keys: ["a"] })) found.push(each);
  assert.deepEqual(found.map(({ success }) => success), [true, false]);
  assert.deepEqual([found[0].set, found[1].code], [{ a: 1 }, "no_job_context"]);
  assert.equal(fake.requests[0].target, "/v1/device/bucket/events?key=a");
  environment(t, {});
  for await (const each of agent.utils.bucket.watch()) assert.equal(each.code, "no_job_context");
});

for (const how of ["SIGTERM", "SIGKILL"]) {
  test(`each change once, across restarts by ${how}`, { timeout: 60_000 }, async () => {
    const daemon = await Daemon.start(after);
    const { token, id } = await daemon.mint({ device: "d", job: "j" });
    const found = [];
    let seen = () => undefined;
    const watching = (async () => {
      for await (const change of new Bucket({ token, socket: daemon.socket }).watch({ snapshot: true })) {
        found.push(change);
        seen();
      }
    })();
    const until = async (count) => {
      while (found.length < count) await new Promise((done) => (seen = done));
    };
    await until(1);
    const bucket = new Bucket({ device: "d", job: "j", socket: daemon.socket, timeout: 20_000 });
    for (let n = 0; n < 40; ) {
      const restarted = daemon.end(how).then(() => daemon.run());
      do {
        n += 1;
        while ((await bucket.get()).n !== n) await bucket.set({ n }).catch(({ code }) => assert.equal(code, "connection_lost"));
      } while (n % 20);
      await restarted;
      await until(1 + n);
    }
    await daemon.api("DELETE", `/v1/contexts/${id}`);
    await assert.rejects(watching, { code: "no_job_context" });
    const numbers = Array.from({ length: 40 }, (_, index) => index + 1);
    assert.deepEqual(found.slice(1).map(({ set }) => set.n), numbers);
    assert.deepEqual(found.slice(1).map(({ revision }) => revision), numbers);
    assert.ok(!found.some(({ gap }) => gap));
  });
}
