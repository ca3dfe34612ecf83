"""The commands of ``bucketctl``, one module each."""
