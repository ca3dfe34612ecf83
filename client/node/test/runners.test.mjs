// The client under other runtimes, and `useBucketd` under other test runners, as the README has it.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { Daemon } from "./support/daemon.mjs";
import { tempDir } from "./support/temp.mjs";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const PROGRAMS = here("runners/node_modules/.bin");
const README = readFileSync(here("../README.md"), "utf8");
const BLOCKS = [...README.matchAll(/```ts\n(.*?)```/gs)].map(([, code]) => code);
const run = promisify(execFile);
const missing = (name) => (existsSync(join(PROGRAMS, name)) ? false : `${name} is not installed; make test-runners`);

/** Make a project that has the client and the runners. */
function project(t, files) {
  const dir = tempDir(t);
  mkdirSync(join(dir, "node_modules"));
  symlinkSync(here(".."), join(dir, "node_modules", "bucketd-client"));
  for (const [name, text] of Object.entries(files)) writeFileSync(join(dir, name), text);
  return dir;
}

const AUTOMATION = `
async function main() {
  const { agent } = await import("bucketd-client");
  const { bucket } = await agent.utils.bucket.get();
  if (!bucket.loggedIn) await agent.utils.bucket.set({ loggedIn: true });
}`;
const blockWith = (text) => BLOCKS.find((code) => code.includes(text)) ?? assert.fail(`the README has no block with ${text}`);

async function told(program, args, dir) {
  const env = { ...process.env, PATH: `${PROGRAMS}:${process.env.PATH}`, NO_COLOR: "1", CI: "1" };
  return run(join(PROGRAMS, program), args, { cwd: dir, env }).catch((error) => assert.fail(`${error.stdout}${error.stderr}`));
}

test("vitest, as in the README", { skip: missing("vitest"), timeout: 120_000 }, async (t) => {
  const code = `${blockWith('from "vitest"')}
test("its context has the name of the test, and nothing is left of another", async (t) => {
  const { bucket } = await useBucketd(t);
  if (bucket.environ.BUCKETD_RUN !== t.task.name || bucket.revision !== 0) throw new Error(JSON.stringify(bucket.environ));
});
test("await using", async () => {
  {
    await using own = await useBucketd({ bucket: { a: 1 } });
    if (process.env.BUCKETD_TOKEN !== own.bucket.token) throw new Error("not set");
  }
  if (process.env.BUCKETD_TOKEN !== undefined) throw new Error("left");
});
test("the environment is restored", () => {
  if (process.env.BUCKETD_TOKEN !== undefined) throw new Error("left");
});`;
  const dir = project(t, { "automation.mjs": `export ${AUTOMATION.trim()}`, "login.test.ts": code, "package.json": '{"type":"module"}' });
  const { stdout } = await told("vitest", ["run", "--root", dir, "--no-cache"], dir);
  assert.match(stdout, /Tests +4 passed/);
});

test("jest, as in the README", { skip: missing("jest"), timeout: 120_000 }, async (t) => {
  const code = `${blockWith("beforeEach")}
test("each has its own", () => expect([bucketd.bucket.data, bucketd.bucket.revision]).toEqual([{}, 0]));
test("fake timers do not stop it", async () => {
  jest.useFakeTimers();
  await main();
  bucketd.bucket.assertSet({ loggedIn: true });
  jest.useRealTimers();
});`;
  const automation = AUTOMATION.replace('await import("bucketd-client")', 'require("bucketd-client")');
  const files = { "automation.cjs": `${automation}\nmodule.exports = { main };`, "login.test.js": code, "package.json": "{}" };
  const dir = project(t, files);
  const { stderr } = await told("jest", ["--rootDir", dir, "--no-cache", "--no-watchman", "--testEnvironment", "node"], dir);
  assert.match(stderr, /Tests: +3 passed/);
});

const RUNTIMES = { bun: ["run"], deno: ["run", "--allow-all", "--node-modules-dir=manual", "--no-lock"] };
const daemon = Object.keys(RUNTIMES).every(missing) ? undefined : await Daemon.start(after);
const PROGRAM = `
import { agent, Bucket } from "bucketd-client";
await agent.utils.bucket.set({ a: 1, text: "é😀" });
const bucket = new Bucket();
await Promise.all(Array.from({ length: 20 }, (_, n) => bucket.set({ ["k" + n]: n })));
const changes = bucket.watch({ snapshot: true });
const first = await changes.next();
await changes.return();
const held = await bucket.hold(async (held) => (await held.update((b) => { b.a += 1; })).a);
const refused = await bucket.set({ a: 0 }, { ifMatch: '"other"' }).catch((error) => error.code);
console.log(JSON.stringify([await bucket.value("a"), first.value.set.text, Object.keys(await bucket.get()).length, held, refused]));
process.exit();
`;

for (const [runtime, args] of Object.entries(RUNTIMES)) {
  test(`the client under ${runtime}`, { skip: missing(runtime), timeout: 120_000 }, async (t) => {
    const { token } = await daemon.mint({ device: "d", job: runtime });
    const dir = project(t, { "program.mjs": PROGRAM, "package.json": '{"type":"module"}' });
    const env = { ...process.env, BUCKETD_SOCKET: daemon.socket, BUCKETD_TOKEN: token, DENO_DIR: join(dir, "deno"), DENO_NO_UPDATE_CHECK: "1" };
    const { stdout } = await run(join(PROGRAMS, runtime), [...args, "program.mjs"], { cwd: dir, env, timeout: 60_000 });
    assert.equal(stdout, '[2,"é😀",22,2,"precondition_failed"]\n');
    rmSync(join(dir, "deno"), { recursive: true, force: true });
  });
}
