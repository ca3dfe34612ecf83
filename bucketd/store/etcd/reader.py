"""What a key in etcd holds, asked of a majority each time, and whether one answers."""

from __future__ import annotations

from typing import Any

from ...errors import BucketCorrupt, Overloaded
from ...model.bucket import BucketKey
from . import keys, stale_cache
from .client import Gateway, Lost, b64
from .keys import StoredValue
from .stale_cache import StaleReads
from .topology import Claim


class EtcdReading:
    """Of buckets below one prefix; messages name ``timeout``, in seconds."""

    def __init__(
        self, gateway: Gateway, claim: Claim, notes: StaleReads, prefix: str, timeout: float
    ) -> None:
        self._gateway, self._claim, self._stale = gateway, claim, notes
        self._prefix, self._timeout = prefix, timeout
        self.away: str | None = None  # why no majority answered, the last time

    async def load(self, key: BucketKey, deadline: float) -> StoredValue:
        """What it holds, noted for stale reads. Raises BucketdError."""
        body, asked = {"key": b64(keys.of(self._prefix, key))}, stale_cache.now()
        answer = await self.range(body, f"read {key}", deadline)
        try:
            held = keys.held(answer.get("kvs"), key)
        except BucketCorrupt:
            self._stale.forget(key)
            raise
        self.note(key, held, answer, asked)
        return held

    async def range(self, body: dict[str, Any], what: str, deadline: float) -> dict[str, Any]:
        """etcd's answer, once the cluster is claimed; Overloaded ("cannot <what>") without one."""
        try:
            await self._claim.make(deadline)
            answer = await self._gateway.call("/v3/kv/range", body, deadline)
        except Lost as error:
            self.unanswered(error)
            raise Overloaded(
                f"cannot {what}: etcd did not answer within {self._timeout:g} s ({error}); "
                "try again once a majority of its nodes is up"
            ) from error
        self.answered()
        return answer

    def note(self, key: BucketKey, held: StoredValue, answer: dict[str, Any], asked: float) -> None:
        """For stale reads: what it held by an ``answer`` to what was ``asked`` then."""
        self._stale.note(key, held.snapshot, int(answer["header"]["revision"]), asked)

    def answered(self) -> None:
        self.away = None

    def unanswered(self, error: Lost) -> None:
        self.away = f"cannot reach a majority of etcd ({self._gateway.endpoints}): {error}"
