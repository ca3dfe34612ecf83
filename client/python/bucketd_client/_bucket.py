"""``Bucket``: plain dicts in and out, exceptions for what goes wrong."""

from __future__ import annotations

import time

from . import _operations
from ._errors import PreconditionFailed
from ._operations import UNGUARDED, Asking, B, Rounds, Snapshot

TYPE_CHECKING = False  # see bucketd_client

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Mapping
    from typing import Any, Callable

    from ._events import Change


class Bucket(Asking[B]):
    """One bucket; ``Bucket[MyTypedDict]`` types what it gives. Every write returns the whole.

    Raises BucketError. ``if_match`` takes the ``etag`` of a snapshot, and the write
    is refused with PreconditionFailed where the bucket has changed since (None: where one
    is there now).
    """

    def get(self, *keys: str) -> B:
        """The bucket, ``{}`` where none is stored; with keys only those that it has."""
        return self._bucket(_operations.reading(keys))

    def snapshot(self) -> Snapshot[B]:
        """The bucket with its revision and ETag."""
        return self._snapshot(_operations.reading())

    def set(
        self,
        data: Mapping[str, Any] | None = None,
        /,
        *,
        if_match: str | None = UNGUARDED,
        **more: Any,
    ) -> B:
        """Set these keys, keep all others. A key called ``if_match`` goes into ``data``."""
        return self._bucket(_operations.setting(data, more, if_match))

    def replace(self, data: Mapping[str, Any], *, if_match: str | None = UNGUARDED) -> B:
        """The whole bucket anew."""
        return self._bucket(_operations.replacing(data, _operations.matching(if_match)))

    def remove(self, *keys: str, if_match: str | None = UNGUARDED) -> B:
        """Remove these keys; those that are not there are no error."""
        return self._bucket(_operations.removing(keys, if_match))

    def clear(self, *, if_match: str | None = UNGUARDED) -> None:
        """Remove the bucket."""
        self._bucket(_operations.clearing(if_match))

    def merge_patch(self, patch: Mapping[str, Any], *, if_match: str | None = UNGUARDED) -> B:
        """RFC 7396: objects merge at every depth, ``None`` removes."""
        return self._bucket(_operations.merging(patch, if_match))

    def json_patch(
        self, operations: Iterable[Mapping[str, Any]], *, if_match: str | None = UNGUARDED
    ) -> B:
        """RFC 6902: all operations or none."""
        return self._bucket(_operations.patching(operations, if_match))

    def update(self, function: Callable[[B], B | None]) -> B:
        """Compare-and-swap: ``function`` changes the bucket it is given, or returns another.

        It may run several times, each time on the newest bucket, so it should do nothing
        else. Raises PreconditionFailed where others have been faster for 30 s.
        """
        rounds = Rounds()
        while True:
            now = self.snapshot()
            changed = function(now.bucket)
            after = now.bucket if changed is None else changed
            try:
                return self._bucket(_operations.replacing(after, now.guard))
            except PreconditionFailed:
                if rounds.over():
                    raise
            time.sleep(rounds.pause())

    def watch(
        self, *keys: str, snapshot: bool = False, since: str | None = None
    ) -> Generator[Change, None, None]:
        """Every change from now on, by whomever: ``for change in bucket.watch():``.

        With ``keys`` only changes of these. With ``snapshot`` the bucket as it is comes first;
        ``since``, the ``id`` of a change, goes on behind that one. It waits for a daemon that
        restarts and goes on where it was; where that is not known any more, a change with
        ``gap`` has the whole bucket. Raises NoJobContext once the token is revoked or expired.
        """
        from ._sync_watch import changes

        return changes(self._watching(keys, snapshot, since))

    def context(self) -> dict[str, Any]:
        """Device, job, automation and expiry; of a token also whether a schema applies."""
        return self._context()
