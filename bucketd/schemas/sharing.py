"""Who sets and removes schemas: on this host alone, or on all hosts that share an etcd cluster.

Each host keeps a copy in its own files, so it checks buckets without asking, and starts when the
cluster is away. What was shared is noted beside the copies: only that is removed when it is gone
from etcd, and what an operator set before hosts shared anything stays.
"""

from __future__ import annotations

import asyncio
import base64
import logging
from typing import Any, Protocol

import orjson

from ..errors import BucketdError, NotFound
from ..store import disk, failures
from ..store.etcdwatch import Compacted
from ..store.gateway import Gateway, Lost
from .cluster import Cluster
from .registry import DIRECTORY, Registry

log = logging.getLogger(__name__)
NOTE = "shared"  # the automations whose schemas are copies
RETRY_SECONDS = 2.0


class SchemaWriter(Protocol):
    """Where a schema goes. Raises BucketdError; then nothing has changed here."""

    async def put(self, automation: str, document: Any) -> None:
        """Put a schema in force that was compiled before."""

    async def remove(self, automation: str) -> None:
        """Put it out of force."""


class Local:
    """On this host."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def put(self, automation: str, document: Any) -> None:
        await asyncio.to_thread(self._registry.put, automation, document)

    async def remove(self, automation: str) -> None:
        await asyncio.to_thread(self._registry.remove, automation)


class Shared:
    """On all hosts with the same ``prefix`` in the cluster; ``keep_current`` takes up theirs."""

    def __init__(self, registry: Registry, gateway: Gateway, prefix: str, timeout: float) -> None:
        self._registry, self._cluster = registry, Cluster(gateway, prefix, timeout)
        self._turn = asyncio.Lock()  # files are written for one change at a time

    async def put(self, automation: str, document: Any) -> None:
        await self._cluster.put(automation, document)
        await self._take({automation: document})

    async def remove(self, automation: str) -> None:
        # Asked first, as a schema may be there of which this host has not heard yet.
        shared = await self._cluster.remove(automation)
        if automation in self._copied():
            await self._drop({automation})
            return
        try:
            await asyncio.to_thread(self._registry.remove, automation)
        except NotFound:
            if not shared:
                raise

    async def keep_current(self, stop: asyncio.Event) -> None:
        """Take up what other hosts set and remove, until ``stop``."""
        following = asyncio.create_task(self._follow())
        await stop.wait()
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)

    async def _follow(self) -> None:
        while True:
            try:
                revision = await self._take_all()
                await self._take_changes(revision)
            except (BucketdError, Compacted, Lost, TimeoutError) as error:
                log.debug("the watch of shared schemas broke: %s", error)
            await asyncio.sleep(RETRY_SECONDS)

    async def _take_all(self) -> int:
        """Make the copies what etcd has; the revision of that."""
        revision, kvs = await self._cluster.everything()
        found = dict(filter(None, map(_schema, kvs)))
        await self._take(found)
        await self._drop(self._copied() - set(found))
        return revision

    async def _take_changes(self, revision: int) -> None:
        async for events in self._cluster.changes(revision):
            for event in events:
                gone = event.get("type") == "DELETE"
                told = _schema(event.get("prev_kv" if gone else "kv") or {})
                if told is not None:
                    await (self._drop({told[0]}) if gone else self._take(dict([told])))

    async def _take(self, schemas: dict[str, Any]) -> None:
        async with self._turn:
            for automation, document in schemas.items():
                now = self._registry.find(automation)
                if now and now.document == document and automation in self._copied():
                    continue
                try:
                    # First: a copy that is not noted, after a kill, would be an operator's.
                    self._note(self._copied() | {automation})
                    await asyncio.to_thread(self._registry.put, automation, document)
                except BucketdError as error:
                    log.error("cannot take up a shared schema: %s", error.message)

    async def _drop(self, automations: set[str]) -> None:
        async with self._turn:
            for automation in automations & self._copied():
                try:
                    await asyncio.to_thread(self._registry.remove, automation)
                except NotFound:
                    pass  # it was noted, and then a kill came
                except BucketdError as error:
                    log.error("cannot drop a shared schema: %s", error.message)
                self._note(self._copied() - {automation})

    def _copied(self) -> set[str]:
        try:
            return set(orjson.loads(disk.read(self._registry.root, (DIRECTORY,), NOTE).text))
        except (OSError, ValueError):
            return set()

    def _note(self, automations: set[str]) -> None:
        text = orjson.dumps(sorted(automations))
        try:
            disk.write(self._registry.root, (DIRECTORY,), NOTE, lambda _birth: text)
        except OSError as error:
            raise failures.refusal("note which schemas are shared", error) from error


def _schema(found: dict[str, Any]) -> tuple[str, Any] | None:
    """Automation and document of a stored schema; None for what is none."""
    try:
        value = orjson.loads(base64.b64decode(found["value"]))
        return str(value["automation"]), value["schema"]
    except (ValueError, KeyError, TypeError):
        log.error("cannot use a schema in etcd: its value is none")
        return None
