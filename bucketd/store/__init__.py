"""Where buckets are stored: the interface of a store (``base``), and the engines behind it."""

from .base import BucketInfo, ChangeEvent, Filter, Page, Store, Subscriber

__all__ = ["BucketInfo", "ChangeEvent", "Filter", "Page", "Store", "Subscriber"]
