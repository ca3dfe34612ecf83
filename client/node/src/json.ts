import { InvalidRequestError } from "./errors.js";

const LONE_SURROGATE = /\p{Surrogate}/u;

type Place = { holder: object; key: string };

/**
 * Return `value` as JSON. Refuse what JSON.stringify would silently change: NaN and `undefined` in
 * an array become null, a Map or a Promise becomes {}. `undefined` in an object is left out.
 */
export function encode(value: unknown, verb: string): string {
  try {
    const text = stringify(value, refusal);
    if (text === undefined) throw new Refused("undefined is not JSON", "");
    // JSON.stringify escapes a lone surrogate, so only JSON with such an escape is checked again.
    if (text.includes("\\ud")) stringify(value, surrogateRefusal);
    return text;
  } catch (error) {
    throw new InvalidRequestError(`cannot ${verb}: ${reason(error)}`);
  }
}

/** Return `value`, which must be an object, as JSON. */
export function encodeObject(value: unknown, verb: string): string {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new InvalidRequestError(`cannot ${verb}: the data is ${kind(value)}, not an object`);
  }
  const text = encode(value, verb);
  if (!text.startsWith("{")) {
    throw new InvalidRequestError(`cannot ${verb}: the JSON of the data is not an object`);
  }
  return text;
}

class Refused extends Error {
  constructor(cause: string, place: string, advice = "") {
    super((place ? `${cause} at ${place}` : cause) + advice);
  }
}

/** Why a member is refused, and how to fix it. */
type Refusal = readonly [cause: string, advice?: string];

/** JSON.stringify, with a check of each member that may refuse it. */
function stringify(value: unknown, refusalOf: (holder: any, key: string, json: unknown) => Refusal | undefined): string | undefined {
  const places = new Map<object, Place>();
  function check(this: any, key: string, json: unknown): unknown {
    const refused = refusalOf(this, key, json);
    if (refused) throw new Refused(refused[0], pointer(places, this, key), refused[1]);
    if (typeof json === "object" && json !== null) places.set(json, { holder: this, key });
    return json;
  }
  return JSON.stringify(value, check);
}

function refusal(holder: any, key: string, json: unknown): Refusal | undefined {
  if (json === null) {
    // Only toJSON turns another value into null, such as an invalid Date.
    return holder[key] === null ? undefined : [`${kind(holder[key])} without a JSON form`, "; store null instead"];
  }
  switch (typeof json) {
    case "number":
      return Number.isFinite(json) ? undefined : [`${json} is not JSON`, "; store null or a string instead"];
    case "object":
      return plain(json as object) ? undefined : [`${kind(json)} is not JSON`, insteadOf(json as object)];
    case "undefined":
      return Array.isArray(holder) ? ["undefined in an array is not JSON", "; store null instead"] : undefined;
    case "bigint":
      return ["a bigint is not JSON", "; store its toString()"];
    case "function":
    case "symbol":
      return [`a ${typeof json} is not JSON`];
    default:
      return undefined;
  }
}

/** Refuse strings that UTF-8 cannot hold. */
function surrogateRefusal(_holder: unknown, key: string, json: unknown): Refusal | undefined {
  if (LONE_SURROGATE.test(key)) return ["a key has a lone surrogate", "; use a key without it"];
  if (typeof json !== "string" || !LONE_SURROGATE.test(json)) return undefined;
  const advice = "; store JSON.stringify of the string instead, and JSON.parse it after reading";
  return [`${kind(json)} has a lone surrogate`, advice];
}

function plain(value: object): boolean {
  const tag = Object.prototype.toString.call(value);
  return tag === "[object Object]" || tag === "[object Array]";
}

const INSTEAD: Readonly<Record<string, string>> = {
  Map: "store Object.fromEntries(map)",
  Set: "store [...set]",
  Promise: "await it first",
  Error: "store its message",
  RegExp: "store its source",
  ArrayBuffer: 'store Buffer.from(buffer).toString("base64")',
  Uint8Array: 'store Buffer.from(bytes).toString("base64")',
};

/** Return what to store instead of an object, "" where that is not known. */
function insteadOf(value: object): string {
  const advice = INSTEAD[Object.prototype.toString.call(value).slice(8, -1)];
  return advice === undefined ? "" : `; ${advice}`;
}

function kind(value: unknown): string {
  if (value === null || value === undefined) return String(value);
  if (typeof value === "string") return `a string of ${value.length} characters`;
  if (typeof value !== "object") return `a ${typeof value}`;
  return `a value of type ${Object.prototype.toString.call(value).slice(8, -1)}`;
}

function pointer(places: Map<object, Place>, holder: object, key: string): string {
  const place = places.get(holder);
  if (!place) return ""; // the holder that JSON.stringify makes for the whole value
  const printable = key.replace(/\p{Surrogate}/gu, (char) => `\\u${char.charCodeAt(0).toString(16)}`);
  const escaped = printable.replaceAll("~", "~0").replaceAll("/", "~1");
  return `${pointer(places, place.holder, place.key)}/${escaped}`;
}

/** Return the cause of a failed JSON.stringify, without the error's text, which may show a value. */
function reason(error: unknown): string {
  if (error instanceof RangeError) return "the data is nested too deeply";
  if (error instanceof Refused) return error.message;
  if (error instanceof TypeError && /circular|cyclic/.test(error.message)) return "the data contains itself (circular)";
  return `reading the data threw ${nameOfError(error)}`;
}

/** Return the kind of an error, without its text. */
export function nameOfError(error: unknown): string {
  return error instanceof Error ? error.constructor.name : kind(error);
}
