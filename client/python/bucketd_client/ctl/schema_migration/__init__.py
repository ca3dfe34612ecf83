"""``bucketctl schema migrate``: change the buckets of an automation along with its schema."""
