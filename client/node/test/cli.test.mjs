// `npx bucketd-client dev`: a command with a bucketd in memory, on a computer that has none.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { node } from "./support/daemon.mjs";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const CLI = here("../dist/cli.js");
const CLIENT = JSON.stringify(new URL("../dist/index.mjs", import.meta.url).href);
const PROGRAM = `
  import { agent, Bucket } from ${CLIENT};
  const before = (await agent.utils.bucket.get()).bucket;
  await agent.utils.bucket.set({ runs: (before.runs ?? 0) + 1 });
  const { device, job } = await new Bucket().context();
  console.log(JSON.stringify([before, device, job]));`;
const run = ["--input-type=module", "-e", PROGRAM];
const env = { BUCKETD_TOKEN: "of another", BUCKETD_SOCKET: "/nonexistent" };

test("the command has a context of its own, and processes that it starts share it", async () => {
  const twice = ["sh", "-c", '"$0" "$@" && "$0" "$@"', process.execPath, ...run];
  const told = await node([CLI, "dev", "--device", "p", "--job", "j", "--", ...twice], { env });
  assert.deepEqual(told, { code: 0, signal: null, stderr: "", stdout: '[{},"p","j"]\n[{"runs":1},"p","j"]\n' });
});

test("the bucket may hold something at first; names have a default", async () => {
  const { stdout } = await node([CLI, "dev", "--bucket", '{"runs":4}', "--", process.execPath, ...run], { env });
  assert.equal(stdout, '[{"runs":4},"dev-device","dev-job"]\n');
});

test("the status of the command is its own", async () => {
  const status = async (...command) => (await node([CLI, "dev", "--", ...command])).code;
  assert.deepEqual([await status("sh", "-c", "exit 3"), await status("sh", "-c", "kill -9 $$")], [3, 137]);
  const missing = await node([CLI, "dev", "--", "/nonexistent/program"]);
  assert.equal(missing.code, 127);
  assert.match(missing.stderr, /^bucketd-client: cannot run \/nonexistent\/program: /);
});

test("a command line that is not valid is told, with the usage", async () => {
  for (const words of [[], ["dev"], ["dev", "--"], ["serve", "--", "x"], ["dev", "--devise", "p", "--", "x"], ["dev", "--bucket", "{", "--", "x"]]) {
    const { code, stderr } = await node([CLI, ...words]);
    assert.equal(code, 2, words.join(" "));
    assert.match(stderr, /^bucketd-client: .*\nusage: bucketd-client dev /s);
  }
  const { code, stdout } = await node([CLI, "--help"]);
  assert.deepEqual([code, stdout.split("\n")[0]], [0, "usage: bucketd-client dev [--device DEVICE] [--job JOB] [--bucket JSON] -- COMMAND [ARGUMENT...]"]);
  assert.equal((await node([CLI, "dev", "--bucket", "[1]", "--", "true"])).code, 1);
});

test("a SIGTERM reaches the command", async (t) => {
  const command = ["sh", "-c", 'trap "exit 7" TERM; echo ready; while :; do sleep 0.05; done'];
  const child = spawn(process.execPath, [CLI, "dev", "--", ...command], { stdio: ["ignore", "pipe", "inherit"] });
  // A command that is left running would keep this end open.
  t.after(() => child.stdout.destroy());
  await once(child.stdout, "data");
  child.kill("SIGTERM");
  const [code] = await once(child, "exit");
  assert.equal(code, 7);
});
