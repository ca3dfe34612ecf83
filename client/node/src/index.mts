// One implementation serves import and require: both share the connections, the error classes
// and the one BucketTypes that an augmentation fills.
export * from "./index.js";
