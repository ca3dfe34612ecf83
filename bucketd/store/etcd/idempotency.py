"""That a bucket is made once, however late a node does what it was asked, and whoever removes it.

A swap of a stored bucket holds once, since its revision never comes again. That there is none may
come again, after a removal. So who makes one compares a key of this host's, too, and writes the
new bucket's ETag there in the same transaction: that key tells afterwards whether it was done.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

from .client import Gateway, LeaseExpired, Lost, b64
from .session import Session


@dataclass(slots=True)
class Slot:
    """One such key, for one swap at a time.

    ``at``: its revision; None where it is not there. ``doubtful``: a swap with it may still come.
    """

    name: bytes
    at: str | None = None
    doubtful: bool = False

    def guard(self, body: dict[str, Any], etag: str) -> None:
        """Have a transaction hold only as long as nothing else was done with this."""
        body["compare"].append(self._same)
        body["success"].append(self._put(etag, {"ignore_lease": True}))

    def closing(self) -> dict[str, Any]:
        """The transaction after which the one before holds no more; else it tells of it."""
        return self._swap(self._put("", {"ignore_lease": True}))

    def placing(self, lease: str) -> dict[str, Any]:
        return self._swap(self._put("", {"lease": lease}))

    def _swap(self, put: dict[str, Any]) -> dict[str, Any]:
        told = {"request_range": {"key": b64(self.name)}}
        return {"compare": [self._same], "success": [put], "failure": [told]}

    @property
    def _same(self) -> dict[str, Any]:
        return {"key": b64(self.name), "target": "MOD", "mod_revision": self.at or "0"}

    def _put(self, value: str, besides: dict[str, Any]) -> dict[str, Any]:
        return {"request_put": {"key": b64(self.name), "value": b64(value.encode()), **besides}}


class Fence:
    """The keys of one host; for swaps of buckets that are not there."""

    def __init__(self, gateway: Gateway, presence: Session, prefix: str) -> None:
        self._gateway, self._presence = gateway, presence
        self._names = f"{prefix}fence/{presence.id}"
        self._free: list[Slot] = []
        self._made = 0

    async def take(self, deadline: float) -> Slot:
        """One that nobody uses. Raises BucketdError, or Lost, with which nothing was sent."""
        slot = self._free.pop() if self._free else self._another()
        try:
            if slot.doubtful:
                await self._clear(slot, deadline)
            if slot.at is None:
                _noted(slot, await self._presence.hang("/v3/kv/txn", slot.placing, deadline))
        except Lost as error:
            raise Lost(str(error), sent=False) from error  # of the swap, that is
        finally:
            if slot.doubtful or slot.at is None:
                self._free.append(slot)
        return slot

    def give(self, slot: Slot, made: str | None = None, doubtful: bool = False) -> None:
        """Back; with the revision by which a bucket was made, if one was."""
        slot.at, slot.doubtful = made or slot.at, doubtful
        self._free.append(slot)

    def renew(self) -> None:
        """Their lease has ended, and they with it."""
        for slot in self._free:
            slot.at, slot.doubtful = None, False

    async def close(self, slot: Slot, etag: str, deadline: float) -> str | None:
        """The revision with which the bucket was made; None: it was not, and will not be.

        Raises BucketdError; LeaseGone where nobody can know any more; or Lost.
        """
        answer = await self._gateway.call("/v3/kv/txn", slot.closing(), deadline)
        # A value that is no ETag is of a closing whose answer was lost.
        return slot.at if _noted(slot, answer) == etag.encode() else None

    async def noted(self, slot: Slot, etag: str, deadline: float) -> bool:
        """Whether the bucket with this ETag was made. Raises BucketdError or Lost."""
        answer = await self._gateway.call("/v3/kv/range", {"key": b64(slot.name)}, deadline)
        found = answer.get("kvs") or [{}]
        return bool(found[0].get("value") == b64(etag.encode()))

    async def _clear(self, slot: Slot, deadline: float) -> None:
        try:
            await self.close(slot, "", deadline)
        except LeaseExpired:
            slot.at = None
        slot.doubtful = False

    def _another(self) -> Slot:
        self._made += 1
        return Slot(f"{self._names}/{self._made}".encode())


def _noted(slot: Slot, answer: dict[str, Any]) -> bytes | None:
    """Take over its revision; what it held instead, where a transaction with it did not hold."""
    if answer.get("succeeded"):
        slot.at = str(answer["header"]["revision"])
        return None
    found = answer["responses"][0]["response_range"].get("kvs")
    if not found:
        raise LeaseExpired("the lease of this host has ended")
    slot.at = str(found[0]["mod_revision"])
    return base64.b64decode(found[0].get("value", ""))
