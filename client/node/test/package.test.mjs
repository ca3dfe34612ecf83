// The packed package, as a program that depends on it runs it.
import assert from "node:assert/strict";
import { readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, test } from "node:test";
import { Daemon, node } from "./support/daemon.mjs";
import { consumer } from "./support/pack.mjs";

const dir = consumer();
after(() => rmSync(dir, { recursive: true, force: true }));
const daemon = await Daemon.start(after);

async function run(name, text) {
  writeFileSync(join(dir, name), text);
  const { token } = await daemon.mint({ device: "d", job: name });
  const env = { BUCKETD_SOCKET: daemon.socket, BUCKETD_TOKEN: token };
  const { code, stdout, stderr } = await node([name], { cwd: dir, env });
  assert.deepEqual({ code, stderr }, { code: 0, stderr: "" });
  return JSON.parse(stdout);
}

const expected = (job) => ({ before: {}, after: { sessionToken: "s" }, job });

test("an ES module imports it", async () => {
  const told = await run("esm.mjs", `
    import { agent, Bucket } from "bucketd-client";
    const before = await agent.utils.bucket.get();
    await agent.utils.bucket.set({ sessionToken: "s" });
    const { job } = await new Bucket().context();
    console.log(JSON.stringify({ before: before.bucket, after: await new Bucket().get(), job }));`);
  assert.deepEqual(told, expected("esm.mjs"));
});

test("a CommonJS module requires it", async () => {
  const told = await run("common.cjs", `
    const { agent, Bucket } = require("bucketd-client");
    (async () => {
      const before = await agent.utils.bucket.get();
      await agent.utils.bucket.set({ sessionToken: "s" });
      const { job } = await new Bucket().context();
      console.log(JSON.stringify({ before: before.bucket, after: await new Bucket().get(), job }));
    })();`);
  assert.deepEqual(told, expected("common.cjs"));
});

test("both ways lead to one implementation, with the same public names", async () => {
  const told = await run("both.mjs", `
    import { createRequire } from "node:module";
    import * as imported from "bucketd-client";
    const required = createRequire(import.meta.url)("bucketd-client");
    const names = Object.keys(required).sort();
    console.log(JSON.stringify({ names, same: names.every((name) => required[name] === imported[name]) }));`);
  assert.equal(told.same, true);
  assert.deepEqual(told.names, [
    "Bucket", "BucketError", "ConnectionLostError", "DaemonUnreachableError", "ForbiddenError", "HeldBucket",
    "HeldError", "HoldLostError", "InvalidRequestError", "NoJobContextError", "NotFoundError", "PatchFailedError", "PreconditionFailedError", "SchemaViolationError",
    "StoreError", "TimeoutError", "TooLargeError", "TransportError", "UnavailableError", "agent",
  ]);
});

test("the package holds what runs and its types, and fetches nothing else", () => {
  const home = join(dir, "node_modules", "bucketd-client");
  assert.deepEqual(readdirSync(home).sort(), ["LICENSE", "README.md", "dist", "node_modules", "package.json"]);
  const { dependencies, bundleDependencies, peerDependencies } = JSON.parse(readFileSync(join(home, "package.json"), "utf8"));
  assert.deepEqual([Object.keys(dependencies), peerDependencies], [bundleDependencies, undefined]);
});

test("the client itself loads no other package; its testing entry point loads those in the package", async () => {
  const told = await run("loaded.mjs", `
    import { createRequire } from "node:module";
    const require = createRequire(import.meta.url);
    const others = () => Object.keys(require.cache).filter((file) => /bucketd-client.node_modules/.test(file)).length;
    require("bucketd-client");
    const client = others();
    require("bucketd-client/testing");
    console.log(JSON.stringify([client, others() > 0]));`);
  assert.deepEqual(told, [0, true]);
});
