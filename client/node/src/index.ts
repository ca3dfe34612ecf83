// `export *` throughout: an augmentation of "bucketd-client" merges only with what is
// exported that way, not with names that are re-exported one by one.
export * from "./types.js";
export * from "./errors.js";
export * from "./agent.js";
export * from "./bucket.js";
export type { ErrorCode } from "./codes.js";
export type { SchemaWarning } from "./schema-warning.js";
