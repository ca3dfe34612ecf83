import type { Detail } from "./types.js";

/**
 * A write was made, and the bucket violates its schema, as it did before: the schema tolerates that
 * (`bucketctl schema set --tolerate`). `process.on("warning", …)` receives it; its name tells it apart.
 */
export class SchemaWarning extends Error {
  override readonly name = "SchemaWarning";

  constructor(
    message: string,
    /** The violations, each with `path`, `message` and `keyword`. */
    readonly details: Detail[],
  ) {
    super(message);
  }
}
