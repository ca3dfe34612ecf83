"""Compare bucketd with the alternatives: the same work for each, side by side in one run."""
