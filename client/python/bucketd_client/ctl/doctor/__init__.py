"""``bucketctl doctor``: its checks and its report."""
