import { InvalidRequestError } from "./errors.js";

type Place = { holder: object; key: string };

/**
 * Return `value` as JSON. Refuse what JSON.stringify would silently change: NaN and `undefined` in
 * an array become null, a Map or a Promise becomes {}. `undefined` in an object is left out.
 */
export function encode(value: unknown, verb: string): string {
  const places = new Map<object, Place>();
  function check(this: any, key: string, json: unknown): unknown {
    const cause = refusal(this, key, json);
    if (cause) throw new Refused(cause, pointer(places, this, key));
    if (typeof json === "object" && json !== null) places.set(json, { holder: this, key });
    return json;
  }
  try {
    const text: string | undefined = JSON.stringify(value, check);
    if (text === undefined) throw new Refused("undefined is not JSON", "");
    return text;
  } catch (error) {
    throw new InvalidRequestError(`cannot ${verb}: ${reason(error)}`);
  }
}

/** As `encode`, for a value that must be a JSON object. */
export function encodeObject(value: unknown, verb: string): string {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new InvalidRequestError(`cannot ${verb}: the data is ${kind(value)}, not an object`);
  }
  const text = encode(value, verb);
  if (!text.startsWith("{")) {
    throw new InvalidRequestError(`cannot ${verb}: the data is not an object once it is JSON`);
  }
  return text;
}

class Refused extends Error {
  constructor(cause: string, place: string) {
    super(place ? `${cause} at ${place}` : cause);
  }
}

function refusal(holder: any, key: string, json: unknown): string | undefined {
  if (json === null) {
    // Only toJSON turns another value into null, such as an invalid Date.
    return holder[key] === null ? undefined : `${kind(holder[key])} without a JSON form`;
  }
  switch (typeof json) {
    case "number":
      return Number.isFinite(json) ? undefined : `${json} is not JSON`;
    case "object":
      return plain(json as object) ? undefined : `${kind(json)} is not JSON`;
    case "undefined":
      return Array.isArray(holder) ? "undefined in an array is not JSON" : undefined;
    case "bigint":
    case "function":
    case "symbol":
      return `a ${typeof json} is not JSON`;
    default:
      return undefined;
  }
}

function plain(value: object): boolean {
  const tag = Object.prototype.toString.call(value);
  return tag === "[object Object]" || tag === "[object Array]";
}

function kind(value: unknown): string {
  if (value === null || value === undefined) return String(value);
  if (typeof value !== "object") return `a ${typeof value}`;
  return `a value of type ${Object.prototype.toString.call(value).slice(8, -1)}`;
}

function pointer(places: Map<object, Place>, holder: object, key: string): string {
  const place = places.get(holder);
  if (!place) return ""; // the holder that JSON.stringify makes for the whole value
  const escaped = key.replaceAll("~", "~0").replaceAll("/", "~1");
  return `${pointer(places, place.holder, place.key)}/${escaped}`;
}

function reason(error: unknown): string {
  if (error instanceof RangeError) return "the data is nested too deeply";
  if (error instanceof Refused) return error.message;
  const first = (error instanceof Error ? error.message : String(error)).split("\n", 1)[0];
  return first?.includes("circular") ? "the data contains itself (circular)" : `${first}`;
}
