import { InvalidRequestError } from "./errors.js";
import type { WriteOptions } from "./types.js";

// A line break would end the header.
const HEADER = /^[\t\x20-\x7e\x80-\xff]*$/;

/** Return the headers that make a write conditional on the ETag it was meant for. */
export function preconditionHeaders(options: WriteOptions | undefined, verb: string): Record<string, string> {
  if (options === undefined) return {};
  refuseUnknown(options, verb);
  const { ifMatch } = options;
  if (ifMatch === undefined) return {};
  if (ifMatch === null) return { "If-None-Match": "*" };
  if (typeof ifMatch === "string" && HEADER.test(ifMatch)) return { "If-Match": ifMatch };
  throw new InvalidRequestError(`cannot ${verb}: ifMatch must be the etag of a snapshot`);
}

/** Refuse unknown options: one may be a misspelt precondition, and ignoring it would write unconditionally. */
function refuseUnknown(options: object, verb: string): void {
  if (typeof options !== "object" || options === null || Array.isArray(options)) {
    throw new InvalidRequestError(`cannot ${verb}: its options must be an object such as { ifMatch: etag }`);
  }
  const unknown = Object.keys(options).find((name) => name !== "ifMatch");
  if (unknown === undefined) return;
  throw new InvalidRequestError(`cannot ${verb}: there is no option ${JSON.stringify(unknown)}; there is ifMatch`);
}

/** Split trailing options from the keys before them. */
export function splitOptions(given: readonly unknown[]): [string[], WriteOptions | undefined] {
  const last = given.at(-1);
  const hasOptions = typeof last === "object" && last !== null;
  return [(hasOptions ? given.slice(0, -1) : given) as string[], hasOptions ? last : undefined];
}
