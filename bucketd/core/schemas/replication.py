"""Who sets and removes schemas: on this host alone, or on all hosts that share an etcd cluster.

Each host keeps a copy in its own files, so it checks buckets without asking, and starts when the
cluster is away. What was shared is noted beside the copies: only that is removed when it is gone
from etcd, and what an operator set before hosts shared anything stays.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from typing import Any, Protocol

import orjson

from ...errors import BucketdError, Internal, NotFound
from ...fs import errors, files
from ...store.etcd.client import Gateway, Lost
from ...store.etcd.schemas import Cluster, Told
from ...store.etcd.watch import Compacted
from .registry import DIRECTORY, Registry

log = logging.getLogger(__name__)
NOTE = "shared"  # the automations whose schemas are copies
RETRY_SECONDS = 2.0
# Between looks at what etcd has, beside the watch: from one whose node hangs nothing is heard, not
# even an end. That long a host may then miss a schema; a look costs one read of all of them.
LOOK_SECONDS = 20.0


class SchemaWriter(Protocol):
    """Where a schema goes. Raises BucketdError; then nothing has changed on this host."""

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
        self._known: dict[str, int] = {}  # up to which revision, of each automation

    async def put(self, automation: str, document: Any) -> None:
        told = await self._cluster.put(automation, document)
        with _elsewhere("set"):
            await self._adopt(told)

    async def remove(self, automation: str) -> None:
        # Asked first, as a schema may be there of which this host has not heard yet.
        told, shared = await self._cluster.remove(automation)
        with _elsewhere("removed"):
            copied = automation in self._copied()
            await self._adopt(told)
        if not copied:
            await self._remove_own(automation, shared)

    async def _remove_own(self, automation: str, shared: bool) -> None:
        async with self._turn:
            if automation in self._copied():
                return  # set anew by another host
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
        told = ""
        while True:
            try:
                revision, _ = await self._take_all()
                told = ""
                await self._hear(revision)
            except BucketdError as error:
                if error.message != told:  # once, and not at every try
                    log.error("cannot take up shared schemas: %s; it is tried again", error)
                told = error.message
            except (Compacted, Lost, TimeoutError) as error:
                log.debug("the watch of shared schemas broke: %s", error)
            await asyncio.sleep(RETRY_SECONDS)

    async def _hear(self, revision: int) -> None:
        """Take up changes, until the watch breaks or a look finds what it has not told.

        A quiet one is left alone: to end it would be to leave its endpoint, for all that is asked.
        """
        watching = asyncio.create_task(self._take_changes(revision))
        try:
            while not (await asyncio.wait({watching}, timeout=LOOK_SECONDS))[0]:
                _, news = await self._take_all()
                if news:  # or what it is just about to tell, which is rare, and costs little
                    raise Lost("it has not told of a change")
            await watching
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    async def _take_all(self) -> tuple[int, bool]:
        """Make the copies what etcd has: the revision of that, and whether it was news."""
        before = max(self._known.values(), default=0)
        revision, found = await self._cluster.everything()
        if revision < before:  # etcd has begun anew, or from a backup, and so do its revisions
            self._known.clear()
        gone = self._copied() - {told.automation for told in found}
        every = [*found, *(Told(name, None, revision) for name in gone)]
        return revision, await self._adopt_each(every)

    async def _take_changes(self, revision: int) -> None:
        async with contextlib.aclosing(self._cluster.changes(revision)) as changes:
            async for several in changes:
                await self._adopt_each(several)

    async def _adopt_each(self, several: list[Told]) -> bool:
        """Whether any was news. Raises BucketdError, after all others, where one cannot be."""
        news, failed = False, None
        for told in several:
            try:
                news = await self._adopt(told) or news
            except BucketdError as error:
                failed = error
        if failed is not None:
            raise failed
        return news

    async def _adopt(self, told: Told) -> bool:
        """Have it in force here, unless something newer is: that may have been told before.

        Whether it was news. Raises BucketdError; then it is to be told again.
        """
        async with self._turn:
            if told.at < self._known.get(told.automation, 0):
                return False
            if told.document is None:
                news = await self._drop(told.automation)
            else:
                news = await self._take(told.automation, told.document)
            self._known[told.automation] = told.at
            return news

    async def _take(self, automation: str, document: Any) -> bool:
        now, copied = self._registry.find(automation), self._copied()
        # As texts: for Python 1 and true are the same.
        same = now is not None and orjson.dumps(now.document) == orjson.dumps(document)
        if same and automation in copied:
            return False
        # First: a copy that is not noted, after a kill, would be an operator's.
        self._note(copied | {automation})
        await asyncio.to_thread(self._registry.put, automation, document)
        return True

    async def _drop(self, automation: str) -> bool:
        copied = self._copied()
        if automation not in copied:
            return False
        with contextlib.suppress(NotFound):  # it was noted, and then a kill came
            await asyncio.to_thread(self._registry.remove, automation)
        self._note(copied - {automation})
        return True

    def _copied(self) -> set[str]:
        try:
            return set(orjson.loads(files.read(self._registry.root, (DIRECTORY,), NOTE).text))
        except (FileNotFoundError, ValueError):
            return set()
        except OSError as error:  # none is to be noted instead, or they would pass for own ones
            raise errors.refusal("read which schemas are shared", error) from error

    def _note(self, automations: set[str]) -> None:
        text = orjson.dumps(sorted(automations))
        try:
            files.write(self._registry.root, (DIRECTORY,), NOTE, lambda _birth: text)
        except OSError as error:
            raise errors.refusal("note which schemas are shared", error) from error


@contextlib.contextmanager
def _elsewhere(done: str) -> Iterator[None]:
    """What fails within is done in the cluster, and here still to come."""
    try:
        yield
    except BucketdError as error:
        # What its message ends with is for one that changed nothing.
        cause = error.message.rpartition(";")[0] or error.message
        raise Internal(
            f"{cause}; for all other hosts it is {done}; mend the state directory of this one, "
            "which tries again by itself"
        ) from error
