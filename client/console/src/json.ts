/**
 * JSON without loss: numbers keep their digits, objects their order and every key.
 *
 * JSON.parse rounds whole numbers beyond 2⁵³, and a save would then change what nobody edited.
 */

/** A number as it is written. */
export class Num {
  constructor(readonly text: string) {}
}

export type JsonObject = Map<string, Json>;
export type Json = null | boolean | string | Num | Json[] | JsonObject;

/** Where a value stands in a text; `key` is where its name begins, if it has one. */
export interface Place {
  key: number;
  from: number;
  to: number;
}

export class JsonError extends Error {
  constructor(
    message: string,
    readonly at: number,
  ) {
    super(message);
  }
}

const NUMBER = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y;
// eslint-disable-next-line no-control-regex
const STRING = /"(?:[^"\\\u0000-\u001f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*"/y;
const BLANK = /[ \t\r\n]*/y;

class Parser {
  private at = 0;

  constructor(
    private readonly text: string,
    private readonly places?: Map<string, Place>,
  ) {}

  whole(): Json {
    const value = this.value("", 0);
    this.skip();
    if (this.at < this.text.length) throw this.wrong("the text goes on after the value");
    return value;
  }

  private value(pointer: string, key: number): Json {
    this.skip();
    const from = this.at;
    const value = this.any(pointer);
    this.places?.set(pointer, { key: key || from, from, to: this.at });
    return value;
  }

  private any(pointer: string): Json {
    const first = this.text[this.at];
    if (first === "{") return this.object(pointer);
    if (first === "[") return this.array(pointer);
    if (first === '"') return this.string();
    for (const [word, value] of WORDS) {
      if (this.text.startsWith(word, this.at)) {
        this.at += word.length;
        return value;
      }
    }
    const number = this.match(NUMBER);
    if (number === null) throw this.wrong("a value is missing here");
    return new Num(number);
  }

  private object(pointer: string): JsonObject {
    const found: JsonObject = new Map();
    this.at++;
    for (let more = !this.ends("}"); more; more = this.goesOn("}")) {
      this.skip();
      const key = this.at;
      if (this.text[key] !== '"') throw this.wrong("a key in quotes is missing here");
      const name = this.string();
      this.skip();
      if (this.text[this.at] !== ":") throw this.wrong("a colon is missing here");
      this.at++;
      found.set(name, this.value(this.places ? child(pointer, name) : "", key));
    }
    return found;
  }

  private array(pointer: string): Json[] {
    const found: Json[] = [];
    this.at++;
    for (let more = !this.ends("]"); more; more = this.goesOn("]")) {
      found.push(this.value(this.places ? child(pointer, String(found.length)) : "", 0));
    }
    return found;
  }

  private ends(close: string): boolean {
    this.skip();
    if (this.text[this.at] !== close) return false;
    this.at++;
    return true;
  }

  private goesOn(close: string): boolean {
    if (this.ends(close)) return false;
    if (this.text[this.at] !== ",") throw this.wrong(`a comma or ${close} is missing here`);
    this.at++;
    return true;
  }

  private string(): string {
    const text = this.match(STRING);
    if (text === null) throw this.wrong("this string is not complete, or has a bad escape");
    return JSON.parse(text) as string;
  }

  private match(pattern: RegExp): string | null {
    pattern.lastIndex = this.at;
    const found = pattern.exec(this.text);
    if (found === null) return null;
    this.at = pattern.lastIndex;
    return found[0];
  }

  private skip(): void {
    this.match(BLANK);
  }

  private wrong(message: string): JsonError {
    return new JsonError(message, Math.min(this.at, this.text.length));
  }
}

const WORDS: [string, Json][] = [
  ["true", true],
  ["false", false],
  ["null", null],
];

/** Return the value of a JSON text. Throw JsonError. */
export function parse(text: string): Json {
  return new Parser(text).whole();
}

/** Return the value of a JSON text, and where each value stands, by JSON Pointer. */
export function parseWithPlaces(text: string): { value: Json; places: Map<string, Place> } {
  const places = new Map<string, Place>();
  return { value: new Parser(text, places).whole(), places };
}

/** Return the JSON text of a value, indented by `indent` blanks; 0 puts it on one line. */
export function print(value: Json, indent = 2, margin = ""): string {
  if (value instanceof Num) return value.text;
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  const inner = margin + " ".repeat(indent);
  const items = Array.isArray(value)
    ? value.map((item) => print(item, indent, inner))
    : Array.from(value, ([k, v]) => `${JSON.stringify(k)}: ${print(v, indent, inner)}`);
  const [open, close] = Array.isArray(value) ? "[]" : "{}";
  if (items.length === 0) return `${open}${close}`;
  if (indent === 0) return `${open}${items.join(", ")}${close}`;
  return `${open}\n${inner}${items.join(`,\n${inner}`)}\n${margin}${close}`;
}

export function equal(a: Json, b: Json): boolean {
  if (a === b) return true;
  if (a instanceof Num || b instanceof Num) {
    return a instanceof Num && b instanceof Num && a.text === b.text;
  }
  if (Array.isArray(a) && Array.isArray(b)) {
    return a.length === b.length && a.every((item, i) => equal(item, b[i] as Json));
  }
  if (a instanceof Map && b instanceof Map) {
    if (a.size !== b.size) return false;
    for (const [key, value] of a) {
      if (!b.has(key) || !equal(value, b.get(key) as Json)) return false;
    }
    return true;
  }
  return false;
}

/** Report whether a value is the mask in place of a secret. */
export function isMask(value: Json): boolean {
  return value instanceof Map && value.size === 1 && value.get("$masked") === true;
}

export function isObject(value: Json | undefined): value is JsonObject {
  return value instanceof Map;
}

/** Return the JSON Pointer of a member or item below `pointer`. */
export function child(pointer: string, name: string): string {
  return `${pointer}/${name.replaceAll("~", "~0").replaceAll("/", "~1")}`;
}

/** Return the names of a JSON Pointer. */
export function names(pointer: string): string[] {
  const parts = pointer.split("/").slice(1);
  return parts.map((part) => part.replaceAll("~1", "/").replaceAll("~0", "~"));
}

/** Return the value at a JSON Pointer, undefined if there is none. */
export function valueAt(value: Json, pointer: string): Json | undefined {
  let found: Json | undefined = value;
  for (const name of names(pointer)) {
    if (Array.isArray(found)) found = found[Number(name)];
    else if (isObject(found)) found = found.get(name);
    else return undefined;
  }
  return found;
}
