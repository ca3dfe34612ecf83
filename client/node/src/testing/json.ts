import { BucketError, InvalidRequestError } from "../errors.js";

/** A number as it is written: a JavaScript number would round large integers and read 1.0 as 1. */
export class Numeral {
  constructor(readonly text: string) {}
}

/** Lossless JSON; an object is a Map, which has no special keys such as `__proto__`. */
export type Json = null | boolean | string | Numeral | Json[] | JsonObject;
export type JsonObject = Map<string, Json>;

export const MAX_DEPTH = 250;
/** Nesting beyond this is refused by the parser, before MAX_DEPTH is checked. */
const MAX_PARSE_DEPTH = 1000;
const LOWEST = -(2n ** 63n);
const HIGHEST = 2n ** 64n - 1n;

class InvalidJson extends Error {}

/** Parse UTF-8 JSON; throw `invalid_json` for what could not be returned exactly. */
export function parse(bytes: Uint8Array): Json {
  try {
    const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
    return new Parser(text).whole();
  } catch (error) {
    const cause = error instanceof InvalidJson ? error.message : "it is not UTF-8";
    throw new BucketError(`cannot read the request body: ${cause}`, "invalid_json");
  }
}

/** As `parse`, for a JSON object; throw `invalid_json` for other JSON as well. */
export function parseObject(bytes: Uint8Array): JsonObject {
  return asObject(parse(bytes));
}

/** As `parse`, for the body of a write; throw `invalid_request` for a mask in it, which stands for a secret. */
export function parseWritten(bytes: Uint8Array): Json {
  const value = parse(bytes);
  const waiting = [value];
  for (let here = waiting.pop(); here !== undefined; here = waiting.pop()) {
    if (here instanceof Map && here.get("$masked") === true) {
      throw new InvalidRequestError(
        "cannot write a mask: it stands for a secret value that was not shown; leave that key out, so that it stays, or send its value",
      );
    }
    // Not spread into the arguments of one call: an array may have more items than a call can take.
    if (here instanceof Map || Array.isArray(here)) for (const inner of here.values()) waiting.push(inner);
  }
  return value;
}

/** Return the value; throw `invalid_json` unless it is an object. */
export function asObject(value: Json): JsonObject {
  if (value instanceof Map) return value;
  const cause = `it must be a JSON object such as {"loggedIn": true}, got ${kindOf(value)}`;
  throw new BucketError(`cannot use the request body: ${cause}`, "invalid_json");
}

class Parser {
  private at = 0;

  constructor(private readonly text: string) {}

  whole(): Json {
    const value = this.value(0);
    if (this.peek() !== undefined) throw this.unexpected();
    return value;
  }

  private value(depth: number): Json {
    if (depth > MAX_PARSE_DEPTH) throw new InvalidJson(`it is nested deeper than ${MAX_DEPTH} levels`);
    const next = this.peek();
    if (next === "{") return this.object(depth);
    if (next === "[") return this.array(depth);
    if (next === '"') return this.string();
    for (const [word, value] of WORDS) {
      if (!this.text.startsWith(word, this.at)) continue;
      this.at += word.length;
      return value;
    }
    return this.number();
  }

  private object(depth: number): JsonObject {
    const members: JsonObject = new Map();
    this.list("}", () => {
      if (this.peek() !== '"') throw this.unexpected();
      const key = this.string();
      this.take(":");
      members.set(key, this.value(depth + 1));
    });
    return members;
  }

  private array(depth: number): Json[] {
    const items: Json[] = [];
    this.list("]", () => items.push(this.value(depth + 1)));
    return items;
  }

  private list(end: string, item: () => void): void {
    this.at += 1;
    if (this.peek() === end) return this.take(end);
    for (;;) {
      item();
      if (this.peek() === end) return this.take(end);
      this.take(",");
    }
  }

  private string(): string {
    let end = this.at + 1;
    while (end < this.text.length && this.text[end] !== '"') end += this.text[end] === "\\" ? 2 : 1;
    const value = this.decoded(this.text.slice(this.at, end + 1));
    if (/\p{Surrogate}/u.test(value)) throw new InvalidJson("it has a lone surrogate");
    this.at = end + 1;
    return value;
  }

