// Holds of several processes on a running bucketd: who is killed, stopped, or ends without a release.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { after, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { Bucket } from "../dist/index.mjs";
import { Daemon, node } from "./support/daemon.mjs";

const CLIENT = JSON.stringify(new URL("../dist/index.mjs", import.meta.url).href);
const daemon = await Daemon.start(after);
const open = (job) => new Bucket({ device: "d", job, socket: daemon.socket });
const environ = (job) => ({ BUCKETD_SOCKET: daemon.socket, BUCKETD_DEVICE: "d", BUCKETD_JOB: job, BUCKETD_TOKEN: "" });
const program = (text) => ["--input-type=module", "-e", `import { Bucket } from ${CLIENT}; const bucket = new Bucket();\n${text}`];
const script = (job, text) => node(program(text), { env: environ(job) });

/** A process that holds the bucket; it prints a line once it does. */
async function holder(t, job, text) {
  const child = spawn(process.execPath, program(text), { env: { ...process.env, ...environ(job) }, stdio: ["ignore", "pipe", "inherit"] });
  t.after(() => child.kill("SIGKILL"));
  const [line] = await once(createInterface({ input: child.stdout }), "line");
  return { child, line };
}

const HOLD = `
  const held = await bucket.hold();
  console.log("held");
  setInterval(() => undefined, 1000);`;

test("twelve processes, one login", { timeout: 120_000 }, async () => {
  const login = `
    const stored = await bucket.refresh((b) => b.token !== undefined, async () => {
      await new Promise((done) => setTimeout(done, 300));
      return { token: process.pid };
    });
    console.log(stored.token);`;
  const ended = await Promise.all(Array.from({ length: 12 }, () => script("login", login)));
  for (const { code, stderr } of ended) assert.deepEqual({ code, stderr }, { code: 0, stderr: "" });
  const { bucket, revision } = await open("login").snapshot();
  assert.equal(revision, 1);
  assert.deepEqual(new Set(ended.map(({ stdout }) => stdout)), new Set([`${bucket.token}\n`]));
});

test("SIGKILL of the holder releases it at once, though its child lives on", async (t) => {
  const { child, line } = await holder(t, "killed", `
    import { spawn } from "node:child_process";
    const held = await bucket.hold();
    console.log(spawn("sleep", ["30"], { stdio: "ignore", detached: true }).pid);
    setInterval(() => undefined, 1000);`);
  t.after(() => process.kill(Number(line), "SIGKILL"));
  const waiting = open("killed").hold({ wait: 20 }, () => performance.now());
  await sleep(100);
  const began = performance.now();
  child.kill("SIGKILL");
  const took = (await waiting) - began;
  assert.ok(took < 10_000, `${took} ms`);
  process.kill(Number(line), 0);
});

test("a stopped holder keeps it, until an operator breaks it", async (t) => {
  const { child } = await holder(t, "stopped", HOLD);
  child.kill("SIGSTOP");
  await assert.rejects(open("stopped").hold({ wait: 1 }), { code: "held" });
  const { holds: [{ id }] } = (await daemon.api("GET", "/v1/holds?job=stopped")).body;
  const waiting = open("stopped").hold({ wait: 20 }, () => "had");
  assert.equal((await daemon.api("DELETE", `/v1/holds/${id}`)).status, 200);
  assert.equal(await waiting, "had");
});

test("a stopped holder goes on where it was", async (t) => {
  const { child } = await holder(t, "continued", `
    const held = await bucket.hold();
    console.log("held");
    for (let n = 1; ; n++) {
      await held.set({ n });
      await new Promise((done) => setTimeout(done, 20));
    }`);
  child.kill("SIGSTOP");
  await sleep(500);
  const { n = 0 } = await open("continued").get();
  child.kill("SIGCONT");
  while (((await open("continued").get()).n ?? 0) <= n) await sleep(10);
  await assert.rejects(open("continued").hold({ wait: 0 }), { code: "held" });
});

test("a program that ends without a release has released it; a callback keeps it alive", async () => {
  const ends = await script("ends", `
    const held = await bucket.hold();
    await held.set({ a: 1 });`);
  assert.deepEqual(ends, { code: 0, signal: null, stdout: "", stderr: "" });
  await open("ends").hold({ wait: 5 }, () => undefined);
  // A timer that does not keep the process alive: only the hold does.
  const works = await script("ends", `
    await bucket.hold(() => new Promise((done) => setTimeout(done, 300).unref()));
    console.log("done");`);
  assert.deepEqual(works, { code: 0, signal: null, stdout: "done\n", stderr: "" });
});

test("the holder's and the daemon's kill at the same time", { timeout: 60_000 }, async (t) => {
  const { child } = await holder(t, "both", HOLD);
  child.kill("SIGKILL");
  await daemon.end("SIGKILL");
  await daemon.run();
  await open("both").hold({ wait: 20 }, () => undefined);
});
