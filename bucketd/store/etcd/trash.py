"""The trash of a fleet: deleted buckets as keys under leases, which expire by themselves.

The transaction that removes a bucket puts ``<prefix>trash/<id>``, and the one that restores it
removes that key, so a bucket is in one of the two places at any time and for all hosts.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ...concurrency import INLINE_MAX_BYTES, offload
from ...errors import BucketCorrupt, Overloaded
from ...fs import clock
from ...model import trashed
from ...model.author import Author
from ...model.bucket import BucketKey, Snapshot
from ...model.trashed import TrashedBucket, TrashInfo
from ..base import Filter, TrashPage
from ..trash import checked_cursor, not_in_trash
from . import keys
from .client import EtcdClient, Unavailable, b64
from .keys import KeyValue, NotABucket
from .reader import Reader

_DAY = 86400.0
# Deletions share a lease for so long, so that a large sweep needs few; it lives that much longer.
_SHARED_SECONDS, _SHARED_PART = 3600.0, 24
# The number of values to request in one response; each is a whole bucket.
_COUNT, _MAX_COUNT, _ANSWER_BYTES = 5, 100, 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class TrashPut:
    """The part of a deletion's transaction that fills the trash."""

    id: str
    key: bytes
    value: bytes
    lease: str

    @property
    def compare(self) -> dict[str, Any]:
        return {"key": b64(self.key), "target": "MOD", "mod_revision": "0"}

    @property
    def operation(self) -> dict[str, Any]:
        put = {"key": b64(self.key), "value": b64(self.value), "lease": self.lease}
        return {"request_put": put}


@dataclass(frozen=True, slots=True)
class TrashTake:
    """The part of a restore's transaction that takes a bucket out of the trash, if it is there."""

    id: str
    key: bytes
    mod_revision: str

    @property
    def compare(self) -> dict[str, Any]:
        return {"key": b64(self.key), "target": "MOD", "mod_revision": self.mod_revision}

    @property
    def operation(self) -> dict[str, Any]:
        return {"request_delete_range": {"key": b64(self.key)}}


@dataclass(frozen=True, slots=True)
class _Lease:
    id: str
    days: float
    granted: float


