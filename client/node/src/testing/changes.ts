import { BucketError, InvalidRequestError } from "../errors.js";
import { clone, equal, type Json, type JsonObject, kindOf, sameValue, write } from "./json.js";

/** A function from a bucket, which it may modify, to the next one. */
export type Change = (bucket: JsonObject) => JsonObject;

export const merge = (data: JsonObject): Change => (bucket) => new Map([...bucket, ...data]);

export const replace = (data: JsonObject): Change => () => data;

export const remove = (keys: readonly string[]): Change => (bucket) =>
  new Map([...bucket].filter(([key]) => !keys.includes(key)));

/** RFC 7396. */
export const mergePatch = (patch: JsonObject): Change => (bucket) => merged(bucket, patch) as JsonObject;

function merged(target: Json | undefined, patch: Json): Json {
  if (!(patch instanceof Map)) return patch;
  const result: JsonObject = new Map(target instanceof Map ? target : []);
  for (const [key, value] of patch) {
    if (value === null) result.delete(key);
    else result.set(key, merged(result.get(key), value));
  }
  return result;
}

/** Return what changed between two states of a bucket. */
export function diff(before: JsonObject, after: JsonObject): { set: JsonObject; removed: string[] } {
  const changed = [...after].filter(([name, value]) => {
    const was = before.get(name);
    return was === undefined || !equal(was, value);
  });
  return { set: new Map(changed), removed: [...before.keys()].filter((name) => !after.has(name)) };
}

interface Operation {
  readonly op: string;
  readonly path: string;
  readonly from: string;
  readonly value: Json;
}

const NEEDS: Readonly<Record<string, "value" | "from" | null>> = {
  add: "value", replace: "value", test: "value", remove: null, move: "from", copy: "from",
};
const POINTER = /^(?:\/(?:[^~/]|~[01])*)*$/;

class PathNotFound extends Error {}

/** Return a JSON Patch (RFC 6902) as a change; refuse a malformed one now, and throw `patch_failed` when it does not apply. */
export function jsonPatch(patch: Json, maxBytes: number): Change {
  if (!Array.isArray(patch)) {
    throw new InvalidRequestError("cannot read the JSON Patch: it must be an array of operations");
  }
  const operations = patch.map(checked);
  return (bucket) => patched(bucket, operations, maxBytes);
}

function checked(operation: Json, index: number): Operation {
  const wrong = (cause: string) =>
    new InvalidRequestError(`cannot read the JSON Patch: operation ${index}: ${cause}`);
  const op = operation instanceof Map ? operation.get("op") : undefined;
  if (!(operation instanceof Map) || typeof op !== "string" || !Object.hasOwn(NEEDS, op)) {
    throw wrong(`"op" must be one of ${Object.keys(NEEDS).join(", ")}`);
  }
  const needed = NEEDS[op];
  if (needed && !operation.has(needed)) throw wrong(`"${op}" needs "${needed}"`);
  for (const member of needed === "from" ? ["path", "from"] : ["path"]) {
    const pointer = operation.get(member);
    if (typeof pointer !== "string" || !POINTER.test(pointer)) {
      throw wrong(`"${member}" must be a JSON Pointer such as "/loggedIn"`);
    }
  }
  return Object.fromEntries(operation) as unknown as Operation;
}

function patched(bucket: JsonObject, operations: readonly Operation[], maxBytes: number): JsonObject {
  let document: Json = bucket;
  let copied = 0;
  operations.forEach((operation, index) => {
    try {
      if (operation.op === "copy") copied += Buffer.byteLength(write(at(document, parts(operation.from))));
      if (copied > maxBytes) throw tooMuch(index, maxBytes);
      document = applied(document, operation);
    } catch (error) {
      throw error instanceof PathNotFound ? failed(index, operation, error) : error;
    }
  });
  if ((document as Json) instanceof Map) return document;
  const cause = `the result would be ${kindOf(document)}, and a bucket is a JSON object`;
  throw new BucketError(`cannot apply the JSON Patch: ${cause}`, "patch_failed");
}

function tooMuch(index: number, maxBytes: number): BucketError {
  const cause = `its copies alone make over ${maxBytes} bytes`;
  return new BucketError(`cannot apply the JSON Patch: operation ${index}: ${cause}`, "too_large");
}

function failed(index: number, { op, path }: Operation, error: PathNotFound): BucketError {
  const cause = error.message || "the bucket has no such path";
  const where = `operation ${index} ("${op}" at "${path}")`;
  return new BucketError(`cannot apply the JSON Patch: ${where}: ${cause}; nothing was changed`, "patch_failed");
}

function applied(document: Json, { op, path: pointer, from, value }: Operation): Json {
  const path = parts(pointer);
  if (op === "add") return put(document, path, value, true);
  if (op === "remove") return without(document, path);
  if (op === "copy") return put(document, path, at(document, parts(from)), true);
  if (op === "move") return moved(document, parts(from), path);
  const found = at(document, path);
  if (op === "replace") return put(document, path, value, false);
  if (!sameValue(found, value)) throw new PathNotFound("the value there differs");
  return document;
}

function moved(document: Json, from: string[], path: string[]): Json {
  const value = at(document, from);
  const inside = from.every((part, index) => part === path[index]);
  if (inside && from.length === path.length) return document;
  if (inside) throw new PathNotFound("a value cannot be moved into itself");
  return put(without(document, from), path, value, true);
}

function parts(pointer: string): string[] {
  return pointer.split("/").slice(1).map((part) => part.replaceAll("~1", "/").replaceAll("~0", "~"));
}

function at(document: Json, path: readonly string[]): Json {
  return path.reduce<Json>((holder, part) => {
    const found = holder instanceof Map ? holder.get(part) : list(holder)[indexOf(part)];
    if (found === undefined) throw new PathNotFound();
    return found;
  }, document);
}

function list(holder: Json): Json[] {
  if (!Array.isArray(holder)) throw new PathNotFound();
  return holder;
}

function indexOf(part: string): number {
  if (!/^(?:0|[1-9][0-9]*)$/.test(part)) throw new PathNotFound();
  return Number(part);
}

function put(document: Json, path: readonly string[], value: Json, insert: boolean): Json {
  const last = path.at(-1);
  if (last === undefined) return clone(value);
  const holder = at(document, path.slice(0, -1));
  if (holder instanceof Map) {
    holder.set(last, clone(value));
    return document;
  }
  const items = list(holder);
  const index = insert && last === "-" ? items.length : indexOf(last);
  if (index > items.length) throw new PathNotFound();
  items.splice(index, insert ? 0 : 1, clone(value));
  return document;
}

function without(document: Json, path: readonly string[]): Json {
  const last = path.at(-1);
  if (last === undefined) throw new PathNotFound("the whole bucket cannot be removed so");
  at(document, path);
  const holder = at(document, path.slice(0, -1));
  if (holder instanceof Map) holder.delete(last);
  else list(holder).splice(indexOf(last), 1);
  return document;
}
