"""The nouns, and pure functions on them: buckets, changes, preconditions, strict JSON."""
