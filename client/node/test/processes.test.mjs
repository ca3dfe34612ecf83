// Several processes, and a daemon that is killed and started again under them.
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { Bucket } from "../dist/index.mjs";
import { Daemon, node } from "./support/daemon.mjs";

const CLIENT = JSON.stringify(new URL("../dist/index.mjs", import.meta.url).href);
const daemon = await Daemon.start(after);
// A busy machine may take longer to start a daemon than the five seconds that a call waits by itself.
const timeout = 60_000;
const open = (job) => new Bucket({ device: "d", job, socket: daemon.socket, timeout });

function script(job, text) {
  const head = `import { Bucket, agent } from ${CLIENT}; const bucket = new Bucket();`;
  const env = { BUCKETD_SOCKET: daemon.socket, BUCKETD_DEVICE: "d", BUCKETD_JOB: job, BUCKETD_TOKEN: "" };
  return node(["--input-type=module", "-e", `${head}\n${text}`], { env });
}

test("two processes with 200 increments each make 400", async () => {
  const increments = `
    for (let n = 0; n < 200; n++) await bucket.update((b) => void (b.count = (b.count ?? 0) + 1));`;
  const ended = await Promise.all([script("count", increments), script("count", increments)]);
  for (const { code, stderr } of ended) assert.deepEqual({ code, stderr }, { code: 0, stderr: "" });
  const { bucket, revision } = await open("count").snapshot();
  assert.deepEqual(bucket, { count: 400 });
  assert.equal(revision, 400);
});

test("calls wait while the daemon is killed and started again", async () => {
  const bucket = open("restart");
  await bucket.set({ before: 1 });
  await daemon.end("SIGKILL");
  const calls = [bucket.set({ during: 2 }), bucket.get(), open("restart-2").update((b) => void (b.n = 1))];
  await sleep(300);
  await daemon.run();
  const [set, get, updated] = await Promise.all(calls);
  assert.deepEqual(set, { before: 1, during: 2 });
  assert.deepEqual(get, { before: 1, during: 2 });
  assert.deepEqual(updated, { n: 1 });
});

test("calls wait over an orderly restart too", async () => {
  const bucket = open("orderly");
  for (let round = 1; round <= 2; round++) {
    await bucket.set({ round });
    const ended = daemon.end("SIGTERM");
    const during = bucket.set({ during: round });
    await ended;
    await daemon.run();
    assert.deepEqual(await during, { round, during: round });
  }
});

test("kill -9 under load: every acknowledged set is there, every other is told as not known", async () => {
  const acknowledged = {};
  const unknown = [];
  let stop = false;
  async function writer(name) {
    const bucket = open("load");
    for (let n = 1; !stop; n++) {
      await bucket.set({ [name]: n }).then(
        () => (acknowledged[name] = n),
        (error) => unknown.push(error.code),
      );
    }
  }
  const writers = ["a", "b", "c"].map(writer);
  for (let round = 0; round < 3; round++) {
    await sleep(150);
    await daemon.end("SIGKILL");
    await daemon.run();
  }
  stop = true;
  await Promise.all(writers);
  const stored = await open("load").get();
  for (const [name, n] of Object.entries(acknowledged)) assert.ok(stored[name] >= n, `${name}: ${stored[name]} < ${n}`);
  assert.deepEqual(unknown.filter((code) => code !== "connection_lost"), []);
  assert.ok(unknown.length <= 3, `${unknown.length} calls in doubt after 3 kills`);
});

test("a process ends at once, whether its last call was awaited or not, and the call is made", async () => {
  for (const text of ["await agent.utils.bucket.set({ a: 1 });", "agent.utils.bucket.set({ b: 2 });"]) {
    const told = 'const began = Date.now(); process.on("exit", () => console.log(Date.now() - began));';
    const { code, stdout, stderr } = await script("end", `${told}\n${text}`);
    assert.deepEqual({ code, stderr }, { code: 0, stderr: "" });
    assert.ok(Number(stdout) < 3000, stdout);
  }
  assert.deepEqual(await open("end").get(), { a: 1, b: 2 });
});

test("without a daemon a call gives up after five seconds, in a result", async () => {
  const text = `
    process.env.BUCKETD_SOCKET += ".none";
    const began = Date.now();
    const result = await agent.utils.bucket.set({ a: 1 });
    console.log(JSON.stringify({ ...result, seconds: Math.floor((Date.now() - began) / 1000) }));`;
  const { stdout, stderr } = await script("absent", text);
  assert.equal(stderr, "");
  const { error, ...result } = JSON.parse(stdout);
  assert.deepEqual(result, { success: false, code: "daemon_unreachable", seconds: 5 });
  assert.match(error, /cannot reach bucketd at .*b\.sock\.none: there is no socket \(ENOENT\); is bucketd running\?/);
});
