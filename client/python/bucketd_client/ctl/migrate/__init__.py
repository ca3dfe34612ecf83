"""``bucketctl migrate``: buckets moved to a daemon on another engine."""
