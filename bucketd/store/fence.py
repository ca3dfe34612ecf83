"""That a bucket is made once, however late a node does what it was asked long ago.

A swap of a stored bucket holds once, since its revision never comes again. That there is none may
come again, after a removal; so who makes one compares a key of this host's, too, and changes that
before it asks a second time.
"""

from __future__ import annotations

from typing import Any

from .gateway import Lost, b64
from .presence import Presence


class Fence:
    """Of one host; for swaps of buckets that are not there."""

    def __init__(self, presence: Presence, prefix: str) -> None:
        self._presence = presence
        self._name = f"{prefix}fence/{presence.id}".encode()
        self._at: str | None = None

    async def compare(self, deadline: float) -> dict[str, Any]:
        """What a transaction has to compare. Raises BucketdError or Lost."""
        if self._at is None:
            try:
                answer = await self._presence.put(self._name, deadline=deadline)
            except Lost as error:
                raise Lost(str(error), sent=False) from error  # of the swap, that is
            self._at = answer["header"]["revision"]
        return {"key": b64(self._name), "target": "MOD", "mod_revision": self._at}

    def move(self) -> None:
        """What compared it before holds no more, once ``compare`` has returned again."""
        self._at = None
