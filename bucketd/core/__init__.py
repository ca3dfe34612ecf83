"""The rules of buckets, contexts, schemas and events; it knows neither HTTP nor disk."""
