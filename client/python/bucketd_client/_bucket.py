"""``Bucket``: plain dicts in and out, exceptions for failures."""

from __future__ import annotations

import time

from . import _operations, _transport
from ._errors import BucketError, PreconditionFailed
from ._operations import UNGUARDED, B, Backoff, BaseBucket, D, P, Snapshot

TYPE_CHECKING = False  # see bucketd_client

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Mapping
    from typing import Any, Callable, Literal, overload

    from typing_extensions import Self

    from ._api import BucketRequest, Reply
    from ._events import Change
    from ._held_bucket import HeldBucket
    from ._history import HistoryEntry
    from ._operations import Operation
else:

    def overload(function: object) -> None:
        """Ignore the overloads, which only type checkers need."""


# pytest shows the line of a test where an error came from, and not the frames of this module.
__tracebackhide__ = True


class Bucket(BaseBucket[B, P, D]):
    """One bucket; ``Bucket[MyTypedDict]`` types its content. Every call may raise BucketError.

    ``bucketctl types`` writes a module with a ``Bucket`` whose writes are typed as well.

    A write returns the whole bucket, or None with ``returning=False``, which saves the transfer of
    a large bucket. ``if_match`` takes the ``etag`` of a snapshot: the write raises
    PreconditionFailed if the bucket has changed since (None: if a bucket is stored now).
    """

    def __enter__(self) -> Self:
        """Return this bucket; the end of the block closes idle connections."""
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the idle connections to the daemon; a later call opens another."""
        _transport.close_idle(self._path())

    @overload
    def get(self, *keys: str, defaults: Literal[False] = False) -> B: ...
    @overload
    def get(self, *keys: str, defaults: Literal[True]) -> D: ...
    @overload
    def get(self, *keys: str, defaults: bool) -> B | D: ...
    def get(self, *keys: str, defaults: bool = False) -> Any:
        """Return the bucket, ``{}`` if none is stored; with keys, only those that it has.

        With ``defaults`` the daemon adds the defaults of its schema for the keys that the bucket
        lacks; nothing is stored.
        """
        return self._run(_operations.read(keys, defaults))

    def value(self, key: str, default: Any = None) -> Any:
        """Return the value of one key, ``default`` if the bucket does not have it."""
        found = self._run(_operations.read((key,)))
        return found.get(key, default)

    def snapshot(self) -> Snapshot[B]:
        """Return the bucket with its revision and ETag."""
        request = self._request(_operations.read())
        return _operations.snapshot_of(request, self._exchange(request))

    @overload
    def set(
        self: Bucket[B],
        data: Mapping[str, Any] | None = None,
        /,
        *,
        if_match: str | None = UNGUARDED,
        returning: Literal[True] = True,
        **more: Any,
    ) -> B: ...
    @overload
    def set(
        self: Bucket[B],
        data: Mapping[str, Any] | None = None,
        /,
        *,
        if_match: str | None = UNGUARDED,
        returning: bool,
        **more: Any,
    ) -> B | None: ...
    @overload
    def set(
        self,
        data: P,
        /,
        *,
        if_match: str | None = UNGUARDED,
        returning: Literal[True] = True,
    ) -> B: ...
    @overload
    def set(self, data: P, /, *, if_match: str | None = UNGUARDED, returning: bool) -> B | None: ...
    def set(
        self,
        data: Mapping[str, Any] | None = None,
        /,
        *,
        if_match: str | None = UNGUARDED,
        returning: bool = True,
        **more: Any,
    ) -> Any:
        """Set these keys, keep all others.

        Pass a key named ``if_match`` or ``returning`` in ``data``.
        """
        return self._run(_operations.merge(data, more, if_match, returning), returning)

    @overload
    def replace(
        self: Bucket[B],
        data: Mapping[str, Any],
        *,
        if_match: str | None = UNGUARDED,
        returning: Literal[True] = True,
    ) -> B: ...
    @overload
    def replace(
        self: Bucket[B],
        data: Mapping[str, Any],
        *,
        if_match: str | None = UNGUARDED,
        returning: bool,
    ) -> B | None: ...
    @overload
    def replace(
        self, data: B, *, if_match: str | None = UNGUARDED, returning: Literal[True] = True
    ) -> B: ...
    @overload
    def replace(
        self, data: B, *, if_match: str | None = UNGUARDED, returning: bool
    ) -> B | None: ...
    def replace(
        self, data: Mapping[str, Any], *, if_match: str | None = UNGUARDED, returning: bool = True
    ) -> Any:
        """Replace the whole bucket by the data."""
        headers = _operations.write_headers(if_match, returning)
        return self._run(_operations.replace(data, headers), returning)

    @overload
    def remove(
        self, *keys: str, if_match: str | None = UNGUARDED, returning: Literal[True] = True
    ) -> B: ...
    @overload
    def remove(self, *keys: str, if_match: str | None = UNGUARDED, returning: bool) -> B | None: ...
    def remove(self, *keys: str, if_match: str | None = UNGUARDED, returning: bool = True) -> Any:
        """Remove these keys; ignore keys that the bucket does not have."""
        return self._run(_operations.remove(keys, if_match, returning), returning)

    def clear(self, *, if_match: str | None = UNGUARDED) -> None:
        """Remove the bucket."""
        self._run(_operations.clear(if_match))

    @overload
    def merge_patch(
        self,
        patch: Mapping[str, Any],
        *,
        if_match: str | None = UNGUARDED,
        returning: Literal[True] = True,
    ) -> B: ...
    @overload
    def merge_patch(
        self, patch: Mapping[str, Any], *, if_match: str | None = UNGUARDED, returning: bool
    ) -> B | None: ...
    def merge_patch(
        self, patch: Mapping[str, Any], *, if_match: str | None = UNGUARDED, returning: bool = True
    ) -> Any:
        """Apply a merge patch (RFC 7396): objects merge at every depth, ``None`` removes."""
        return self._run(_operations.merge_patch(patch, if_match, returning), returning)

    @overload
    def json_patch(
        self,
        operations: Iterable[Mapping[str, Any]],
        *,
        if_match: str | None = UNGUARDED,
        returning: Literal[True] = True,
    ) -> B: ...
    @overload
    def json_patch(
        self,
        operations: Iterable[Mapping[str, Any]],
        *,
        if_match: str | None = UNGUARDED,
        returning: bool,
    ) -> B | None: ...
    def json_patch(
        self,
        operations: Iterable[Mapping[str, Any]],
        *,
        if_match: str | None = UNGUARDED,
        returning: bool = True,
    ) -> Any:
        """Apply a JSON Patch (RFC 6902): all operations or none."""
        return self._run(_operations.json_patch(operations, if_match, returning), returning)

    def update(self, function: Callable[[B], B | None]) -> B:
        """Compare and swap: ``function`` modifies its argument, the bucket, or returns another one.

        ``function`` may run several times, each time on the newest bucket, so it should have no
        other effect. Raise PreconditionFailed if concurrent changes prevent the swap for 30 s.
        """
        backoff = Backoff()
        while True:
            now = self.snapshot()
            changed = function(now.bucket)
            after = now.bucket if changed is None else changed
            try:
                stored: B = self._run(_operations.replace(after, now.guard))
                return stored
            except PreconditionFailed:
                if backoff.is_over():
                    raise
            time.sleep(backoff.pause())

    def history(self, *, limit: int | None = 50, values: bool = False) -> list[HistoryEntry]:
        """Return the last changes, the newest first: revision, time, who, and which keys.

        ``limit`` is their number, None for all that are kept. With ``values`` each has ``before``,
        the earlier values of its keys.
        """
        from ._history import Pages

        pages = Pages(limit, values)
        while (query := pages.query()) is not None:
            request = self._request(_operations.read(), "/history", query)
            pages.take((self._exchange(request, returning=False)).members)
        return pages.entries

    @overload
    def undo(
        self,
        revision: int | None = None,
        *,
        if_match: str | None = UNGUARDED,
        returning: Literal[True] = True,
    ) -> B: ...
    @overload
    def undo(
        self,
        revision: int | None = None,
        *,
        if_match: str | None = UNGUARDED,
        returning: bool,
    ) -> B | None: ...
    def undo(
        self,
        revision: int | None = None,
        *,
        if_match: str | None = UNGUARDED,
        returning: bool = True,
    ) -> Any:
        """Take one change back, the last one or that of a revision, and no other.

        Of a bucket that was deleted that is its deletion. Raise a BucketError with the code
        ``undo_conflict`` if a later change has touched one of its keys.
        """
        from ._history import undoing

        request = self._request(undoing(revision, if_match, returning), "/undo")
        reply = self._exchange(request, returning)
        return _operations.result_of(request, reply, returning)

    def at(self, revision: int) -> B:
        """Return the bucket as it was at a revision. Raise NotFound for one that is not kept."""
        from ._history import reading_at

        operation, query = reading_at(revision)
        found: B = (self._exchange(self._request(operation, "", query))).bucket
        return found

    def hold(
        self,
        name: str = "",
        *,
        wait: float = 60.0,
        exclusive: bool = False,
        label: str | None = None,
        on_lost: Callable[[], object] | None = None,
    ) -> HeldBucket[B, P, D]:
        """Be the only one who holds this bucket: ``with bucket.hold() as held: held.set(…)``.

        A device bucket is held with its whole device, so with the buckets of all its jobs. Names
        are independent of each other. Wait up to ``wait`` seconds, first come first served; then
        raise Held, whose ``details`` say who holds it. While an ``exclusive`` hold lives, the
        daemon refuses the writes of all others. ``label`` is shown to those who wait. The hold ends
        with the block, or with this process. If it is lost before, ``on_lost`` is called in another
        thread, and every later call of ``held`` raises HoldLost. Without a block: ``acquire()`` and
        ``release()``.
        """
        from ._held import HoldOptions
        from ._held_bucket import HeldBucket

        return HeldBucket(self, HoldOptions(name, wait, exclusive, label, on_lost))

    def refresh(
        self,
        fresh: Callable[[B], object],
        login: Callable[[B], P] | Callable[[], P],
        *,
        name: str = "login",
        wait: float = 300.0,
    ) -> B:
        """Return the bucket if it is ``fresh(bucket)``; else set what ``login(bucket)`` returns.

        Of many runs at once, one logs in: it holds ``name``, looks again, and only if the bucket is
        still not fresh calls ``login`` (with the bucket, or without arguments). The others wait,
        and return what it has stored. If ``login`` raises, nothing changes, and the next one tries.
        Raise Held after ``wait`` seconds.
        """
        reply = self._refresh(fresh, login, name, wait)
        if "warnings" in reply.members:
            from ._warnings import warn

            # Below the caller are this method and the function.
            warn(reply.members["warnings"], stacklevel=3)
        found: B = reply.bucket
        return found

    def watch(
        self, *keys: str, snapshot: bool = False, since: str | None = None
    ) -> Generator[Change, None, None]:
        """Yield every later change by any client: ``for change in bucket.watch():``.

        With ``keys`` only changes of these keys are yielded. With ``snapshot`` the current bucket
        comes first; ``since``, the ``id`` of a change, continues after that change. A watch waits
        for a daemon that restarts, and continues after the last change. If the daemon no longer
        has the changes in between, a change with ``gap`` has the whole bucket. Raise NoJobContext
        once the token is revoked or expired.
        """
        from ._sync_watch import changes

        return changes(self._watching(keys, snapshot, since))

    def context(self) -> dict[str, Any]:
        """Return device, job, automation and expiry; for a token also whether a schema applies."""
        named = self._named_context()
        if named is not None:
            return named
        data = self._context_request()
        return _operations.context_of(_transport.exchange("GET", data, self._path(), self._timeout))

    def _run(self, operation: Operation, returning: bool = True) -> Any:
        """Return the bucket after an operation, None unless ``returning``."""
        request = self._request(operation)
        return _operations.result_of(request, self._exchange(request, returning), returning)

    def _reply(self, operation: Operation) -> Reply:
        """Return the reply with the bucket after an operation."""
        return self._exchange(self._request(operation))

    def _exchange(self, request: BucketRequest, returning: bool = True) -> Reply:
        """Make a request, and return the reply, with the bucket if ``returning``."""
        try:
            response = _transport.exchange(
                request.method, request.data, request.path, request.timeout
            )
            return request.reply(response) if returning else request.minimal_reply(response)
        except BucketError as problem:
            raise _operations.without_frames(problem) from problem.__cause__

    def _refresh(
        self,
        fresh: Callable[[B], object],
        login: Callable[..., object],
        name: str,
        wait: float,
    ) -> Reply:
        """Return the reply with the bucket that is fresh, or has been refreshed."""
        found = self._reply(_operations.read())
        if fresh(found.bucket):
            return found
        # The imports are late, since a fresh bucket needs none of them.
        from ._held import call_login, new_session

        with self.hold(name, wait=wait) as held:
            found = held._reply(_operations.read())
            if fresh(found.bucket):
                return found
            data = new_session(call_login(login, found.bucket))
            return held._reply(_operations.merge(data, {}, UNGUARDED))
