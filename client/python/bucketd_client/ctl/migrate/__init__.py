"""``bucketctl migrate``: copy buckets to a daemon on another engine."""
