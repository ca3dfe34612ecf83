import { InvalidRequestError } from "../errors.js";

const MOST_ROWS = 1000;

/** How many rows a page has. */
export function limitOf(text: string | undefined): number {
  if (text === undefined) return MOST_ROWS;
  if (/^[0-9]{1,9}$/.test(text) && Number(text) >= 1 && Number(text) <= MOST_ROWS) return Number(text);
  throw new InvalidRequestError(`cannot use limit='${text}': it must be 1 to ${MOST_ROWS}`);
}

/** Behind which name it begins. */
export function cursorOf(text: string | undefined): string {
  if (text === undefined) return "";
  const name = Buffer.from(text, "hex").toString();
  if (name.startsWith("[")) return name;
  throw new InvalidRequestError("cannot use the cursor: it is none of this API's");
}
