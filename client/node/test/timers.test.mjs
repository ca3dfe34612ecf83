// Under a test's fake timers and with a clock that stands still, calls end as they do without.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { join } from "node:path";
import { test } from "node:test";
import { promisify } from "node:util";
import { Fake, answer, stored } from "./support/fake.mjs";
import { tempDir } from "./support/temp.mjs";

const url = (path) => JSON.stringify(new URL(path, import.meta.url).href);

/** Run a program with the client in a process of its own: what it fakes must not reach this one. */
async function run(body, socket) {
  const program = `
    import { mock } from "node:test";
    import { Bucket } from ${url("../dist/index.mjs")};
    import { useBucketd } from ${url("../dist/testing/index.mjs")};
    const bucket = new Bucket({ token: "t", socket: process.env.SOCKET, timeout: 500 });
    ${body}
    process.exit();`;
  const env = { ...process.env, SOCKET: socket };
  const { stdout } = await promisify(execFile)(process.execPath, ["--input-type=module", "-e", program], { env, timeout: 20_000 });
  return stdout.trim();
}

const FAKED = {
  "node:test": `
    const apis = ["setTimeout", "setInterval", "setImmediate"];
    try {
      mock.timers.enable({ apis: [...apis, "Date"] });
    } catch {
      mock.timers.enable(apis); // as Node 18 has it
    }`,
  // As sinon and vitest do it: on the global object, with a clock that nobody advances.
  "sinon and vitest": `
    for (const name of ["setTimeout", "setInterval", "setImmediate", "clearTimeout", "clearImmediate", "queueMicrotask"]) {
      globalThis[name] = () => ({ unref() {}, ref() {}, hasRef: () => true });
    }
    Object.defineProperty(performance, "now", { value: () => 0 });
    Date.now = () => 0;`,
};

for (const [name, fake] of Object.entries(FAKED)) {
  test(`calls, a restart, updates and the testing server under the fake timers of ${name}`, async (t) => {
    let calls = 0;
    const busy = answer(503, { success: false, error: "busy", code: "overloaded" }, { "Retry-After": "0" });
    const server = await Fake.start(t, () => (++calls === 1 ? busy : stored({ a: 1 })));
    const said = await run(`${fake}
      console.log(JSON.stringify([await bucket.set({ a: 1 }), await bucket.get(), await bucket.update((b) => b)]));`, server.path);
    assert.equal(said, '[{"a":1},{"a":1},{"a":1}]');
    const served = await run(`${fake}
      const clean = [];
      const { server, bucket: seen } = await useBucketd({ after: (each) => clean.push(each) });
      const used = new Bucket();
      await used.set({ n: 1 });
      Date.now = () => 4102444800000; // in 2100: no token has ended by it
      await used.set({ n: 2 });
      for await (const change of used.watch({ snapshot: true })) {
        console.log(JSON.stringify(change.set));
        break;
      }
      await server.stop();
      const waiting = used.get();
      await server.start();
      console.log(JSON.stringify(await waiting));
      console.log(await used.hold(async (held) => {
        const queued = used.hold({ wait: 20 }, () => "queued");
        const refused = await used.hold({ wait: 0.1 }).catch(({ code }) => code);
        await server.stop();
        const during = held.set({ n: 3 });
        await server.start();
        console.log(refused, (await during).n);
        return { queued };
      }).then(({ queued }) => queued));`, "");
    assert.equal(served, '{"n":2}\n{"n":2}\nheld 3\nqueued');
  });
}

for (const [name, fake] of Object.entries({ ...FAKED, "a frozen clock": "Date.now = () => 1e12;" })) {
  test(`without a daemon, and with one that says nothing, a call ends: ${name}`, async (t) => {
    const said = await run(`${fake}
      const error = await bucket.set({ a: 1 }).catch((error) => error);
      const [first, second] = await Promise.allSettled([bucket.get(), bucket.get()]);
      console.log(error.code, first.reason.code, second.reason.code);`, join(tempDir(t), "none.sock"));
    assert.match(said, /^daemon_unreachable daemon_unreachable (daemon_unreachable|timeout)$/);
    const mute = await Fake.start(t, () => undefined);
    assert.equal(await run(`${fake}
      console.log((await bucket.set({ a: 1 }).catch((error) => error)).code);`, mute.path), "timeout");
  });
}
