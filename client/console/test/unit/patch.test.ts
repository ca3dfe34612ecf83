import assert from "node:assert/strict";
import { test } from "node:test";
import { diffLines } from "../../src/diff.js";
import { equal, isObject, names, parse, print, type Json } from "../../src/json.js";
import { patchText } from "../../src/patch.js";

/** Apply a JSON Patch of add, remove and replace, as RFC 6902 says. */
function apply(value: Json, patch: string): Json {
  let root = value;
  for (const operation of parse(patch) as Json[]) {
    if (!isObject(operation)) throw new Error("no operation");
    const path = names(String(operation.get("path")));
    const item = operation.get("value") as Json;
    const op = operation.get("op");
    if (path.length === 0) {
      root = item;
      continue;
    }
    const last = path.pop() as string;
    let at = root;
    for (const name of path) at = (Array.isArray(at) ? at[Number(name)] : (at as Map<string, Json>).get(name)) as Json;
    if (Array.isArray(at)) {
      if (op === "add") at.splice(Number(last), 0, item);
      else if (op === "remove") at.splice(Number(last), 1);
      else at[Number(last)] = item;
    } else if (op === "remove") (at as Map<string, Json>).delete(last);
    else (at as Map<string, Json>).set(last, item);
  }
  return root;
}

let seed = 12345;
const random = (below: number): number => {
  seed = (seed * 1103515245 + 12345) % 2147483648;
  return Math.floor((seed / 2147483648) * below);
};

function anything(depth: number): unknown {
  const kind = random(depth > 0 ? 6 : 4);
  if (kind === 0) return random(3);
  if (kind === 1) return ["a", "b/c", "~"][random(3)];
  if (kind === 2) return random(2) === 0;
  if (kind === 3) return null;
  if (kind === 4) return Array.from({ length: random(5) }, () => anything(depth - 1));
  return Object.fromEntries(Array.from({ length: random(5) }, () => [["a", "b/c", "~", "", "0"][random(5)], anything(depth - 1)]));
}

test("a patch leads from any value to any other", () => {
  for (let round = 0; round < 2000; round++) {
    const [before, after] = [anything(3), anything(3)].map((v) => parse(JSON.stringify({ v }))) as [Json, Json];
    const patch = patchText(before, after);
    assert.ok(equal(apply(parse(print(before)), patch), after), `${print(before, 0)} ${print(after, 0)} ${patch}`);
  }
});

test("a patch names what has changed and nothing else", () => {
  const before = parse('{"token": {"$masked": true}, "n": 9007199254740993, "list": [1, {"$masked": true}, 3]}');
  const after = parse('{"token": {"$masked": true}, "n": 9007199254740995, "list": [1, {"$masked": true}, 3, 4]}');
  const patch = patchText(before, after);
  assert.ok(!patch.includes("masked"));
  assert.equal(
    patch,
    '[{"op": "replace", "path": "/n", "value": 9007199254740995}, {"op": "add", "path": "/list/3", "value": 4}]',
  );
  assert.equal(patchText(before, before), "[]");
});

test("an item taken out of the middle is one removal", () => {
  assert.equal(patchText(parse("[1, 2, 3, 4]"), parse("[1, 3, 4]")), '[{"op": "remove", "path": "/1"}]');
});

test("the difference of two texts gives both back", () => {
  for (let round = 0; round < 300; round++) {
    const [a, b] = [anything(3), anything(3)].map((v) => JSON.stringify({ v }, null, 1)) as [string, string];
    const lines = diffLines(a, b);
    const removed = lines.filter(({ kind }) => kind === "removed").length;
    const added = lines.filter(({ kind }) => kind === "added").length;
    assert.equal(b.split("\n").length - a.split("\n").length, added - removed);
    if (a === b) assert.deepEqual(lines, []);
  }
});

test("unchanged lines away from a change are left out", () => {
  const before = Array.from({ length: 20 }, (_, at) => `line ${at}`);
  const after = before.slice();
  after[10] = "changed";
  assert.deepEqual(
    diffLines(before.join("\n"), after.join("\n")).map(({ kind }) => kind),
    ["skipped", "same", "same", "same", "removed", "added", "same", "same", "same", "skipped"],
  );
});

test("two long texts take no time", () => {
  const long = (word: string): string => Array.from({ length: 30_000 }, (_, at) => `${word} ${at}`).join("\n");
  const began = performance.now();
  assert.equal(diffLines(long("a"), long("b")).length, 60_000);
  assert.ok(performance.now() - began < 2000);
});
