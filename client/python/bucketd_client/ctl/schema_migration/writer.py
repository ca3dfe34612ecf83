"""Change the buckets of a migration one by one, each by a compare-and-swap that is recorded."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any, NamedTuple, Optional

from ... import _api, _context
from ..._errors import BucketError, ConnectionLost, PreconditionFailed, Timeout
from ..commands.import_buckets import OF_ONE
from ..json_diff import ABSENT, same
from ..progress import Progress
from ..refusals import status_of
from ..session import NEWEST, Session
from ..thread_pool import ThreadPool
from .backup import Backup
from .plan import Computer, Refusal, repeated
from .record import CHANGED, REMOVED, SAME, UNKNOWN, Intent, Key, Record, agrees
from .transform import Bucket, Refused

# One write of the record covers so many buckets.
CHUNK = 200
# A bucket that changes meanwhile is computed again so many times.
TRIES = 5
PRECONDITION = 6
# A bucket in a list; None for one that has been changed since.
Row = Optional[dict[str, Any]]


class Change(NamedTuple):
    """Keep what is recorded of a change, and the whole new bucket."""

    intent: Intent
    after: Bucket


class Writer:
    """Change buckets; ``refused`` has those that could not be changed."""

    def __init__(
        self, session: Session, computer: Computer, backup: Backup, record: Record, total: int
    ) -> None:
        self._session, self._computer = session, computer
        self._backup, self._record = backup, record
        self.refused: dict[Key, Refusal] = {}
        self._total, self._lock = total, threading.Lock()

    def change(self, rows: Iterable[dict[str, Any]]) -> None:
        """Change these buckets, unless the record has their outcome."""
        waiting = iter(rows)
        with Progress("migrate") as progress:
            while chunk := list(islice(waiting, CHUNK)):
                self._change({(row["device"], row["job"]): row for row in chunk})
                done = len(self._record.outcomes)
                progress.at(done, done / self._total if self._total else None)

    def _change(self, rows: dict[Key, Row]) -> None:
        for _ in range(TRIES):
            changes = self._computed(rows)
            # The state before a change is safe before the change is made.
            self._backup.sync()
            self._record.intend(change.intent for change in changes.values())
            rows = self._written(changes)
            if not rows:
                return
        for key in rows:
            self._refuse(key, f"others have changed it {TRIES} times meanwhile", PRECONDITION)

    # --- before a change

    def _computed(self, rows: dict[Key, Row]) -> dict[Key, Change]:
        """Return the changes of these buckets; record the outcome of those that need none."""
        found: dict[Key, Change] = {}

        def compute(key: Key) -> None:
            change = self._change_of(key, rows[key])
            if change is not None:
                found[key] = change

        self._each(rows, compute)
        return found

    def _change_of(self, key: Key, row: Row) -> Change | None:
        """Return the change of a bucket; None if its outcome is known. Raises Refused."""
        before, revision, etag = self._read(key)
        created_at = None if etag is None else self._backup.add(key, row)
        if etag is None:
            self._record.note(key, REMOVED, None)
            return None
        after = self._computer.after(key, created_at, before)
        differing = [
            name
            for name in {**before, **after}
            if not same(before.get(name, ABSENT), after.get(name, ABSENT))
        ]
        if not differing:
            self._record.note(key, SAME, created_at)
            return None
        sides = [{n: side[n] for n in differing if n in side} for side in (before, after)]
        return Change(Intent(key, created_at, revision, etag, *sides), after)

    def _read(self, key: Key) -> tuple[Bucket, int, str | None]:
        """Return bucket, revision and ETag."""
        reply = self._session.call("GET", _target(key), headers=NEWEST)
        return reply.members["bucket"], reply.members["revision"], reply.etag

    # --- the change

    def _written(self, changes: dict[Key, Change]) -> dict[Key, Row]:
        """Make these changes; return the buckets that have to be computed again."""
        again: dict[Key, Row] = {}

        def write(key: Key) -> None:
            if not self._put(changes[key]):
                again[key] = None

        self._each(changes, write)
        return again

    def _put(self, change: Change) -> bool:
        """Make one change; return False if the bucket has changed since it was computed."""
        intent, body = change.intent, _api.encode(change.after)
        headers = {"If-Match": intent.etag, "Content-Type": _api.JSON, **_api.RETURN_MINIMAL}
        try:
            self._session.call("PUT", _target(intent.key), headers=headers, body=body)
        except PreconditionFailed:
            # A killed migration may have sent the same change just before.
            return self._settle(intent, was_refused=True)
        except (ConnectionLost, Timeout):
            return self._settle(intent)
        self._record.note(intent.key, CHANGED, intent.created_at)
        return True

    def settle_all(self) -> None:
        """Find out what has become of the changes of an earlier run whose outcome is unknown."""
        pending = dict(self._record.pending)
        self._each(pending, lambda key: self._settle(pending[key]))

    def _settle(self, intent: Intent, was_refused: bool = False) -> bool:
        """Record what has become of a change whose outcome is unknown; False if it was not made."""
        bucket, revision, etag = repeated(lambda: self._read(intent.key))
        if etag is None:
            outcome = REMOVED
        elif etag == intent.etag:
            return False
        elif agrees(bucket, intent.after, intent.before):
            outcome = CHANGED
        elif was_refused or revision <= intent.revision + 1:
            # The one change since is that of somebody else, or the bucket was created anew.
            return False
        elif agrees(bucket, intent.before, intent.after):
            # Others have changed only what this change leaves alone.
            return False
        else:
            outcome = UNKNOWN
        self._record.note(intent.key, outcome, intent.created_at)
        return True

    # --- failures

    def _each(self, keys: Iterable[Key], work: Callable[[Key], object]) -> None:
        """Call ``work`` with each key, on several threads; record what is refused of one bucket."""

        def guarded(key: Key) -> None:
            try:
                work(key)
            except Refused as problem:
                self._refuse(key, str(problem), problem.status)
            except BucketError as problem:
                if problem.code not in OF_ONE:
                    raise
                self._refuse(key, problem.message, status_of(problem))

        pool: ThreadPool[Key] = ThreadPool(guarded)
        for key in keys:
            pool.put(key, key)
        pool.finish()

    def _refuse(self, key: Key, message: str, status: int) -> None:
        with self._lock:
            self.refused[key] = Refusal(key, message, status)


def _target(key: Key) -> str:
    return _context.named(key[0], key[1], None, False).target()
