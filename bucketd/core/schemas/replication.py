"""Set and remove schemas: on this host alone, or on all hosts that share a store.

Each host keeps copies of the shared schemas in its own files, so it validates buckets without a
request to the cluster, and starts while the cluster is unavailable. A file beside the copies lists
which schemas are shared: only these are removed when the store no longer has them, and an
operator's own schemas stay.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import orjson

from ...errors import BucketdError, Internal, NotFound
from ...fs import errors, files
from ...store.base import FeedInterrupted, SchemaChange, SharedSchemas
from .registry import DIRECTORY, Registry

log = logging.getLogger(__name__)
# The file that names the automations whose schemas are copies.
NOTE = "shared"
RETRY_SECONDS = 2.0
# All schemas are read again at this interval, besides the watch, since a watch at a hung node
# reports neither changes nor its end. A host may miss a schema for that long.
RECHECK_SECONDS = 20.0


class SchemaWriter(Protocol):
    """Set and remove schemas. Raises BucketdError, after which this host is unchanged."""

    async def put(self, automation: str, document: Any, tolerates: bool = False) -> None:
        """Put a schema that compiles in force, which tolerates what stood before or does not."""

    async def remove(self, automation: str) -> None:
        """Put a schema out of force."""

    async def keep_current(self, stop: asyncio.Event) -> None:
        """Copy what other hosts set and remove, until ``stop``."""


class LocalSchemas:
    """Set and remove schemas on this host."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def put(self, automation: str, document: Any, tolerates: bool = False) -> None:
        await asyncio.to_thread(self._registry.put, automation, document, tolerates)

    async def remove(self, automation: str) -> None:
        await asyncio.to_thread(self._registry.remove, automation)

    async def keep_current(self, stop: asyncio.Event) -> None:
        """Return at once: no other host changes the schemas of this host."""


