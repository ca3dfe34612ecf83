// What may be sent: nothing is turned into null, {} or a rounded number behind one's back.
import assert from "node:assert/strict";
import { test } from "node:test";
import vm from "node:vm";
import { encode, encodeObject } from "../dist/json.js";

const refused = (value, message) =>
  assert.throws(() => encodeObject(value, "set the bucket"), { code: "invalid_request", message });

test("what JSON can hold is sent as it is", () => {
  const data = {
    "": 0, "a.b": [null, true, -1.5e300, "é\u{1F600}"], $x: {}, constructor: 1, ["__proto__"]: { a: 1 },
  };
  assert.equal(encodeObject(data, "set"), JSON.stringify(data));
  assert.match(encodeObject(data, "set"), /"__proto__":\{"a":1\}/);
});

test("undefined in an object is left out", () => {
  assert.equal(encodeObject({ a: undefined, b: { c: undefined } }, "set"), '{"b":{}}');
});

test("dates, class instances, other realms and objects without a prototype are data", () => {
  class Point {
    x = 1;
  }
  const data = { at: new Date(0), point: new Point(), far: vm.runInNewContext("({ a: [1] })") };
  assert.equal(
    encodeObject(Object.assign(Object.create(null), data), "set"),
    '{"at":"1970-01-01T00:00:00.000Z","point":{"x":1},"far":{"a":[1]}}',
  );
});

const refusals = [
  ["NaN", NaN, /^cannot set the bucket: NaN is not JSON at \/a\/0\/b~1c; store null or a string instead$/],
  ["Infinity", 1e400, /Infinity is not JSON/],
  ["-Infinity", -Infinity, /-Infinity is not JSON/],
  ["a BigInt", 1n, /a bigint is not JSON/],
  ["a function", () => 1, /a function is not JSON/],
  ["a symbol", Symbol("s"), /a symbol is not JSON/],
  ["undefined in an array", [undefined], /undefined in an array is not JSON at \/a\/0\/b~1c\/0/],
  ["a hole in an array", [, 1], /undefined in an array/],
  ["a Map", new Map(), /type Map is not JSON/],
  ["a Set", new Set(), /type Set is not JSON/],
  ["a promise that was not awaited", Promise.resolve(1), /type Promise is not JSON/],
  ["a RegExp", /x/, /type RegExp is not JSON/],
  ["an Error", new Error("x"), /type Error is not JSON/],
  ["bytes", new Uint8Array(1), /type Uint8Array is not JSON/],
  ["a date that is none", new Date(NaN), /type Date without a JSON form/],
  ["NaN in an object's coat", Object(NaN), /type Number is not JSON/],
];
for (const [name, value, message] of refusals) {
  test(`${name} is refused, and where it stands is told`, () => {
    refused({ a: [{ "b/c": value }] }, message);
    refused({ a: [{ "b/c": value }] }, / at \/a\/0\/b~1c/);
  });
}

test("circular and bottomless data are refused", () => {
  const circular = { a: {} };
  circular.a.b = circular;
  refused(circular, /circular/);
  let deep = {};
  for (let n = 0; n < 200_000; n++) deep = { deep };
  refused(deep, /nested too deeply/);
});

test("the same object twice is no circle", () => {
  const shared = { a: 1 };
  assert.equal(encodeObject({ x: shared, y: [shared] }, "set"), '{"x":{"a":1},"y":[{"a":1}]}');
});

test("what throws while it is read is refused", () => {
  refused({ get a() { throw new Error("a secret"); } }, /^cannot set the bucket: reading the data threw Error$/);
  refused({ toJSON: () => 1 }, /JSON of the data is not an object/);
  refused({ toJSON: () => undefined }, /cannot set the bucket/);
});

test("only an object is a bucket", () => {
  for (const value of [undefined, null, 1, "a", true, [], () => 1]) refused(value, /not an object/);
  assert.equal(encode([], "patch"), "[]");
});
