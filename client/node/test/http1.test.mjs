// The client's own HTTP: responses in pieces, cut at every byte, and late; connections kept and shared.
import assert from "node:assert/strict";
import { once } from "node:events";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { Bucket } from "../dist/index.mjs";
import { MalformedResponse, ResponseReader } from "../dist/http1.js";
import { Fake, answer, stored } from "./support/fake.mjs";
import { node } from "./support/daemon.mjs";

const open = (fake, more = {}) => new Bucket({ token: "t", socket: fake.path, ...more });

/** Read text or bytes in pieces of `size` bytes, each overwritten after it was read. */
function read(given, size = 65536) {
  const reader = new ResponseReader();
  const bytes = Buffer.from(given);
  const shared = Buffer.alloc(size);
  for (let at = 0; at < bytes.length; at += size) {
    const length = bytes.copy(shared, 0, at, at + size);
    const response = reader.feed(shared.subarray(0, length));
    if (response) return { ...response, etag: response.header("etag"), keepAlive: reader.keepAlive, left: bytes.length - at - length };
    shared.fill("#");
  }
  const response = reader.end();
  return response && { ...response, etag: response.header("etag"), keepAlive: false };
}

const OK = "HTTP/1.1 200 OK\r\n";
const CHUNKED = `${OK}Transfer-Encoding: chunked\r\n\r\n4;x=y\r\n{"é\r\n3\r\n":1\r\n1\r\n}\r\n0\r\n`;
const responses = {
  "with a length": [`${OK}ETAG:  "e1" \r\nContent-Length: 8\r\n\r\n{"é":1}`, { text: '{"é":1}', etag: '"e1"', keepAlive: true }],
  "in chunks": [`${CHUNKED}\r\n`, { text: '{"é":1}', keepAlive: true }],
  "in chunks, with trailers": [`${CHUNKED}A: b\r\nC: d\r\n\r\n`, { text: '{"é":1}', keepAlive: true }],
  "until the end": [`${OK}\r\n{"é":1}`, { text: '{"é":1}', keepAlive: false }],
  "after interim responses": [`HTTP/1.1 103 Early\r\nA: b\r\n\r\nHTTP/1.1 100 \r\n\r\n${OK}Content-Length: 2\r\n\r\n{}`, { text: "{}", keepAlive: true }],
  "without a reason": ["HTTP/1.1 204\r\n\r\n", { status: 204, text: "", keepAlive: true }],
  "that closes": [`${OK}Connection: Close\r\nContent-Length: 0\r\n\r\n`, { text: "", keepAlive: false }],
  "of HTTP/1.0": ["HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", { text: "", keepAlive: false }],
  "with the same length twice": [`${OK}Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}`, { text: "{}", keepAlive: true }],
};
for (const [name, [text, wanted]] of Object.entries(responses)) {
  test(`a response ${name} is read, in pieces of any size`, () => {
    for (const size of [1, 2, 3, 5, 7, 11, 65536]) {
      const found = read(text, size);
      for (const [member, value] of Object.entries(wanted)) assert.equal(found[member], value, `${member}, pieces of ${size}`);
    }
  });
  test(`a response ${name} is not complete at any byte before its end`, () => {
    if (name === "until the end") return;
    const bytes = Buffer.from(text);
    for (let end = 0; end < bytes.length; end++) assert.equal(read(bytes.subarray(0, end)), undefined, `${end}`);
  });
}

const malformed = [
  "220 mail.example.org", "HTTP/2 200 OK\r\n\r\n", "HTTP/1.1 99 OK\r\n\r\n", "HTTP/1.1 2000 OK\r\n\r\n", "HTTP/1.1 101 Switching\r\n\r\n",
  `${OK}Content-Length: 1\r\nContent-Length: 2\r\n\r\n{}`, `${OK}Content-Length: -1\r\n\r\n`, `${OK}Content-Length: 1, 2\r\n\r\n{}`, `${OK}Content-Length: 1,\r\n\r\n{}`,
  `${OK}Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`, `${OK}Transfer-Encoding: gzip, chunked\r\n\r\n`,
  `${OK}Transfer-Encoding: chunked\r\n\r\nzz\r\n`, `${OK}Transfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n`, `${OK}Transfer-Encoding: chunked\r\n\r\n-1\r\n`,
  `${OK} folded: a\r\n\r\n`, `${OK}no colon\r\n\r\n`, `${OK}A : b\r\n\r\n`, `${OK}A: b\0\r\n\r\n`, `HTTP/1.1 200 ${"x".repeat(20_000)}`,
];
for (const text of malformed) {
  test(`no response: ${JSON.stringify(text.slice(0, 60))}`, () => {
    for (const size of [3, 65536]) assert.throws(() => read(text, size), MalformedResponse);
  });
}

test("what follows a response keeps its connection from being used again", () => {
  assert.equal(read(`${OK}Content-Length: 2\r\n\r\n{}HTTP`).keepAlive, false);
  assert.equal(read(`${CHUNKED}\r\nHTTP`).keepAlive, false);
});

