"""Which hosts may share a prefix: those that spread devices over the same clusters, and no others.

A host that was set up otherwise would look for a device in another cluster than the rest, and find
an empty bucket there. So each cluster says below the prefix which of the shards it is.
"""

from __future__ import annotations

import base64
from typing import Any, NamedTuple

import orjson

from ...errors import Internal
from . import keys
from .client import Gateway, b64


class Shard(NamedTuple):
    """One of several clusters: its name, and the names of all. Both empty: the only one."""

    name: str = ""
    of: tuple[str, ...] = ()


class Claim:
    """Made once, before anything else is asked of the cluster."""

    def __init__(self, gateway: Gateway, prefix: str, shard: Shard) -> None:
        self._gateway, self._prefix, self._shard = gateway, prefix, shard
        self.problem: str | None = None
        self._holds = False

    async def make(self, deadline: float) -> None:
        """Internal where others use the prefix in another way; Lost."""
        if self._holds:
            return
        ask = self._say if self._shard.of else self._said
        found = await ask(deadline)
        if found is not None and found != self._shard:
            self.problem = self._told(found)
            raise Internal(self.problem)
        self.problem, self._holds = None, True

    async def _said(self, deadline: float) -> Shard | None:
        answer = await self._gateway.call("/v3/kv/range", {"key": self._key()}, deadline)
        return _shard(answer.get("kvs", ()))

    async def _say(self, deadline: float) -> Shard | None:
        """Say it, if nothing was said before and there is no bucket yet; else what was said."""
        mine = orjson.dumps(self._shard._asdict())
        free = [{"key": self._key(), "target": "CREATE", "create_revision": "0"}]
        for begin, end in keys.sections(self._prefix).values():
            free.append({**free[0], "key": b64(begin), "range_end": b64(end)})
        body = {
            "compare": free,
            "success": [{"request_put": {"key": self._key(), "value": b64(mine)}}],
            "failure": [{"request_range": {"key": self._key()}}],
        }
        answer = await self._gateway.call("/v3/kv/txn", body, deadline)
        if answer.get("succeeded"):
            return self._shard
        return _shard(answer["responses"][0]["response_range"].get("kvs", ())) or Shard()

    def _key(self) -> str:
        return b64(f"{self._prefix}shard".encode())

    def _told(self, found: Shard) -> str:
        mine, theirs = _in_words(self._shard), _in_words(found)
        return (
            f"cannot use etcd: what it keeps below {self._prefix!r} is {theirs}, and this host "
            f"takes it for {mine}; set [store.etcd] shards as on the other hosts, or "
            "take another prefix and move the buckets there with bucketctl export and import"
        )


def _shard(found: list[dict[str, Any]]) -> Shard | None:
    if not found:
        return None
    value = orjson.loads(base64.b64decode(found[0]["value"]))
    return Shard(value["name"], tuple(value["of"]))


def _in_words(shard: Shard) -> str:
    return f"shard {shard.name!r} of {', '.join(shard.of)}" if shard.of else "all, and no shard"
