"""Refuse a cluster whose hosts spread devices over other shards than this host.

A host with other shards would look for a device in the wrong cluster, and find an empty bucket
there. So each cluster has a key below the prefix with the name of its shard and of all shards.
"""

from __future__ import annotations

import base64
from typing import Any, NamedTuple

import orjson

from ...errors import Internal
from . import keys
from .client import EtcdClient, b64


class Shard(NamedTuple):
    """The name of a cluster, and the names of all clusters; both empty where it is the only one."""

    name: str = ""
    of: tuple[str, ...] = ()

    def __str__(self) -> str:
        return (
            f"shard {self.name!r} of {', '.join(self.of)}" if self.of else "a store without shards"
        )


class ClusterTopology:
    """Verify once, before the first request, that the cluster is the shard in the settings."""

    def __init__(self, client: EtcdClient, shard: Shard) -> None:
        self._client, self._shard = client, shard
        self._prefix = client.options.prefix
        self._key = b64(f"{self._prefix}shard".encode())
        self.problem: str | None = None
        self._verified = False

    async def verify(self, deadline: float) -> None:
        """Raise Internal if the cluster is another shard; Unavailable without an answer."""
        if self._verified:
            return
        if self._shard.of:
            answer = await self._claim(deadline)
        else:
            answer = await self._client.call("/v3/kv/range", {"key": self._key}, deadline)
        found = self._recorded(answer.get("kvs"))
        if found != self._shard:
            self.problem = (
                f"cannot use etcd: the buckets below {self._prefix!r} belong to {found}, and this "
                f"host has the settings of {self._shard}; set [store.etcd] shards as on the other "
                "hosts, or use another prefix and move the buckets there with bucketctl export "
                "and import"
            )
            raise Internal(self.problem)
        self.problem, self._verified = None, True

    async def _claim(self, deadline: float) -> dict[str, Any]:
        """Record this shard if the cluster is new; return etcd's answer about the recorded one."""
        shard = b64(orjson.dumps(self._shard._asdict()))
        unused = [{"key": self._key, "target": "CREATE", "create_revision": "0"}]
        for begin, end in keys.bucket_ranges(self._prefix).values():
            unused.append({**unused[0], "key": b64(begin), "range_end": b64(end)})
        request = {
            "compare": unused,
            "success": [{"request_put": {"key": self._key, "value": shard}}],
            "failure": [{"request_range": {"key": self._key}}],
        }
        answer = await self._client.call("/v3/kv/txn", request, deadline)
        if answer.get("succeeded"):
            return {"kvs": [{"value": shard}]}
        found: dict[str, Any] = answer["responses"][0]["response_range"]
        return found

    def _recorded(self, kvs: list[keys.KeyValue] | None) -> Shard:
        """Return the shard recorded in the cluster; raise Internal if the value is not valid."""
        if not kvs:
            return Shard()
        try:
            value = orjson.loads(base64.b64decode(kvs[0]["value"]))
            return Shard(str(value["name"]), tuple(map(str, value["of"])))
        except (ValueError, KeyError, TypeError):
            self.problem = (
                f"cannot use etcd: the value of its key {self._prefix + 'shard'!r} is not valid; "
                "delete that key with etcdctl, and a host that has shards puts it again"
            )
            raise Internal(self.problem) from None
