// examples/login-session.ts over two task iterations, with the daemon killed in between, and the
// examples of holds.
import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { after, test } from "node:test";
import { Daemon, node } from "./support/daemon.mjs";

const EXAMPLE = fileURLToPath(new URL("../scripts/example.mjs", import.meta.url));
const compiled = (name) => fileURLToPath(new URL(`../build/example/${name}`, import.meta.url));
const daemon = await Daemon.start(after);
const none = { BUCKETD_TOKEN: "", BUCKETD_TOKEN_FILE: "", BUCKETD_DEVICE: "", BUCKETD_JOB: "" };

test("the first iteration logs in, the second resumes", async () => {
  const { token } = await daemon.mint({ device: "phone-1", job: "login" });
  const env = { ...none, BUCKETD_SOCKET: daemon.socket, BUCKETD_TOKEN: token };
  assert.deepEqual(await node([EXAMPLE], { env }), {
    code: 0, signal: null, stderr: "",
    stdout: "login: no session stored, logging in as demo-user\nlogin: session stored (revision 1)\n",
  });
  const { bucket } = daemon.file("phone-1", "login");
  assert.equal(bucket.loggedIn, true);
  assert.match(bucket.sessionToken, /^demo-user:/);
  assert.ok(Math.abs(Date.now() - bucket.loginTimestamp) < 60_000);
  await daemon.end("SIGKILL");
  await daemon.run();
  assert.deepEqual(await node([EXAMPLE], { env }), {
    code: 0, signal: null, stderr: "",
    stdout: "login: resuming the stored session, no login needed\n",
  });
});

test("outside a job context it stops and says why", async () => {
  const { code, stdout, stderr } = await node([EXAMPLE], { env: { ...none, BUCKETD_SOCKET: daemon.socket } });
  assert.equal(code, 1);
  assert.equal(stdout, "");
  assert.match(stderr, /^login: cannot use the bucket: .*no job context.*bucketctl run/);
});

/** Run a compiled example several times at once; return what each run prints. */
async function together(count, name, context, env) {
  await node([EXAMPLE, "--build"]);
  const { token } = await daemon.mint(context);
  const runs = Array.from({ length: count }, () =>
    node([compiled(name)], { env: { ...none, BUCKETD_SOCKET: daemon.socket, BUCKETD_TOKEN: token, ...env } }),
  );
  return (await Promise.all(runs)).map(({ code, stdout, stderr }) => {
    assert.deepEqual({ code, stderr }, { code: 0, stderr: "" });
    return stdout;
  });
}

test("one run per phone: the others say who works on it", async () => {
  const told = await together(3, "one-run-per-phone.mjs", { device: "phone-2", job: "nightly" }, { SECONDS: "3" });
  assert.deepEqual(told.filter((line) => line === "run 1\n").length, 1);
  assert.equal(told.filter((line) => /^somebody works on the phone since \d s \(nightly\)\n$/.test(line)).length, 2);
  assert.deepEqual(daemon.file("phone-2", "nightly").bucket, { runs: 1 });
});

test("an account pool: no account twice at a time, and each run gets one", async () => {
  const env = { ACCOUNTS: "ada bob", SECONDS: "1" };
  const told = await together(3, "account-pool.mjs", { device: "accounts", job: "shop" }, env);
  assert.deepEqual(new Set(told), new Set(["working as ada\n", "working as bob\n"]));
});
