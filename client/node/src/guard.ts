import { InvalidRequestError } from "./errors.js";
import type { WriteOptions } from "./types.js";

// A line break would end the header; Node's own error for it is a TypeError.
const HEADER = /^[\t\x20-\x7e\x80-\xff]*$/;

/** The headers that let a write pass only onto the state it was meant for. */
export function guard(options: WriteOptions | undefined, verb: string): Record<string, string> {
  if (options === undefined) return {};
  refuseOthers(options, verb);
  const { ifMatch } = options;
  if (ifMatch === undefined) return {};
  if (ifMatch === null) return { "If-None-Match": "*" };
  if (typeof ifMatch === "string" && HEADER.test(ifMatch)) return { "If-Match": ifMatch };
  throw new InvalidRequestError(`cannot ${verb}: ifMatch is no etag; take that of a snapshot`);
}

/** An option that is not known may be a guard, misspelt: to ignore it would write unguarded. */
function refuseOthers(options: object, verb: string): void {
  if (typeof options !== "object" || options === null || Array.isArray(options)) {
    throw new InvalidRequestError(`cannot ${verb}: its options are no object; give { ifMatch: etag }`);
  }
  const other = Object.keys(options).find((name) => name !== "ifMatch");
  if (other === undefined) return;
  throw new InvalidRequestError(`cannot ${verb}: there is no option ${JSON.stringify(other)}; there is ifMatch`);
}

/** Keys, and the options that may stand behind them. */
export function splitOptions(given: readonly unknown[]): [string[], WriteOptions | undefined] {
  const last = given.at(-1);
  const hasOptions = typeof last === "object" && last !== null;
  return [(hasOptions ? given.slice(0, -1) : given) as string[], hasOptions ? last : undefined];
}
