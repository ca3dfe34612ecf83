import { InvalidRequestError } from "./errors.js";
import type { MinimalWriteOptions, Precondition, ReadOptions, WriteOptions } from "./types.js";

export type AnyWriteOptions = WriteOptions | MinimalWriteOptions;

// A line break would end the header.
const HEADER = /^[\t\x20-\x7e\x80-\xff]*$/;

/** Return the headers of a write's precondition. */
export function preconditionHeaders(options: Precondition | undefined, verb: string): Record<string, string> {
  if (options === undefined) return {};
  refuseUnknown(options, verb, ["ifMatch"]);
  return ifMatchHeaders(options, verb);
}

/** Return the headers of a write: its precondition, and whether the response may omit the bucket. */
export function writeHeaders(options: AnyWriteOptions | undefined, verb: string): Record<string, string> {
  if (options === undefined) return {};
  refuseUnknown(options, verb, ["ifMatch", "returning"]);
  const { returning } = options;
  if (returning !== undefined && typeof returning !== "boolean") {
    throw new InvalidRequestError(`cannot ${verb}: returning must be true or false`);
  }
  const prefer: Record<string, string> = returning === false ? { Prefer: "return=minimal" } : {};
  return { ...ifMatchHeaders(options, verb), ...prefer };
}

/** Return the query of a read: whether defaults complete the bucket. */
export function defaultsQuery(options: ReadOptions | undefined, verb: string): string[] {
  if (options === undefined) return [];
  refuseUnknown(options, verb, ["defaults"], "{ defaults: true }");
  const { defaults } = options;
  if (defaults !== undefined && typeof defaults !== "boolean") {
    throw new InvalidRequestError(`cannot ${verb}: defaults must be true or false`);
  }
  return defaults ? ["defaults=true"] : [];
}

function ifMatchHeaders({ ifMatch }: Precondition, verb: string): Record<string, string> {
  if (ifMatch === undefined) return {};
  if (ifMatch === null) return { "If-None-Match": "*" };
  if (typeof ifMatch === "string" && HEADER.test(ifMatch)) return { "If-Match": ifMatch };
  throw new InvalidRequestError(`cannot ${verb}: ifMatch must be the etag of a snapshot`);
}

/** Refuse unknown options: one may be a misspelt precondition, and ignoring it would write unconditionally. */
export function refuseUnknown(options: object, verb: string, known: readonly string[], example = "{ ifMatch: etag }"): void {
  if (typeof options !== "object" || options === null || Array.isArray(options)) {
    throw new InvalidRequestError(`cannot ${verb}: its options must be an object such as ${example}`);
  }
  const unknown = Object.keys(options).find((name) => !known.includes(name));
  if (unknown === undefined) return;
  throw new InvalidRequestError(`cannot ${verb}: there is no option ${JSON.stringify(unknown)}; there is ${known.join(", ")}`);
}

/** Split trailing options from the keys before them. */
export function splitOptions<Options extends object>(given: readonly unknown[]): [string[], Options | undefined] {
  const last = given.at(-1);
  const hasOptions = typeof last === "object" && last !== null;
  return [(hasOptions ? given.slice(0, -1) : given) as string[], hasOptions ? (last as Options) : undefined];
}
