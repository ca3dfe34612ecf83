import { InvalidRequestError } from "../errors.js";

/** Return the name, or refuse it: 1 to 128 characters, no control characters or lone surrogates. */
export function nameFor(name: unknown, what: string): string {
  const wrong = (cause: string) => new InvalidRequestError(`cannot use the ${what} name: ${cause}`);
  if (typeof name !== "string") throw wrong("it must be a string");
  const { length } = [...name];
  if (length < 1 || length > 128) throw wrong(`it has ${length} characters, allowed are 1 to 128`);
  if (/[\p{Cc}\p{Cs}]/u.test(name)) throw wrong("it has a control character or a lone surrogate");
  return name;
}