class ReplicatedSchemas:
    """Set and remove schemas on all hosts that share a store."""

    def __init__(self, registry: Registry, shared: SharedSchemas) -> None:
        self._registry, self._shared = registry, shared
        # Held while the files are written for one change.
        self._files = asyncio.Lock()
        # The revision of each automation's last change.
        self._applied: dict[str, int] = {}

    async def put(self, automation: str, document: Any, tolerates: bool = False) -> None:
        change = await self._shared.put(automation, document, tolerates)
        with _done_elsewhere("set"):
            await self._apply(change)

    async def remove(self, automation: str) -> None:
        # The store comes first, since it may have a schema that this host has not copied yet.
        change, existed = await self._shared.remove(automation)
        with _done_elsewhere("removed"):
            copied = automation in self._copied()
            await self._apply(change)
        if not copied:
            await self._remove_own(automation, existed)

    async def _remove_own(self, automation: str, existed: bool) -> None:
        """Remove a schema that was set before hosts shared any."""
        async with self._files:
            if automation in self._copied():
                # Another host has set the schema again meanwhile.
                return
            try:
                await asyncio.to_thread(self._registry.remove, automation)
            except NotFound:
                if not existed:
                    raise

    async def keep_current(self, stop: asyncio.Event) -> None:
        following = asyncio.create_task(self._follow())
        await stop.wait()
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)

    async def _follow(self) -> None:
        while True:
            try:
                revision, _ = await self._copy_all()
                await self._copy_changes_after(revision)
            except FeedInterrupted as error:
                log.debug("the watch of shared schemas broke: %s", error)
            except BucketdError as error:
                self._set_problem(error.message)
            except Exception as error:
                self._set_problem(f"unexpected error ({type(error).__name__})", error)
            await asyncio.sleep(RETRY_SECONDS)

    def _set_problem(self, cause: str, unexpected: Exception | None = None) -> None:
        problem = f"cannot copy shared schemas: {cause}"
        # Each problem is logged once, rather than at every attempt.
        if problem != self._shared.problem:
            log.error("%s; trying again", problem, exc_info=unexpected)
        self._shared.problem = problem

    async def _copy_changes_after(self, revision: int) -> None:
        """Copy changes until the watch breaks or has missed a change.

        A watch without events goes on: ending it would switch all calls to another endpoint.
        """
        watching = asyncio.create_task(self._copy_watched(revision))
        try:
            while not (await asyncio.wait({watching}, timeout=RECHECK_SECONDS))[0]:
                _, changed = await self._copy_all()
                # The watch may be about to report this change. That is rare, and a new watch is
                # cheap.
                if changed:
                    raise FeedInterrupted("it has missed a change")
            await watching
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    async def _copy_watched(self, revision: int) -> None:
        async with contextlib.aclosing(self._shared.changes_after(revision)) as batches:
            async for changes in batches:
                await self._apply_each(changes)
                self._shared.problem = None

    async def _copy_all(self) -> tuple[int, bool]:
        """Bring the copies up to date; return the store's revision, and whether any changed."""
        newest = max(self._applied.values(), default=0)
        found = await self._shared.read_all()
        if found.revision < newest:
            # A new cluster, or one restored from a backup, counts its revisions anew.
            self._applied.clear()
        present = found.unreadable.union(change.automation for change in found.schemas)
        removed = (SchemaChange(name, None, found.revision) for name in self._copied() - present)
        return found.revision, await self._apply_each([*found.schemas, *removed])

    async def _apply_each(self, changes: Iterable[SchemaChange]) -> bool:
        """Apply all changes and report whether any copy changed; then raise a failure, if any."""
        changed, failure = False, None
        for change in changes:
            try:
                changed = await self._apply(change) or changed
            except BucketdError as error:
                failure = error
        if failure is not None:
            raise failure
        return changed

    async def _apply(self, change: SchemaChange) -> bool:
        """Apply a change to this host's copy, unless a newer change was applied.

        Report whether the copy changed. Raises BucketdError, after which the change can be applied
        again.
        """
        async with self._files:
            if change.revision < self._applied.get(change.automation, 0):
                return False
            if change.document is None:
                changed = await self._remove_copy(change.automation)
            else:
                changed = await self._put_copy(change.automation, change.document, change.tolerates)
            self._applied[change.automation] = change.revision
            return changed

    async def _put_copy(self, automation: str, document: Any, tolerates: bool = False) -> bool:
        entry, copied = self._registry.in_force(automation), self._copied()
        now = None if entry is None or entry.tolerates != tolerates else entry.validator
        # The comparison is of JSON, since 1 and true are equal in Python.
        same = now is not None and orjson.dumps(now.document) == orjson.dumps(document)
        if same and automation in copied:
            return False
        # The list is written first: after a kill, a copy that is not listed would count as an
        # operator's schema.
        self._write_note(copied | {automation})
        await asyncio.to_thread(self._registry.put, automation, document, tolerates)
        return True

    async def _remove_copy(self, automation: str) -> bool:
        copied = self._copied()
        if automation not in copied:
            return False
        # After a kill, a listed copy may not exist.
        with contextlib.suppress(NotFound):
            await asyncio.to_thread(self._registry.remove, automation)
        self._write_note(copied - {automation})
        return True

    def _copied(self) -> set[str]:
        try:
            return set(orjson.loads(files.read(self._registry.root, (DIRECTORY,), NOTE).text))
        except (FileNotFoundError, ValueError):
            return set()
        except OSError as error:
            # With an empty list instead, all copies would count as the operator's schemas.
            raise errors.refusal("read which schemas are shared", error) from error

    def _write_note(self, automations: set[str]) -> None:
        text = orjson.dumps(sorted(automations))
        try:
            files.write(self._registry.root, (DIRECTORY,), NOTE, lambda _birth: text)
        except OSError as error:
            raise errors.refusal("note which schemas are shared", error) from error


@contextlib.contextmanager
def _done_elsewhere(done: str) -> Iterator[None]:
    """Raise a failure of this host as an error that says the other hosts have the change."""
    try:
        yield
    except BucketdError as error:
        # The end of the message says how to fix a change that was not made at all; here the
        # change was made on the other hosts.
        cause = error.message.rpartition(";")[0] or error.message
        raise Internal(
            f"{cause}; on all other hosts it is {done}; repair the state directory of this host, "
            "which tries again by itself"
        ) from error
