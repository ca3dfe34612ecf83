"""Where buckets are kept: the seam (``base``) and the engines behind it."""