class EtcdTrash:
    """The deleted buckets in one cluster. Methods raise only ``BucketdError``, or say so."""

    def __init__(self, client: EtcdClient, reader: Reader) -> None:
        self._client, self._reader = client, reader
        self._prefix = client.options.prefix
        self._lease: _Lease | None = None

    # --- parts of the writer's transactions

    async def put(
        self, key: BucketKey, last: Snapshot, days: float, author: Author, deadline: float
    ) -> TrashPut:
        """Return what puts a bucket into the trash. Raises Unavailable, too."""
        lease = await self._granted(days, deadline)
        trash_id = trashed.new_id(key)
        value = keys.encode_value(key, last, {"by": author.members(last.automation)})
        return TrashPut(trash_id, self._key(trash_id), value, lease)

    async def take(self, trash_id: str, deadline: float) -> TrashTake:
        """Return what takes a bucket out of the trash. Raises NotFound."""
        kv = await self._find(trash_id, deadline)
        return TrashTake(trash_id, self._key(trash_id), str(kv["mod_revision"]))

    async def is_there(self, put: TrashPut, deadline: float) -> bool:
        """Report whether the transaction of a deletion was applied, and nobody restored it."""
        request = {"key": b64(put.key), "count_only": True}
        answer = await self._reader.range(request, "read the trash", deadline)
        return int(answer.get("count", 0)) > 0

    def forget_lease(self) -> None:
        """Get another lease for the next deletion: this one has ended."""
        self._lease = None

    async def _granted(self, days: float, deadline: float) -> str:
        seconds = days * _DAY
        shared = min(_SHARED_SECONDS, seconds / _SHARED_PART)
        now, lease = clock.boottime(), self._lease
        if lease is None or lease.days != days or now - lease.granted > shared:
            ttl = math.ceil(seconds + shared)
            answer = await self._client.call("/v3/lease/grant", {"TTL": str(ttl)}, deadline)
            self._lease = lease = _Lease(str(answer["ID"]), days, now)
        return lease.id

    # --- the trash as the layers above know it

    async def list(self, only: Filter, cursor: str | None, limit: int) -> TrashPage:
        after = checked_cursor(cursor)
        begin, end = keys.trash_range(self._prefix)
        end = end if after is None else self._key(after)
        page, count = TrashPage([], None, []), _COUNT
        while True:
            request = {
                "key": b64(begin),
                "range_end": b64(end),
                "limit": str(count),
                "sort_order": "DESCEND",
                "sort_target": "KEY",
            }
            answer = await self._reader.range(request, "list the trash", self._client.deadline())
            kvs: list[KeyValue] = answer.get("kvs", [])
            for number, kv in enumerate(kvs, 1):
                end = keys.key_of(kv)
                await self._add(page, kv, only)
                is_last = number == len(kvs) and not answer.get("more")
                if len(page.rows) == limit and not is_last:
                    return page._replace(next_cursor=page.rows[-1].id)
            if not answer.get("more"):
                return page
            mean = sum(len(kv.get("value", "")) for kv in kvs) // max(len(kvs), 1)
            count = min(_MAX_COUNT, max(1, _ANSWER_BYTES // max(mean, 1)))

    async def read(self, trash_id: str) -> TrashedBucket:
        kv = await self._find(trash_id, self._client.deadline())
        try:
            return self._decode(kv)
        except NotABucket:
            raise BucketCorrupt(
                f"cannot restore {trash_id}: its value in etcd is not a valid bucket; the value "
                "stays there until its lease ends, or somebody deletes that key with etcdctl"
            ) from None

    async def newest(self, key: BucketKey) -> TrashedBucket | None:
        begin, end = keys.trash_range(self._prefix)
        request = {
            "key": b64(begin),
            "range_end": b64(end),
            "keys_only": True,
            "sort_order": "DESCEND",
            "sort_target": "KEY",
        }
        answer = await self._reader.range(request, "read the trash", self._client.deadline())
        for kv in answer.get("kvs", ()):
            trash_id = self._id(kv)
            if trash_id is None or not trashed.may_be_of(trash_id, key):
                continue
            found = await self._read_range(trash_id, self._client.deadline())
            for one in found:
                try:
                    entry = self._decode(one)
                except NotABucket:
                    continue
                if entry.key == key:
                    return entry
        return None

    async def remove(self, trash_id: str) -> None:
        kv = await self._find(trash_id, self._client.deadline())
        request = {"key": kv["key"]}
        try:
            answer = await self._client.call("/v3/kv/deleterange", request, self._client.deadline())
        except Unavailable as error:
            self._reader.set_unavailable(error)
            raise Overloaded(
                f"cannot empty the trash: etcd did not answer within "
                f"{self._client.options.timeout:g} s ({error}); try again"
            ) from error
        if not int(answer.get("deleted", 0)):
            raise not_in_trash(trash_id)

    async def expire(self, _is_over: Callable[[float], bool]) -> int:
        """Return at once: the leases end by themselves."""
        return 0

    # --- keys and values

    def _key(self, trash_id: str) -> bytes:
        return f"{self._prefix}trash/{trash_id}".encode()

    def _id(self, kv: KeyValue) -> str | None:
        begin, _ = keys.trash_range(self._prefix)
        name = keys.key_of(kv)[len(begin) :].decode(errors="replace")
        return name if trashed.is_id(name) else None

    async def _find(self, trash_id: str, deadline: float) -> KeyValue:
        found = await self._read_range(trash_id, deadline) if trashed.is_id(trash_id) else []
        if not found:
            raise not_in_trash(trash_id)
        return found[0]

    async def _read_range(self, trash_id: str, deadline: float) -> Rows:
        request = {"key": b64(self._key(trash_id))}
        answer = await self._reader.range(request, "read the trash", deadline)
        found: Rows = answer.get("kvs", [])
        return found

    async def _add(self, page: TrashPage, kv: KeyValue, only: Filter) -> None:
        takes_long = len(kv.get("value", "")) > INLINE_MAX_BYTES
        try:
            one = await offload(self._info, kv) if takes_long else self._info(kv)
        except NotABucket:
            page.unreadable.append(keys.key_of(kv).decode(errors="backslashreplace"))
            return
        if only.matches(one.device, one.job, one.automation):
            page.rows.append(one)

    def _info(self, kv: KeyValue) -> TrashInfo:
        return self._decode(kv).info

    def _decode(self, kv: KeyValue) -> TrashedBucket:
        trash_id = self._id(kv)
        key, last, value = keys.decode_value(kv)
        by = value.get("by")
        if trash_id is None or not trashed.may_be_of(trash_id, key) or not isinstance(by, dict):
            raise NotABucket
        return TrashedBucket(trash_id, key, last, by)


Rows = list[KeyValue]
