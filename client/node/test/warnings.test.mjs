// What a schema tolerates: in results of agent, and as a warning of the process from Bucket.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Bucket, agent } from "../dist/index.mjs";
import { Fake, answer } from "./support/fake.mjs";
import { environment } from "./support/temp.mjs";

const WARNINGS = [
  { path: "", message: "must have 'owner'", keyword: "required" },
  { path: "/n", message: "must be a number, got a string of 4 characters", keyword: "type" },
];

/** A daemon that tolerates what stands in each bucket; a read has no warnings. */
const tolerating = (t, warnings = WARNINGS) =>
  Fake.start(t, ({ method, headers }) => {
    const bucket = headers.prefer === undefined ? { bucket: { n: "text" } } : {};
    const told = method === "GET" ? {} : { warnings };
    return answer(200, { success: true, ...bucket, revision: 2, ...told }, { ETag: '"e2"' });
  });

function warned(t) {
  const found = [];
  const listener = (warning) => found.push(warning);
  process.on("warning", listener);
  t.after(() => process.off("warning", listener));
  return found;
}

const tick = () => new Promise((resolve) => setImmediate(resolve));

test("results of agent have the warnings, and the process is not warned", async (t) => {
  const fake = await tolerating(t);
  const found = warned(t);
  environment(t, { BUCKETD_TOKEN: "t", BUCKETD_SOCKET: fake.path });
  assert.deepEqual((await agent.utils.bucket.set({ b: 1 })).warnings, WARNINGS);
  assert.deepEqual((await agent.utils.bucket.set({ b: 1 }, { returning: false })).warnings, WARNINGS);
  assert.equal((await agent.utils.bucket.get()).warnings, undefined);
  await tick();
  assert.deepEqual(found, []);
});

test("Bucket resolves to plain objects, and warns the process once of the same", async (t) => {
  const fake = await tolerating(t);
  const found = warned(t);
  const bucket = new Bucket({ token: "t", socket: fake.path });
  assert.deepEqual(await bucket.set({ b: 1 }), { n: "text" });
  await bucket.replace({ n: "text" });
  await bucket.mergePatch({ b: null });
  await bucket.jsonPatch([{ op: "add", path: "/c", value: 1 }]);
  await bucket.remove("c");
  await bucket.update((now) => void (now.d = 1));
  const result = await bucket.set({ b: 1 }, { returning: false });
  assert.deepEqual(result.warnings, WARNINGS);
  await tick();
  assert.equal(found.length, 1);
  assert.ok(found[0] instanceof Error);
  assert.equal(found[0].name, "SchemaWarning");
  assert.deepEqual(found[0].details, WARNINGS);
  assert.match(found[0].message, /^the bucket violates its schema, as it did before: the bucket must have 'owner' \(and 1 more\); correct it/);
});

test("another violation, or that of another bucket, is another warning", async (t) => {
  const fake = await tolerating(t, [WARNINGS[1]]);
  const found = warned(t);
  for (const job of ["one", "two"]) await new Bucket({ device: "d", job, socket: fake.path }).set({ b: 1 });
  for (const returning of [true, false]) await new Bucket({ device: "d", job: "three", socket: fake.path }).set({}, { returning });
  await tick();
  assert.equal(found.length, 3);
  const valid = await tolerating(t, []);
  await new Bucket({ device: "d", job: "four", socket: valid.path }).set({ b: 1 });
  await tick();
  assert.equal(found.length, 3);
});
