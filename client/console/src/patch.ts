/** The JSON Patch (RFC 6902) that leads from one state of a bucket to another. */

import { child, equal, isObject, print, type Json } from "./json.js";

interface Operation {
  op: "add" | "remove" | "replace";
  path: string;
  value?: Json;
}

/**
 * Return the patch as JSON text; "[]" if nothing differs.
 *
 * It names changed places alone, so that masks in unchanged places are not sent.
 */
export function patchText(before: Json, after: Json): string {
  const operations: Operation[] = [];
  collect("", before, after, operations);
  const lines = operations.map(({ op, path, value }) => {
    const rest = value === undefined ? "" : `, "value": ${print(value, 0)}`;
    return `{"op": "${op}", "path": ${JSON.stringify(path)}${rest}}`;
  });
  return `[${lines.join(", ")}]`;
}

function collect(path: string, before: Json, after: Json, into: Operation[]): void {
  if (equal(before, after)) return;
  if (isObject(before) && isObject(after)) {
    for (const key of before.keys()) {
      if (!after.has(key)) into.push({ op: "remove", path: child(path, key) });
    }
    for (const [key, value] of after) {
      const old = before.get(key);
      if (old === undefined) into.push({ op: "add", path: child(path, key), value });
      else collect(child(path, key), old, value, into);
    }
  } else if (Array.isArray(before) && Array.isArray(after)) {
    collectItems(path, before, after, into);
  } else {
    into.push({ op: "replace", path, value: after });
  }
}

function collectItems(path: string, before: Json[], after: Json[], into: Operation[]): void {
  const shorter = Math.min(before.length, after.length);
  let start = 0;
  while (start < shorter && equal(before[start] as Json, after[start] as Json)) start++;
  let tail = 0;
  while (
    tail < shorter - start &&
    equal(before[before.length - 1 - tail] as Json, after[after.length - 1 - tail] as Json)
  ) {
    tail++;
  }
  const [oldEnd, newEnd] = [before.length - tail, after.length - tail];
  const common = Math.min(oldEnd, newEnd);
  for (let i = start; i < common; i++) {
    collect(child(path, String(i)), before[i] as Json, after[i] as Json, into);
  }
  for (let i = oldEnd - 1; i >= common; i--) {
    into.push({ op: "remove", path: child(path, String(i)) });
  }
  for (let i = common; i < newEnd; i++) {
    into.push({ op: "add", path: child(path, String(i)), value: after[i] as Json });
  }
}
