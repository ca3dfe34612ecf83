"""Where buckets are stored: the interface of a store (``base``), and the engines behind it."""

from .base import BucketInfo, ChangeEvent, Filter, HoldStore, Page, Store, Subscriber
from .holds import Hold, HoldQueue, Owner

__all__ = [
    "BucketInfo",
    "ChangeEvent",
    "Filter",
    "Hold",
    "HoldQueue",
    "HoldStore",
    "Owner",
    "Page",
    "Store",
    "Subscriber",
]
