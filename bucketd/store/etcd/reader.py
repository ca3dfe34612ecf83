"""Read buckets from a majority of the nodes, and record whether one can be reached."""

from __future__ import annotations

from typing import Any

from ...errors import BucketCorrupt, Overloaded
from ...model.bucket import BucketKey
from . import keys, stale_cache
from .client import EtcdClient, Unavailable, b64
from .keys import StoredValue
from .stale_cache import StaleCache
from .topology import ClusterTopology


class Reader:
    """Read buckets, and store the values in the stale cache.

    ``unavailable`` is the error of the last call, or None if it was answered.
    """

    def __init__(
        self, client: EtcdClient, topology: ClusterTopology, stale_cache: StaleCache
    ) -> None:
        self._client, self._topology, self._stale_cache = client, topology, stale_cache
        self._prefix = client.options.prefix
        self.unavailable: str | None = None

    async def read(self, key: BucketKey, deadline: float) -> StoredValue:
        """Return the value of a bucket's key. Raises BucketdError."""
        asked_at = stale_cache.now()
        request = {"key": b64(keys.encode_key(self._prefix, key))}
        answer = await self.range(request, f"read {key}", deadline)
        try:
            value = keys.stored_value(self._prefix, answer.get("kvs"), key)
        except BucketCorrupt:
            self._stale_cache.forget(key)
            raise
        self.remember(key, value, answer, asked_at)
        return value

    async def range(self, request: dict[str, Any], what: str, deadline: float) -> dict[str, Any]:
        """Return etcd's answer to a range request, once the cluster's topology is verified.

        Raises BucketdError; Overloaded ("cannot <what>: …") without an answer.
        """
        try:
            await self._topology.verify(deadline)
            answer = await self._client.call("/v3/kv/range", request, deadline)
        except Unavailable as error:
            self.set_unavailable(error)
            raise Overloaded(
                f"cannot {what}: etcd did not answer within {self._client.options.timeout:g} s "
                f"({error}); try again once a majority of its nodes is up"
            ) from error
        self.unavailable = None
        return answer

    def remember(
        self, key: BucketKey, value: StoredValue, answer: dict[str, Any], asked_at: float
    ) -> None:
        """Put a value into the stale cache, with the revision and the time of the request."""
        self._stale_cache.remember(key, value.snapshot, int(answer["header"]["revision"]), asked_at)

    def set_unavailable(self, error: Unavailable) -> None:
        self.unavailable = f"cannot reach a majority of etcd ({self._client.endpoints}): {error}"
