"""The backup of a migration: the envelope of each bucket as it was before its change."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from itertools import islice
from typing import Any, NamedTuple

from ... import _context
from ..commands.export import line_of
from ..filters import PAGE
from ..parser import Usage
from ..progress import Progress
from ..session import Session
from .record import Key, Record, sync_directory


class Saved(NamedTuple):
    """Name the state of a bucket that is in the backup."""

    revision: int
    updated_at: str | None
    created_at: str | None


class Backup:
    """A file of envelopes, one a line, of mode 0600; ``bucketctl import`` restores it.

    The first lines are the buckets that existed at the beginning. A bucket that appears, or
    changes, before its turn is added in its newer state, which an import then prefers.
    """

    def __init__(self, session: Session, path: str, record: Record) -> None:
        self.path = path
        self._session, self._record = session, record
        self._lock = threading.Lock()
        # The newest line of each bucket.
        self._saved: dict[Key, Saved] = {}
        # The buckets that existed at the beginning.
        self.planned: dict[Key, str | None] = {}
        try:
            if record.planned is None:
                self._create()
            else:
                self._continue(record.planned)
            self._file = open(path, "ab")  # noqa: SIM115
        except OSError as problem:
            raise Usage(f"cannot write the backup {path}: {problem.strerror}") from None

    def _create(self) -> None:
        part = f"{self.path}.part"
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "wb") as file, Progress("backup") as progress:
            for members in pages(self._session, "/v1/export", self._record.head["automation"]):
                for envelope in members["envelopes"]:
                    file.write(line_of(envelope))
                    self._take(envelope)
                progress.at(len(self._saved))
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, self.path)
        sync_directory(self.path)
        self.planned = {key: saved.created_at for key, saved in self._saved.items()}
        self._record.plan(len(self._saved))

    def _continue(self, planned: int) -> None:
        self.planned = planned_in(self.path, planned)
        with open(self.path, "rb+") as file:
            end = 0
            for line in file:
                if not line.endswith(b"\n"):
                    # A kill has cut this line; its bucket was not changed yet.
                    file.truncate(end)
                    break
                self._take(json.loads(line))
                end += len(line)

    def _take(self, envelope: dict[str, Any]) -> None:
        key = (envelope["device"], envelope["job"])
        self._saved[key] = Saved(*(envelope[name] for name in Saved._fields))

    def add(self, key: Key, row: dict[str, Any] | None) -> str | None:
        """Add a bucket unless the backup has its state; return its time of creation.

        ``row`` is the bucket in a list of this moment, None if it has been changed since.
        """
        saved = self._saved.get(key)
        if (
            row is not None
            and saved is not None
            and saved[:2] == (row["revision"], row["updated_at"])
        ):
            return saved.created_at
        envelope = envelope_of(self._session, key)
        if envelope is None:
            return None
        with self._lock:
            self._take(envelope)
            self._file.write(line_of(envelope))
        created_at: str | None = envelope["created_at"]
        return created_at

    def sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())


def planned_in(path: str, count: int) -> dict[Key, str | None]:
    """Return the first ``count`` buckets of a backup with their times of creation."""
    found: dict[Key, str | None] = {}
    try:
        with open(path, "rb") as file:
            for line in islice(file, count):
                envelope = json.loads(line)
                found[envelope["device"], envelope["job"]] = envelope["created_at"]
    except (OSError, ValueError, KeyError, TypeError) as problem:
        cause = getattr(problem, "strerror", None) or "it is not what the migration has written"
        raise Usage(f"cannot use the backup {path}: {cause}; restore it") from None
    if len(found) < count:
        raise Usage(f"cannot use the backup {path}: it had {count} buckets; restore it")
    return found


def pages(session: Session, path: str, automation: str) -> Iterator[dict[str, Any]]:
    """Yield the pages of a list, of one automation."""
    target = f"{path}?automation={_context.escape(automation)}&limit={PAGE}"
    cursor: str | None = ""
    while cursor is not None:
        members = session.call("GET", target + (f"&cursor={cursor}" if cursor else "")).members
        yield members
        cursor = members["next_cursor"]


def envelope_of(session: Session, key: Key) -> dict[str, Any] | None:
    """Return the envelope of one bucket; None if it is not stored."""
    names = f"device={_context.escape(key[0])}&job={_context.escape(key[1])}"
    found: list[dict[str, Any]] = session.call("GET", f"/v1/export?{names}").members["envelopes"]
    return found[0] if found else None