  /** Decode a string; the error of JSON.parse would show what stands there. */
  private decoded(literal: string): string {
    try {
      return JSON.parse(literal);
    } catch {
      throw this.unexpected();
    }
  }

  private number(): Numeral {
    NUMBER.lastIndex = this.at;
    const found = NUMBER.exec(this.text);
    if (!found) throw this.unexpected();
    this.at = NUMBER.lastIndex;
    return new Numeral(found[1] === undefined ? integer(found[0]) : float(found[0]));
  }

  private peek(): string | undefined {
    while (" \t\r\n".includes(this.text[this.at] ?? "x")) this.at += 1;
    return this.text[this.at];
  }

  private take(char: string): void {
    if (this.peek() !== char) throw this.unexpected();
    this.at += 1;
  }

  private unexpected(): InvalidJson {
    return new InvalidJson(`not valid JSON (at character ${this.at})`);
  }
}

const WORDS: readonly [string, Json][] = [["null", null], ["true", true], ["false", false]];
const NUMBER = /-?(?:0|[1-9][0-9]*)((?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)|\.[0-9]+)?/y;

function integer(text: string): string {
  const value = text.length <= 40 ? BigInt(text) : HIGHEST + 1n;
  if (value >= LOWEST && value <= HIGHEST) return value.toString();
  // JavaScript writes a double up to 10^21 without an exponent; such a text loses nothing.
  if (String(Number(text)) === text) return float(text);
  const digits = text.replace("-", "").length;
  throw new InvalidJson(`an integer of ${digits} digits is outside -2^63 … 2^64-1 and would be rounded; send it as a string`);
}

function float(text: string): string {
  const value = Number(text);
  if (!Number.isFinite(value)) throw new InvalidJson("a number is larger than any double; send it as a string");
  const written = Object.is(value, -0) ? "-0" : String(value);
  return /^-?[0-9]+$/.test(written) ? `${written}.0` : written;
}

/** Return compact JSON, whose length the daemon counts as the size. */
export function write(value: Json): string {
  if (value instanceof Numeral) return value.text;
  if (Array.isArray(value)) return `[${value.map(write).join(",")}]`;
  if (!(value instanceof Map)) return JSON.stringify(value);
  const members = [...value].map(([key, inner]) => `${JSON.stringify(key)}:${write(inner)}`);
  return `{${members.join(",")}}`;
}

/** Report whether both are the same JSON: 1, 1.0 and true differ, and the order of keys does not count. */
export function equal(one: Json, other: Json): boolean {
  return same(one, other, (a, b) => a.text === b.text);
}

/** As `equal`, but compare numbers by value (RFC 6902, 4.6). */
export function sameValue(one: Json, other: Json): boolean {
  return same(one, other, (a, b) => a.text === b.text || exactly(a) === exactly(b));
}

function same(one: Json, other: Json, numbers: (a: Numeral, b: Numeral) => boolean): boolean {
  if (one instanceof Numeral && other instanceof Numeral) return numbers(one, other);
  if (Array.isArray(one) && Array.isArray(other)) {
    return one.length === other.length && one.every((item, index) => same(item, other[index]!, numbers));
  }
  if (!(one instanceof Map && other instanceof Map)) return one === other;
  return one.size === other.size && [...one].every(([key, value]) => {
    const found = other.get(key);
    return found !== undefined && same(value, found, numbers);
  });
}

function exactly({ text }: Numeral): bigint | number {
  const value = Number(text);
  return Number.isInteger(value) ? BigInt(/[.e]/.test(text) ? value : text) : value;
}

export function clone(value: Json): Json {
  if (Array.isArray(value)) return value.map(clone);
  if (!(value instanceof Map)) return value;
  return new Map([...value].map(([key, inner]) => [key, clone(inner)]));
}

export function isDeeper(value: Json, levels: number): boolean {
  const inner = value instanceof Map ? [...value.values()] : value;
  return Array.isArray(inner) && (levels === 0 || inner.some((each) => isDeeper(each, levels - 1)));
}

export function kindOf(value: Json): string {
  if (value === null) return "null";
  if (value instanceof Numeral) return "a number";
  if (Array.isArray(value)) return "an array";
  if (value instanceof Map) return "an object";
  return typeof value === "string" ? "a string" : "a boolean";
}
