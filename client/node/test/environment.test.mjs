// Where the context comes from, what is asked of whom, and what happens without one.
import assert from "node:assert/strict";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { pathToFileURL } from "node:url";
import { Bucket, BucketError, NoJobContextError, agent } from "../dist/index.mjs";
import { resolve } from "../dist/context.js";
import { Fake, answer, stored } from "./support/fake.mjs";
import { environment, tempDir } from "./support/temp.mjs";

const { bucket, deviceBucket } = agent.utils;

test("outside a job context nothing is contacted, and the way out is told", async (t) => {
  const fake = await Fake.start(t, () => stored({}));
  environment(t, { BUCKETD_SOCKET: fake.path });
  for (const result of [await bucket.get(), await bucket.set({ a: 1 }), await deviceBucket.get()]) {
    assert.equal(result.success, false);
    assert.equal(result.code, "no_job_context");
    assert.match(result.error, /no job context/);
    assert.match(result.error, /bucketctl run --device DEVICE --job JOB -- COMMAND/);
  }
  await assert.rejects(new Bucket().get(), NoJobContextError);
  assert.equal(fake.connections, 0);
});

test("a device without a job opens the device bucket only", async (t) => {
  const fake = await Fake.start(t, () => answer(200, { success: true, deviceBucket: { a: 1 }, revision: 4 }));
  environment(t, { BUCKETD_SOCKET: fake.path, BUCKETD_DEVICE: "d" });
  assert.match((await bucket.get()).error, /BUCKETD_JOB is not; .*bucketctl run/s);
  assert.deepEqual(await deviceBucket.get(), { success: true, deviceBucket: { a: 1 }, revision: 4 });
  assert.deepEqual(fake.requests.map((r) => r.target), ["/v1/devices/d/bucket"]);
});

test("the environment is read at each call", async (t) => {
  const fake = await Fake.start(t, () => stored({}));
  environment(t, { BUCKETD_SOCKET: fake.path });
  assert.equal((await bucket.get()).success, false);
  process.env.BUCKETD_TOKEN = "one";
  await bucket.get();
  process.env.BUCKETD_TOKEN = "two";
  await bucket.get();
  assert.deepEqual(fake.requests.map((r) => r.headers.authorization), ["Bearer one", "Bearer two"]);
});

test("a token goes before names, and names are sent without a token", async (t) => {
  const fake = await Fake.start(t, () => stored({}));
  environment(t, { BUCKETD_SOCKET: fake.path, BUCKETD_TOKEN: "tok", BUCKETD_DEVICE: "d", BUCKETD_JOB: "j" });
  await bucket.get();
  await new Bucket({ device: "x", job: "y", automation: "a b" }).get("k");
  delete process.env.BUCKETD_TOKEN;
  process.env.BUCKETD_AUTOMATION = "login";
  await bucket.set({});
  assert.deepEqual(
    fake.requests.map((r) => [r.method, r.target, r.headers.authorization]),
    [
      ["GET", "/v1/bucket", "Bearer tok"],
      ["GET", "/v1/devices/x/jobs/y/bucket?automation=a%20b&key=k", undefined],
      ["PATCH", "/v1/devices/d/jobs/j/bucket?automation=login", undefined],
    ],
  );
});

test("a token file is read at each call, and its absence told", async (t) => {
  const fake = await Fake.start(t, () => stored({}));
  const file = join(tempDir(t), "token");
  environment(t, { BUCKETD_SOCKET: fake.path, BUCKETD_TOKEN_FILE: file });
  const missing = await bucket.get();
  assert.equal(missing.code, "no_job_context");
  assert.match(missing.error, /cannot read the token file .*ENOENT/);
  writeFileSync(file, "tok\n");
  assert.equal((await bucket.get()).success, true);
  assert.equal(fake.requests[0].headers.authorization, "Bearer tok");
});

test("a token's text never shows in an error", async (t) => {
  environment(t, { BUCKETD_SOCKET: join(tempDir(t), "none.sock"), BUCKETD_TOKEN: "se cret\n" });
  const broken = await bucket.get();
  assert.equal(broken.code, "no_job_context");
  const absent = await new Bucket({ token: "secret", timeout: 50 }).get().catch((error) => error);
  const shown = [broken.error, absent.message, absent.stack, JSON.stringify(absent)].join();
  assert.doesNotMatch(shown, /se ?cret/);
});

test("the socket: BUCKETD_SOCKET, the user's own if it exists, else the system's", (t) => {
  const dir = tempDir(t);
  environment(t, { XDG_RUNTIME_DIR: dir });
  const socket = () => resolve({ token: "t" }).socket;
  assert.equal(socket(), "/run/bucketd/bucketd.sock");
  mkdirSync(join(dir, "bucketd"));
  writeFileSync(join(dir, "bucketd", "bucketd.sock"), "");
  assert.equal(socket(), `${dir}/bucketd/bucketd.sock`);
  process.env.BUCKETD_SOCKET = "/x.sock";
  assert.equal(socket(), "/x.sock");
  assert.equal(resolve({ token: "t", socket: "/y.sock" }).socket, "/y.sock");
});

