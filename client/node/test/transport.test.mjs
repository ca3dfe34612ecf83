// How calls use connections, against a server that misbehaves on command.
import assert from "node:assert/strict";
import { execFile, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { writeFileSync } from "node:fs";
import net from "node:net";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import { Bucket } from "../dist/index.mjs";
import { Fake, answer, stored } from "./support/fake.mjs";
import { tempDir } from "./support/temp.mjs";

const open = (path, more = {}) => new Bucket({ token: "tok", socket: path, ...more });

/** Keep the event loop from running, as a long computation does. */
function block(ms) {
  const end = Date.now() + ms;
  while (Date.now() < end);
}

/**
 * A server in a process of its own that closes each connection 20 ms after its answer.
 * `how` is "destroy" (as bucketd does) or "end" (as a forwarder does: it closes one way and
 * still takes, and drops, what comes the other way).
 */
async function closingServer(t, how) {
  const path = join(tempDir(t), "s.sock");
  const code = `
    require("node:net").createServer({ allowHalfOpen: true }, (socket) => {
      socket.on("error", () => {});
      socket.once("data", () => {
        socket.write(${JSON.stringify(stored({}))});
        socket.on("data", () => {});
        setTimeout(() => socket.${how}(), 20);
      });
    }).listen(${JSON.stringify(path)}, () => console.log("ready"));`;
  const server = spawn(process.execPath, ["-e", code], { stdio: ["ignore", "pipe", "inherit"] });
  t.after(() => server.kill("SIGKILL"));
  await once(server.stdout, "data");
  return path;
}

test("one connection carries all calls of a bucket, in the order they were made", async (t) => {
  const fake = await Fake.start(t, () => stored({}));
  const bucket = open(fake.path);
  await Promise.all([1, 2, 3, 4, 5].map((n) => bucket.set({ n })));
  await bucket.get();
  assert.equal(fake.connections, 1);
  assert.deepEqual(fake.requests.slice(0, 5).map((r) => JSON.parse(r.body).n), [1, 2, 3, 4, 5]);
});

test("what is sent is what the data was when set was called", async (t) => {
  const fake = await Fake.start(t, () => stored({}));
  const data = { n: 1 };
  const first = open(fake.path).set({ other: 1 });
  const second = open(fake.path).set(data);
  data.n = 2;
  await Promise.all([first, second]);
  assert.equal(fake.requests[1].body, '{"n":1}');
});

test("a write survives that the kept connection was closed while idle", async (t) => {
  const fake = await Fake.start(t, () => stored({}));
  const bucket = open(fake.path);
  for (let n = 0; n < 20; n++) {
    await bucket.set({ n });
    fake.closeConnections();
    if (n % 2) await sleep(1);
  }
  assert.equal(fake.requests.length, 20, "no write may be sent twice");
});

for (const how of ["destroy", "end"]) {
  test(`a write survives a connection closed while this process was busy (${how})`, async (t) => {
    const bucket = open(await closingServer(t, how));
    for (let n = 0; n < 4; n++) {
      await bucket.set({ n });
      block(60); // the other end closes now; this process has had no chance to notice
      await bucket.set({ n });
      await new Promise((turn) => setTimeout(() => turn(block(60)), 1));
    }
  });
}

test("a request that the server closed on without reading it is sent anew", async (t) => {
  const path = join(tempDir(t), "s.sock");
  let closed = 0;
  const deaf = net.createServer({ pauseOnConnect: true }, (socket) => {
    closed += 1;
    setTimeout(() => socket.destroy(), 30); // unread data: the client gets ECONNRESET
  });
  await new Promise((listening) => deaf.listen(path, listening));
  const call = open(path).set({ n: 1 });
  await sleep(100);
  await new Promise((done) => deaf.close(done)); // this removes the socket file too
  const fake = await Fake.start(t, () => stored({ n: 1 }), path);
  assert.deepEqual(await call, { n: 1 });
  assert.ok(closed >= 1);
  assert.equal(fake.requests.length, 1);
});

test("a write that was read and not answered is not repeated: connection_lost", async (t) => {
  const fake = await Fake.start(t, (request, socket) => void socket.destroy());
  await assert.rejects(open(fake.path).set({ n: 1 }), (error) => {
    assert.equal(error.code, "connection_lost");
    assert.equal(error.name, "ConnectionLostError");
    assert.match(error.message, /the outcome is unknown/);
    return true;
  });
  assert.equal(fake.requests.length, 1);
});

test("half an answer to a write is connection_lost as well", async (t) => {
  const fake = await Fake.start(t, (request, socket) => void socket.end(stored({ a: 1 }).slice(0, -5)));
  await assert.rejects(open(fake.path).set({ n: 1 }), { code: "connection_lost" });
  assert.equal(fake.requests.length, 1);
});

test("a read is repeated when its answer is lost", async (t) => {
  let calls = 0;
  const fake = await Fake.start(t, (request, socket) => {
    calls += 1;
    if (calls === 1) return void socket.destroy();
    if (calls === 2) return void socket.end(stored({ a: 1 }).slice(0, -5));
    return stored({ a: 1 });
  });
  assert.deepEqual(await open(fake.path).get(), { a: 1 });
  assert.equal(calls, 3);
});

for (const code of ["shutting_down", "overloaded", "too_many_requests"]) {
  test(`${code} is waited out, and Retry-After kept`, async (t) => {
    let calls = 0;
    const refusal = { success: false, error: "cannot serve: later", code };
    const fake = await Fake.start(t, () =>
      ++calls === 1 ? answer(503, refusal, { "Retry-After": "1", Connection: "close" }) : stored({}),
    );
    const began = Date.now();
    await open(fake.path).set({ n: 1 });
    assert.equal(calls, 2);
    assert.ok(Date.now() - began >= 950);
  });
}

test("a refusal that lasts is told as it came", async (t) => {
  const refusal = { success: false, error: "cannot serve: shutting down", code: "shutting_down" };
  const fake = await Fake.start(t, () => answer(503, refusal, { "Retry-After": "60" }));
  const began = Date.now();
  await assert.rejects(open(fake.path, { timeout: 300 }).set({}), {
    code: "shutting_down",
    status: 503,
    name: "UnavailableError",
    message: "cannot serve: shutting down",
  });
  assert.ok(Date.now() - began < 2000);
});

test("read_only is not waited out", async (t) => {
  const refusal = { success: false, error: "cannot write: read-only", code: "read_only" };
  const fake = await Fake.start(t, () => answer(503, refusal, { "Retry-After": "60" }));
  await assert.rejects(open(fake.path).set({}), { code: "read_only" });
  assert.equal(fake.requests.length, 1);
});

test("a daemon that is not there yet is waited for", async (t) => {
  const path = join(tempDir(t), "s.sock");
  const call = open(path).set({ n: 1 });
  await sleep(300);
  const fake = await Fake.start(t, () => stored({ n: 1 }), path);
  assert.deepEqual(await call, { n: 1 });
  assert.equal(fake.requests.length, 1);
});

test("a socket file that nobody listens on is waited for, then daemon_unreachable", async (t) => {
  const path = join(tempDir(t), "s.sock");
  const leave = `require("node:net").createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, "SIGKILL"))`;
  spawnSync(process.execPath, ["-e", leave]);
  const began = Date.now();
  await assert.rejects(open(path, { timeout: 400 }).get(), (error) => {
    assert.equal(error.code, "daemon_unreachable");
    assert.match(error.message, /nobody listens there \(ECONNREFUSED\); is bucketd running\?/);
    return true;
  });
  assert.ok(Date.now() - began >= 390);
});

test("ten calls without a daemon fail together, not one after another", async (t) => {
  const bucket = open(join(tempDir(t), "none.sock"), { timeout: 400 });
  const began = Date.now();
  const results = await Promise.allSettled(Array.from({ length: 10 }, () => bucket.get()));
  assert.ok(Date.now() - began < 2000);
  for (const { reason } of results) assert.match(reason.code, /^(daemon_unreachable|timeout)$/);
});

test("what can never be a daemon fails at once", async (t) => {
  const dir = tempDir(t);
  writeFileSync(join(dir, "file"), "");
  const began = Date.now();
  await assert.rejects(open(join(dir, "file")).get(), { code: "daemon_unreachable", message: /the file there is not a socket/ });
  await assert.rejects(open(join(dir, "long".repeat(40))).get(), { message: /longer than the 107 bytes/ });
  assert.ok(Date.now() - began < 2000);
});

test("no answer in time: timeout, and the write's outcome is unknown", async (t) => {
  const fake = await Fake.start(t, () => undefined);
  await assert.rejects(open(fake.path, { timeout: 200 }).set({}), {
    code: "timeout",
    name: "TimeoutError",
    message: /outcome is unknown/,
  });
  await assert.rejects(open(fake.path, { timeout: 200 }).get(), (error) => !/outcome is unknown/.test(error.message));
  assert.equal(fake.requests.length, 2);
});

test("a call behind a slow one keeps its own time limit", async (t) => {
  const fake = await Fake.start(t, async () => (await sleep(700), stored({})));
  const slow = open(fake.path).set({ n: 1 });
  const began = Date.now();
  await assert.rejects(open(fake.path, { timeout: 100 }).set({ n: 2 }), {
    code: "timeout",
    message: /nothing was sent/,
  });
  assert.ok(Date.now() - began < 500);
  await slow;
  assert.equal(fake.requests.length, 1);
});

test("an answer in chunks, with an interim answer before it, is read", async (t) => {
  const fake = await Fake.start(t, async (request, socket) => {
    socket.write("HTTP/1.1 103 Early\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    const text = JSON.stringify({ success: true, bucket: { a: "é" }, revision: 3 });
    for (const part of [text.slice(0, 30), text.slice(30)]) {
      socket.write(`${Buffer.byteLength(part).toString(16)}\r\n${part}\r\n`);
      await sleep(5);
    }
    socket.write("0\r\n\r\n");
  });
  assert.deepEqual(await open(fake.path).snapshot(), { bucket: { a: "é" }, revision: 3, etag: null });
});

test("a refusal that comes before a large body is sent whole is read", async (t) => {
  const fake = await Fake.start(t, () => undefined);
  fake.serve = (socket) => {
    socket.on("error", () => undefined);
    socket.once("data", () => {
      socket.pause();
      socket.write(answer(413, { success: false, error: "cannot store: too large", code: "too_large" }));
      setTimeout(() => socket.destroy(), 50);
    });
  };
  await assert.rejects(open(fake.path).set({ big: "x".repeat(4 << 20) }), { code: "too_large", status: 413 });
});

test("an answer that is not bucketd's is told so", async (t) => {
  for (const bytes of [answer(200, "<html>hi</html>"), answer(200, "null"), answer(502, {})]) {
    const fake = await Fake.start(t, () => bytes);
    await assert.rejects(open(fake.path).get(), { name: "StoreError", message: /is it bucketd that listens at / });
  }
});

test("a script ends at once although a connection is kept", async (t) => {
  const fake = await Fake.start(t, () => stored({}));
  const script = `
    import { Bucket } from ${JSON.stringify(new URL("../dist/index.mjs", import.meta.url).href)};
    await new Bucket({ token: "t", socket: ${JSON.stringify(fake.path)} }).set({ a: 1 });
    console.log(Date.now());`;
  const run = promisify(execFile);
  const { stdout } = await run(process.execPath, ["--input-type=module", "-e", script]);
  assert.ok(Date.now() - Number(stdout) < 1000);
  assert.equal(fake.requests.length, 1);
});

test("no time to send it all: what was not sent was not done", async (t) => {
  const path = join(tempDir(t), "deaf.sock");
  const deaf = net.createServer({ pauseOnConnect: true }, (socket) => t.after(() => socket.destroy()));
  deaf.listen(path);
  await once(deaf, "listening");
  t.after(() => deaf.close());
  await assert.rejects(open(path, { timeout: 200 }).set({ text: "x".repeat(3_000_000) }), {
    code: "timeout",
    name: "TimeoutError",
    message: /not sent in time; nothing was changed/,
  });
});

test("a path that is too long never reaches the socket that it would be cut to", async (t) => {
  const dir = tempDir(t);
  const path = join(dir, "s".repeat(106 - Buffer.byteLength(dir)));
  const fake = await Fake.start(t, () => stored({ other: 1 }), path);
  for (const beyond of [`${path}ss`, `${path}${"s".repeat(20)}`]) {
    const refused = { code: "daemon_unreachable", message: /longer than the 107 bytes/ };
    await assert.rejects(open(beyond, { timeout: 300 }).get(), refused);
    await assert.rejects(open(beyond, { timeout: 300 }).watch().next(), refused);
  }
  assert.equal(fake.connections, 0);
});
