import assert from "node:assert/strict";
import { test } from "node:test";
import {
  child,
  equal,
  isMask,
  JsonError,
  names,
  Num,
  parse,
  parseWithPlaces,
  print,
  valueAt,
} from "../../src/json.js";

const EXACT = [
  "9007199254740993",
  "-9223372036854775808",
  "18446744073709551615",
  "1.0",
  "1e2",
  "0.1",
  '{"2": 1, "1": 2, "__proto__": 3, "": 4}',
  '["\\u2028", "😀", "\\u0000"]',
  "[]",
  "{}",
  "null",
];

for (const text of EXACT) {
  test(`${text} stays as it is`, () => {
    assert.equal(print(parse(text), 0).replace("\u2028", "\\u2028"), text);
  });
}

test("the values are those of JSON.parse", () => {
  const text = '{"a": [1, -2.5e3, true, false, null, "x\\n\\"y\\u00e9"], "b": {"c": {}}}';
  assert.deepEqual(JSON.parse(print(parse(text))), JSON.parse(text));
  assert.equal(print(parse(text)), JSON.stringify(JSON.parse(text), null, 2).replace("-2500", "-2.5e3"));
});

test("of keys that come twice the last one counts, as in JSON.parse", () => {
  assert.equal(print(parse('{"a": 1, "a": 2}'), 0), '{"a": 2}');
});

for (const text of ["", "{", "[1,]", "{a: 1}", "01", "1.", "+1", "'a'", '"\t"', '{"a" 1}', "[1] x", "nul", '"\\x"', "NaN"]) {
  test(`${JSON.stringify(text)} is no JSON, for both parsers`, () => {
    assert.throws(() => JSON.parse(text));
    assert.throws(() => parse(text), JsonError);
  });
}

test("an error says where it is", () => {
  try {
    parse('{"a": 1, b}');
    assert.fail();
  } catch (problem) {
    assert.ok(problem instanceof JsonError);
    assert.equal(problem.at, 9);
  }
});

test("each value has its place", () => {
  const text = '{"a/b": [1, {"~": "x"}]}';
  const { places } = parseWithPlaces(text);
  const at = (pointer: string): string => {
    const place = places.get(pointer);
    assert.ok(place, pointer);
    return text.slice(place.from, place.to);
  };
  assert.equal(at(""), text);
  assert.equal(at("/a~1b"), '[1, {"~": "x"}]');
  assert.equal(at("/a~1b/0"), "1");
  assert.equal(at("/a~1b/1/~0"), '"x"');
});

test("pointers lead to values and back", () => {
  const value = parse('{"a/b": {"~1": [5]}}');
  const pointer = child(child(child("", "a/b"), "~1"), "0");
  assert.equal(pointer, "/a~1b/~01/0");
  assert.deepEqual(names(pointer), ["a/b", "~1", "0"]);
  assert.deepEqual(valueAt(value, pointer), new Num("5"));
  assert.equal(valueAt(value, "/x/y"), undefined);
});

test("equality is of content, whatever the order of keys", () => {
  assert.ok(equal(parse('{"a": 1, "b": [2]}'), parse('{"b": [2], "a": 1}')));
  for (const [a, b] of [["1", "1.0"], ["{}", "[]"], ["[1]", "[1, 2]"], ['{"a": 1}', '{"b": 1}'], ["null", "{}"]]) {
    assert.ok(!equal(parse(a as string), parse(b as string)), `${a} ${b}`);
  }
});

test("only the mask itself is a mask", () => {
  assert.ok(isMask(parse('{"$masked": true}')));
  for (const text of ['{"$masked": false}', '{"$masked": true, "a": 1}', "true", "[]"]) {
    assert.ok(!isMask(parse(text)), text);
  }
});
