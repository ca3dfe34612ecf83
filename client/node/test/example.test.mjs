// examples/login-session.ts over two task iterations, with the daemon killed in between.
import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { after, test } from "node:test";
import { Daemon, node } from "./support/daemon.mjs";

const EXAMPLE = fileURLToPath(new URL("../scripts/example.mjs", import.meta.url));
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