test("a socket may be a file: URL, and nothing else that is no text", async (t) => {
  const fake = await Fake.start(t, () => stored({ a: 1 }));
  const url = pathToFileURL(fake.path);
  assert.deepEqual(await new Bucket({ token: "t", socket: url }).get(), { a: 1 });
  for (const socket of [new URL("http://localhost/"), 5, {}, Buffer.from(fake.path)]) {
    await assert.rejects(new Bucket({ token: "t", socket }).get(), { code: "invalid_request", message: /cannot use the socket/ });
  }
});

const names = [
  ["phone-1", "phone-1"],
  ["..", "%2E%2E"],
  [".", "%2E"],
  ["a/../b", "a%2F..%2Fb"],
  ["%2e", "%252e"],
  ["...", "..."],
  ["a b(c)'!*~", "a%20b%28c%29%27%21%2A~"],
  ["\u{1F4F1}", "%F0%9F%93%B1"],
];
for (const [name, encoded] of names) {
  test(`the name ${JSON.stringify(name)} is one path segment`, () => {
    assert.equal(resolve({ device: name, job: name }).path, `/v1/devices/${encoded}/jobs/${encoded}/bucket`);
  });
}

test("contexts that contradict themselves are refused", async () => {
  const wrong = [
    [{ token: "t", device: "d" }, /not both/],
    [{ job: "j" }, /needs a device/],
    [{ automation: "a" }, /needs a device/],
    [{ device: "" }, /string of 1 to 128/],
    [{ device: "d", job: "" }, /string of 1 to 128/],
    [{ device: "\ud800" }, /lone surrogate/],
    [{ token: "t", timeout: 0 }, /timeout/],
    [{ token: "t", timeout: NaN }, /timeout/],
    [{ token: "t", timeout: "100" }, /timeout/],
    [{ token: "t", timeout: Infinity }, /timeout/],
  ];
  for (const [options, message] of wrong) {
    await assert.rejects(new Bucket(options).get(), (error) => {
      assert.ok(error instanceof BucketError);
      assert.equal(error.code, "invalid_request");
      assert.match(error.message, message);
      return true;
    });
  }
});

test("the context of a trusted caller is what it named", async () => {
  assert.deepEqual(await new Bucket({ device: "d", automation: "a" }).context(), {
    device: "d", job: null, automation: "a", expires_at: null,
  });
});

test("remove without a key never removes the bucket", async (t) => {
  const fake = await Fake.start(t, () => stored({}));
  await assert.rejects(new Bucket({ token: "t", socket: fake.path }).remove(...[]), { code: "invalid_request" });
  assert.equal(fake.connections, 0);
});

test("a write with options that are none is refused, not made unguarded", async (t) => {
  const fake = await Fake.start(t, () => stored({}));
  const bucket = new Bucket({ token: "t", socket: fake.path });
  for (const options of [{ ifmatch: "e" }, { if_match: "e" }, "e", ["e"], null, { ifMatch: 5 }, { ifMatch: "a\nb" }]) {
    const refused = { code: "invalid_request", message: /^cannot set the bucket: / };
    await assert.rejects(bucket.set({ a: 1 }, options), refused, JSON.stringify(options));
  }
  await assert.rejects(bucket.remove("a", { ifmatch: "e" }), { message: /no option "ifmatch"; there is ifMatch/ });
  await assert.rejects(bucket.remove({ ifMatch: "e" }), { message: /none is named/ });
  assert.equal(fake.requests.length, 0);
});

test("the etag of a bucket that is not stored guards a write, too", async (t) => {
  const fake = await Fake.start(t, () => answer(200, { success: true, bucket: {}, revision: 0 }));
  const bucket = new Bucket({ token: "t", socket: fake.path });
  const { etag } = await bucket.snapshot();
  await bucket.set({ a: 1 }, { ifMatch: etag });
  assert.equal(fake.requests[1].headers["if-none-match"], "*");
});

test("results never reject, whatever is given", async (t) => {
  const fake = await Fake.start(t, () => stored({}));
  environment(t, { BUCKETD_SOCKET: fake.path, BUCKETD_TOKEN: "t" });
  const circular = {};
  circular.self = circular;
  for (const data of [undefined, null, [], 1n, circular, { a: NaN }, { a: () => 1 }]) {
    const result = await bucket.set(data);
    assert.equal(result.code, "invalid_request", String(result.error));
  }
  assert.equal(fake.requests.length, 0);
});
