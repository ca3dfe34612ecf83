"""One change of a bucket in etcd: what it makes of a state, the transaction, its outcome."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...errors import Internal
from ...model.apply import apply
from ...model.bucket import BucketKey, Snapshot
from ...model.changes import Change
from ...model.preconditions import Preconditions
from . import keys
from .client import b64
from .keys import StoredValue


@dataclass(frozen=True, slots=True)
class Write:
    """A change that is to be made."""

    key: BucketKey
    change: Change
    guard: Preconditions
    automation: str | None

    def after(self, now: Snapshot) -> Snapshot:
        """What it makes of this state: the very same object when nothing changes."""
        return apply(self.change, self.guard, self.automation, self.key, now)


def made(after: Snapshot, now: StoredValue) -> bool:
    """Whether the key holds what was to be written: ETags never repeat, absence may."""
    return now.snapshot.etag == after.etag if after.revision else not now.at


def settled(write: Write, after: Snapshot, now: StoredValue) -> tuple[bool, StoredValue]:
    """A swap whose first answer was lost did not hold the second time: did it the first?"""
    if made(after, now) and (after.revision or not write.guard):
        return True, now
    raise unknown(f"cannot change {write.key}: etcd's answer was lost, and it changed since")


def unknown(told: str) -> Internal:
    # Not "overloaded": clients may repeat that unasked, and this may have been done.
    return Internal(f"{told}; the outcome is unknown, so read it again before you repeat")


def txn(
    name: bytes, held: StoredValue, after: Snapshot, key: BucketKey, tell: bool
) -> dict[str, Any]:
    """Put or delete if the key is as it was; else ``tell`` what it is (etcd is slower then)."""
    coded = b64(name)
    if after.revision:
        put = {"request_put": {"key": coded, "value": b64(keys.encode(key, after))}}
    else:
        put = {"request_delete_range": {"key": coded}}
    return {
        "compare": [{"key": coded, "target": "MOD", "mod_revision": str(held.at)}],
        "success": [put],
        "failure": [{"request_range": {"key": coded}}] if tell else [],
    }