for (const how of ["end", "destroy"]) {
  test(`cut at every byte, a write is not known to be made, and a read is repeated (${how})`, async (t) => {
    const bytes = stored({ a: 1 });
    let cut = 0;
    const fake = await Fake.start(t, (_request, socket) => {
      if (cut < 0) return bytes;
      socket.write(bytes.slice(0, cut), () => socket[how]());
      return undefined;
    });
    const [writer, reader] = [open(fake, { timeout: 10_000 }), open(fake, { timeout: 10_000 })];
    for (let at = 0; at < bytes.length; at++) {
      cut = at;
      const before = fake.requests.length;
      await assert.rejects(writer.set({ n: at }), { code: "connection_lost" }, `cut at ${at}`);
      assert.equal(fake.requests.length, before + 1, `sent twice, cut at ${at}`);
      if (at % 16) continue;
      const reading = reader.get();
      while (fake.requests.length < before + 2) await sleep(1);
      cut = -1;
      assert.deepEqual(await reading, { a: 1 });
    }
  });
}

test("a response that comes too late is for nobody", async (t) => {
  const fake = await Fake.start(t, async (request) => {
    const { n } = JSON.parse(request.body);
    if (n === 1) await sleep(150);
    return stored({ n });
  });
  await assert.rejects(open(fake, { timeout: 50 }).set({ n: 1 }), { code: "timeout", message: /outcome is unknown/ });
  for (let n = 2; n < 10; n++) {
    assert.deepEqual(await open(fake).set({ n }), { n });
    await sleep(25);
  }
});

test("bytes that nobody asked for end a connection, and are no response", async (t) => {
  const fake = await Fake.start(t, ({ body }, socket) => {
    const { n } = JSON.parse(body);
    setTimeout(() => socket.write(stored({ n: "late" })), 40);
    return stored({ n });
  });
  for (let n = 0; n < 6; n++) {
    assert.deepEqual(await open(fake).set({ n }), { n });
    await sleep(n % 2 ? 80 : 0);
  }
  assert.ok(fake.connections >= 3);
});

test("calls on different buckets run beside each other on at most 16 connections, and wait for one", async (t) => {
  let [running, most] = [0, 0];
  const fake = await Fake.start(t, async (request) => {
    most = Math.max(most, ++running);
    await sleep(20);
    running -= 1;
    return stored({ target: request.target });
  });
  const names = Array.from({ length: 50 }, (_, n) => `b${n}`);
  const found = await Promise.all(names.map((job) => new Bucket({ device: "d", job, socket: fake.path }).get()));
  assert.deepEqual(found.map(({ target }) => target), names.map((name) => `/v1/devices/d/jobs/${name}/bucket`));
  assert.equal(most, 16);
  assert.equal(fake.connections, 16);
});

test("a call that waits for a connection keeps its time limit, and was not sent", async (t) => {
  const fake = await Fake.start(t, async () => (await sleep(400), stored({})));
  const job = (n, timeout) => new Bucket({ device: "d", job: `${n}`, socket: fake.path, timeout });
  const others = Array.from({ length: 16 }, (_, n) => job(n, 5000).get());
  await assert.rejects(job("late", 100).set({ a: 1 }), { code: "timeout", message: /not sent in time; nothing was changed/ });
  await Promise.all(others);
  assert.equal(fake.requests.length, 16);
});

test("when all connections die, the calls that wait get new ones", async (t) => {
  let serving = false;
  const fake = await Fake.start(t, (_request, socket) => (serving ? stored({}) : void socket.destroy()));
  const calls = Array.from({ length: 40 }, (_, n) => new Bucket({ device: "d", job: `${n}`, socket: fake.path }).get());
  await sleep(30);
  serving = true;
  assert.equal((await Promise.all(calls)).length, 40);
});

test("a large bucket goes and comes whole", async (t) => {
  const text = "é".repeat(700_000);
  const fake = await Fake.start(t, ({ body }) => stored(JSON.parse(body)));
  assert.deepEqual(await open(fake).set({ text }), { text });
});

test("a process with 16 idle connections ends, and one that waits for a call does not", async (t) => {
  const fake = await Fake.start(t, async (request) => (request.target.includes("slow") && (await sleep(300)), stored({})));
  const program = `
    import { Bucket } from ${JSON.stringify(new URL("../dist/index.mjs", import.meta.url).href)};
    const get = (job) => new Bucket({ device: "d", job, socket: ${JSON.stringify(fake.path)} }).get();
    await Promise.all(Array.from({ length: 16 }, (_, n) => get(String(n))));
    get("slow").then(() => console.log("made", Date.now()));`;
  const { code, stdout } = await node(["--input-type=module", "-e", program]);
  assert.equal(code, 0);
  assert.match(stdout, /^made/);
  assert.ok(Date.now() - Number(stdout.split(" ")[1]) < 1500);
});
