import { parse, stringify } from "lossless-json";
import { BucketError } from "../errors.js";

/** JSON as it is kept: integers that JavaScript would round are bigints. */
export type Json = null | boolean | number | bigint | string | Json[] | JsonObject;
export interface JsonObject {
  [key: string]: Json;
}

const [LOWEST, HIGHEST] = [-(2n ** 63n), 2n ** 64n - 1n];

class Unkept extends Error {}

/** Parse UTF-8 JSON; throw `invalid_json` for what could not be kept exactly, and repeat nothing of it. */
export function parseJson(bytes: Uint8Array): Json {
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    const value = parse(text, null, { parseNumber: numberOf, onDuplicateKey: ({ newValue }) => newValue }) as Json;
    // JSON.stringify escapes lone surrogates, and those alone.
    if (/\\ud/i.test(text) && /(?<!\\)(?:\\\\)*\\ud/.test(stringify(value)!)) throw new Unkept("it has a lone surrogate");
    return value;
  } catch (error) {
    const cause = error instanceof Unkept ? error.message : "not valid JSON in UTF-8";
    throw new BucketError(`cannot read the request body: ${cause}`, "invalid_json");
  }
}

/** As `parseJson`, for a JSON object; throw `invalid_json` for other JSON as well. */
export function parseObject(bytes: Uint8Array): JsonObject {
  return asObject(parseJson(bytes));
}

/** Return the value; throw `invalid_json` unless it is an object. */
export function asObject(value: Json): JsonObject {
  if (isObject(value)) return value;
  const cause = `it must be a JSON object such as {"loggedIn": true}, got ${kindOf(value)}`;
  throw new BucketError(`cannot use the request body: ${cause}`, "invalid_json");
}

export function isObject(value: Json | undefined): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Return compact JSON, whose length the daemon counts as the size. */
export function write(value: Json): string {
  return stringify(value)!;
}

export function kindOf(value: Json): string {
  if (value === null) return "null";
  if (Array.isArray(value)) return "an array";
  if (typeof value === "object") return "an object";
  return typeof value === "bigint" ? "a number" : `a ${typeof value}`;
}

function numberOf(digits: string): number | bigint {
  const value = Number(digits);
  if (!Number.isFinite(value)) throw new Unkept("a number is larger than any double; send it as a string");
  // JavaScript writes a double up to 10^21 without an exponent; such a text loses nothing.
  if (!/^-?[0-9]+$/.test(digits) || Number.isSafeInteger(value)) return value;
  const whole = BigInt(digits);
  if (whole >= LOWEST && whole <= HIGHEST) return whole;
  if (String(value) === digits) return value;
  const length = digits.replace("-", "").length;
  throw new Unkept(`an integer of ${length} digits is outside -2^63 … 2^64-1 and would be rounded; send it as a string`);
}
