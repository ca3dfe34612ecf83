"""bucketd keeps one durable JSON bucket per (device, job) and serves it over a unix socket."""

__version__ = "0.1.0"
