"""That a bucket is made once, however late a node does what it was asked, and whoever removes it.

A swap of a stored bucket holds once, since its revision never comes again. That there is none may
come again, after a removal. So who makes one compares a key of this host's, too, and writes the
new bucket's ETag there in the same transaction: that key tells afterwards whether it was done.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

from .gateway import Gateway, LeaseGone, Lost, b64
from .presence import Presence


@dataclass(slots=True)
class Slot:
    """One such key, for one swap at a time; ``at`` None: it has to be put anew."""

    name: bytes
    at: str | None = None

    @property
    def _same(self) -> dict[str, Any]:
        return {"key": b64(self.name), "target": "MOD", "mod_revision": self.at}

    def _put(self, value: str) -> dict[str, Any]:
        put = {"key": b64(self.name), "value": b64(value.encode()), "ignore_lease": True}
        return {"request_put": put}

    def guard(self, body: dict[str, Any], etag: str | None) -> None:
        """Have a transaction hold only as long as nothing else was done with this."""
        body["compare"].append(self._same)
        body["success"].append(self._put(etag or ""))

    def closing(self) -> dict[str, Any]:
        """The transaction after which the one before holds no more; else it tells of it."""
        told = {"request_range": {"key": b64(self.name)}}
        return {"compare": [self._same], "success": [self._put("")], "failure": [told]}


class Fence:
    """The keys of one host; for swaps of buckets that are not there."""

    def __init__(self, gateway: Gateway, presence: Presence, prefix: str) -> None:
        self._gateway, self._presence = gateway, presence
        self._names = f"{prefix}fence/{presence.id}"
        self._free: list[Slot] = []
        self._made = 0

    async def take(self, deadline: float) -> Slot:
        """One that nobody uses. Raises BucketdError, or Lost, with which nothing was sent."""
        slot = self._free.pop() if self._free else self._another()
        try:
            if slot.at is None:
                answer = await self._presence.put(slot.name, deadline=deadline)
                slot.at = answer["header"]["revision"]
        except BaseException as error:
            self._free.append(slot)
            if isinstance(error, Lost):
                raise Lost(str(error), sent=False) from error  # of the swap, that is
            raise
        return slot

    def give(self, slot: Slot, at: str | None) -> None:
        """Back, with the revision of its last change; None where that is not known."""
        slot.at = at
        self._free.append(slot)

    def renew(self) -> None:
        """Their lease has ended, and they with it."""
        for slot in self._free:
            slot.at = None

    async def close(self, slot: Slot, etag: str | None, deadline: float) -> str | None:
        """The revision with which the bucket was made; None: it was not, and will not be.

        Raises BucketdError; LeaseGone where nobody can know any more; or Lost.
        """
        answer = await self._gateway.call("/v3/kv/txn", slot.closing(), deadline)
        if answer.get("succeeded"):
            slot.at = answer["header"]["revision"]
            return None
        found = answer["responses"][0]["response_range"].get("kvs")
        if not found:
            raise LeaseGone("the lease of this host has ended")
        slot.at = str(found[0]["mod_revision"])
        # Else it was closed by a try of this that was not answered.
        return slot.at if base64.b64decode(found[0].get("value", "")) == _coded(etag) else None

    def _another(self) -> Slot:
        self._made += 1
        return Slot(f"{self._names}/{self._made}".encode())


def _coded(etag: str | None) -> bytes:
    return (etag or "").encode()
