import { InvalidRequestError } from "../errors.js";

const MAX_ROWS = 1000;

/** Return the number of rows of a page. */
export function limitOf(text: string | undefined): number {
  if (text === undefined) return MAX_ROWS;
  if (/^[0-9]{1,9}$/.test(text) && Number(text) >= 1 && Number(text) <= MAX_ROWS) return Number(text);
  throw new InvalidRequestError(`cannot use the parameter limit: it must be a whole number from 1 to ${MAX_ROWS}`);
}

/** Return the name after which a page begins. */
export function cursorOf(text: string | undefined): string {
  if (text === undefined) return "";
  const name = Buffer.from(text, "hex").toString();
  if (/^\[".*",(?:null|".*")\]$/s.test(name)) return name;
  throw new InvalidRequestError("cannot list from this cursor: use a next_cursor as it was given");
}
