"""Buckets, changes and preconditions as plain values and pure functions."""

from .bucket import BucketKey, Snapshot
from .changes import Change
from .preconditions import Preconditions

__all__ = ["BucketKey", "Change", "Preconditions", "Snapshot"]
