"""The same work done by bucketd and by what users would pick instead, side by side in one run."""
