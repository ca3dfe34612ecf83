import { isDeepStrictEqual } from "node:util";
import { applyPatch, type Operation } from "rfc6902";
import { BucketError, InvalidRequestError } from "../errors.js";
import { isObject, type Json, type JsonObject, kindOf } from "./json.js";

/** A function from a bucket, which it may modify, to the next one. */
export type Change = (bucket: JsonObject) => JsonObject;

export const merge = (data: JsonObject): Change => (bucket) => ({ ...bucket, ...data });

export const replace = (data: JsonObject): Change => () => data;

export const remove = (keys: readonly string[]): Change => (bucket) =>
  Object.fromEntries(Object.entries(bucket).filter(([key]) => !keys.includes(key)));

/** RFC 7396. */
export const mergePatch = (patch: JsonObject): Change => (bucket) => merged(bucket, patch) as JsonObject;

function merged(target: Json | undefined, patch: Json): Json {
  if (!isObject(patch)) return patch;
  const result = new Map(isObject(target) ? Object.entries(target) : []);
  for (const [key, value] of Object.entries(patch)) {
    if (value === null) result.delete(key);
    else result.set(key, merged(result.get(key), value));
  }
  return Object.fromEntries(result);
}

/** Return what changed between two states of a bucket. */
export function diff(before: JsonObject, after: JsonObject): { set: JsonObject; removed: string[] } {
  const changed = Object.entries(after).filter(([key, value]) => !isDeepStrictEqual(before[key], value));
  return { set: Object.fromEntries(changed), removed: Object.keys(before).filter((key) => !Object.hasOwn(after, key)) };
}

const POINTER = /^(?:\/(?:[^~/]|~[01])*)*$/;

/** Return a JSON Patch (RFC 6902) as a change; refuse a malformed one now, and throw `patch_failed` when it does not apply. */
export function jsonPatch(patch: Json): Change {
  if (!Array.isArray(patch)) {
    throw new InvalidRequestError("cannot read the JSON Patch: it must be an array of operations");
  }
  const operations = patch.map(located);
  return (bucket) => {
    const document = { bucket: bucket as Json };
    applyPatch(document, operations).forEach((error, index) => {
      if (error !== null) throw refused(error, index);
    });
    if (isObject(document.bucket)) return document.bucket;
    const cause = `the result would be ${kindOf(document.bucket)}, and a bucket is a JSON object`;
    throw new BucketError(`cannot apply the JSON Patch: ${cause}`, "patch_failed");
  };
}

/** Return the operation upon a document that has the bucket as a member, so that it can be replaced whole. */
function located(operation: Json, index: number): Operation {
  const [path, from] = isObject(operation) ? [operation.path, operation.from ?? ""] : [];
  if (!isObject(operation) || !isPointer(path) || !isPointer(from)) {
    throw new InvalidRequestError(
      `cannot read the JSON Patch: operation ${index}: "path" and "from" must be JSON Pointers such as "/loggedIn"`,
    );
  }
  const origin = Object.hasOwn(operation, "from") ? { from: `/bucket${from}` } : {};
  return { ...operation, path: `/bucket${path}`, ...origin } as unknown as Operation;
}

function isPointer(value: Json | undefined): value is string {
  return typeof value === "string" && POINTER.test(value);
}

/** Return the refusal for an error of the library, whose text may show a value. */
function refused({ name }: Error, index: number): BucketError {
  if (name === "InvalidOperationError") {
    return new InvalidRequestError(`cannot read the JSON Patch: operation ${index}: "op" is none, or a member is missing`);
  }
  const cause = name === "TestError" ? "the value there differs" : "the bucket has no such path";
  return new BucketError(`cannot apply the JSON Patch: operation ${index}: ${cause}; nothing was changed`, "patch_failed");
}
