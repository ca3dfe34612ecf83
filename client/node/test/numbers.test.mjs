// Numbers and strings that JavaScript can hold and JSON is written for with care.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Bucket } from "../dist/index.mjs";
import { encodeObject } from "../dist/json.js";
import { startServer } from "../dist/testing/index.mjs";
import { Fake, answer } from "./support/fake.mjs";

async function open(t) {
  const server = await startServer();
  t.after(() => server.close());
  return new Bucket({ token: server.bucket("d", "j").token, socket: server.socket });
}

test("every double that JavaScript writes in digits is kept exactly", async (t) => {
  const bucket = await open(t);
  const numbers = [2 ** 64, 2 ** 65, 1e20, 295147905179352830000, 999999999999999900000, -(2 ** 64), -1e20, 18446744073709553000, 2 ** 53, 1e21, 1e300];
  for (const n of numbers) {
    assert.deepEqual(await bucket.replace({ n }), { n });
    assert.deepEqual(await bucket.get(), { n });
  }
});

test("an integer that would lose digits is refused", async (t) => {
  const bucket = await open(t);
  const { request } = await import("../dist/request.js");
  const { resolve } = await import("../dist/context.js");
  const target = resolve(bucket.options);
  for (const text of ["18446744073709551617", "100000000000000000001", "36893488147419103232", "-9223372036854775809", "1000000000000000000000"]) {
    const put = request(target, { method: "PUT", body: `{"n":${text}}` });
    await assert.rejects(put, { code: "invalid_json", message: /an integer of \d+ digits is outside/ }, text);
  }
  for (const text of ["18446744073709551615", "-9223372036854775808", "100000000000000000000", "1e20"]) {
    await request(target, { method: "PUT", body: `{"n":${text}}` });
  }
});

test("numbers of a response are read as JavaScript reads them", async (t) => {
  const fake = await Fake.start(t, () => answer(200, '{"success":true,"bucket":{"n":100000000000000000000,"m":1e+20},"revision":1}'));
  assert.deepEqual(await new Bucket({ token: "t", socket: fake.path }).get(), { n: 1e20, m: 1e20 });
});

test("a lone surrogate is refused with its place, and what to do", () => {
  const refused = (data, message) => assert.throws(() => encodeObject(data, "set the bucket"), { code: "invalid_request", message });
  const advice = "; store JSON.stringify of the string instead, and JSON.parse it after reading";
  refused({ a: [{ "b/c": "x\ud800y" }] }, `cannot set the bucket: a string of 3 characters has a lone surrogate at /a/0/b~1c${advice}`);
  refused({ a: "\udc00" }, `cannot set the bucket: a string of 1 characters has a lone surrogate at /a${advice}`);
  refused({ a: { "k\udfff": 1 } }, "cannot set the bucket: a key has a lone surrogate at /a/k\\udfff; use a key without it");
  refused({ a: { toJSON: () => "\ud800" } }, /at \/a;/);
  assert.equal(encodeObject({ "\\ud800": "\\ud800 \u{1F600}" }, "set"), '{"\\\\ud800":"\\\\ud800 \u{1F600}"}');
  const value = "x\ud800y";
  const stored = JSON.parse(encodeObject({ value: JSON.stringify(value) }, "set"));
  assert.equal(JSON.parse(stored.value), value);
});
