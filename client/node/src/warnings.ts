import { SchemaWarning } from "./schema-warning.js";
import type { Detail } from "./types.js";

const MAX_KNOWN = 1000;
const known = new Set<string>();

/** Emit a warning about what the daemon tolerates in the bucket at `path`, once for each text. */
export function warn(path: string, details: Detail[] | undefined): void {
  const [first, ...others] = details ?? [];
  if (first === undefined) return;
  const more = others.length > 0 ? ` (and ${others.length} more)` : "";
  const message =
    `the bucket violates its schema, as it did before: ${first.path || "the bucket"} ${first.message}${more}; ` +
    "correct it with bucketctl edit, or change the schema";
  const text = `${path}\n${message}`;
  if (known.has(text)) return;
  if (known.size >= MAX_KNOWN) known.clear();
  known.add(text);
  process.emitWarning(new SchemaWarning(message, details!));
}
