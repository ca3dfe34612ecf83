"""The engine of a fleet: buckets in etcd, changed by compare-and-swap."""
