"""The deleted buckets of one host, as the layers above the store know them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from ...errors import BucketCorrupt
from ...fs import errors
from ...fs.filenames import SUFFIX
from ...model import trashed
from ...model.bucket import BucketKey
from ...model.trashed import TrashedBucket
from ..base import Filter, TrashPage
from ..trash import checked_cursor, not_in_trash
from . import envelope
from .trash import Trash, cause, path

# One page reads at most so many files, so that a filter with few matches takes bounded time.
MAX_READ = 5000
# Nor so many bytes of buckets, which are read whole.
MAX_READ_BYTES = 32 * 1024 * 1024
# The most buckets that one step deletes for good, so that writes need not wait for long.
MAX_EXPIRED = 200
Names = list[str]


class LocalTrash:
    """List, read and empty the trash. Use from one event loop.

    ``wait_until_flushed`` returns once all acknowledged deletions have their files, and ``empty``
    deletes for good; both are the committer's.
    """

    def __init__(
        self,
        trash: Trash,
        wait_until_flushed: Callable[[], Awaitable[None]],
        empty: Callable[[list[str]], Awaitable[list[str]]],
    ) -> None:
        self._trash, self._empty = trash, empty
        self._wait_until_flushed = wait_until_flushed

    async def list(self, only: Filter, cursor: str | None, limit: int) -> TrashPage:
        after = checked_cursor(cursor)
        await self._wait_until_flushed()
        try:
            return await asyncio.to_thread(self._page, only, after, limit)
        except OSError as error:
            raise errors.refusal("list the trash", error) from error

    async def read(self, trash_id: str) -> TrashedBucket:
        if not trashed.is_id(trash_id):
            raise not_in_trash(trash_id)
        await self._wait_until_flushed()
        try:
            return await asyncio.to_thread(self._trash.read, trash_id)
        except FileNotFoundError:
            raise not_in_trash(trash_id) from None
        except (OSError, envelope.Unreadable) as error:
            if isinstance(error, OSError) and not errors.is_obstacle(error):
                raise errors.refusal("read the trash", error) from error
            raise BucketCorrupt(
                f"cannot restore {trash_id}: {path(trash_id + SUFFIX)} is damaged "
                f"({cause(error)}); it was left untouched, look at it, then remove it"
            ) from error

    async def newest(self, key: BucketKey) -> TrashedBucket | None:
        await self._wait_until_flushed()
        try:
            return await asyncio.to_thread(self._newest, key)
        except OSError as error:
            raise errors.refusal("read the trash", error) from error

    async def remove(self, trash_id: str) -> None:
        if not trashed.is_id(trash_id) or not await self._empty([trash_id]):
            raise not_in_trash(trash_id)

    async def expire(self, is_over: Callable[[float], bool]) -> int:
        try:
            over = await asyncio.to_thread(self._over, is_over)
        except OSError as error:
            raise errors.refusal("list the trash", error) from error
        count = 0
        for begin in range(0, len(over), MAX_EXPIRED):
            count += len(await self._empty(over[begin : begin + MAX_EXPIRED]))
        return count

    def _page(self, only: Filter, after: str | None, limit: int) -> TrashPage:
        ids, foreign = self._trash.entries()
        # Every page would tell these again.
        page = TrashPage([], None, foreign if after is None else [])
        behind = [one for one in ids if after is None or one < after]
        read = 0
        for count, trash_id in enumerate(behind, 1):
            one = self._entry(trash_id, page.unreadable)
            read += 0 if one is None else one.last.bucket.size
            if one is not None and only.matches(*one.key, one.last.automation):
                page.rows.append(one.info)
            is_full = len(page.rows) >= limit or count >= MAX_READ or read >= MAX_READ_BYTES
            if is_full and count < len(behind):
                return page._replace(next_cursor=trash_id)
        return page

    def _over(self, is_over: Callable[[float], bool]) -> Names:
        ids, _ = self._trash.entries()
        return [one for one in ids if is_over(trashed.deleted_seconds(one))]

    def _newest(self, key: BucketKey) -> TrashedBucket | None:
        for trash_id in self._trash.entries()[0]:
            if trashed.may_be_of(trash_id, key):
                one = self._entry(trash_id, [])
                if one is not None and one.key == key:
                    return one
        return None

    def _entry(self, trash_id: str, unreadable: Names) -> TrashedBucket | None:
        """Return a deleted bucket; None if it is gone, or cannot be read."""
        try:
            return self._trash.read(trash_id)
        except FileNotFoundError:
            return None
        except (OSError, envelope.Unreadable):
            unreadable.append(path(trash_id + SUFFIX))
            return None
