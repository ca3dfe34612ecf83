"""The record of a migration: a file that says, across a kill, which buckets are changed already.

A patch that is applied twice may destroy a bucket, and neither its content nor the schema tells
whether it was applied. So the record names each change before it is made (an intent, with the ETag
and the values before and after) and after it (an outcome). Intents are durable before the first of
their changes is sent. A later run compares the stored bucket with an intent without an outcome.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, NamedTuple

from ..parser import Usage

# Device and job; a device bucket has no automation.
Key = tuple[str, str]
FORMAT = "bucketctl schema migrate, format 1"
# The outcomes: changed by this migration; needs no change; gone; perhaps changed.
CHANGED, SAME, REMOVED, UNKNOWN = "changed", "same", "removed", "unknown"
SUFFIX = ".state"


class Intent(NamedTuple):
    """One change; ``before`` and ``after`` have only the keys of the bucket that differ."""

    key: Key
    created_at: str | None
    revision: int
    etag: str
    before: dict[str, Any]
    after: dict[str, Any]


class Outcome(NamedTuple):
    """Record what became of a bucket; ``created_at`` tells it from one created anew."""

    what: str
    created_at: str | None


class Record:
    """The intents and outcomes, in memory and in a file beside the backup.

    ``head`` identifies the migration, ``planned`` is the number of buckets in the backup once that
    is complete, and ``finished`` says that the new schema is in force and nothing is left.
    """

    def __init__(self, path: str, head: dict[str, Any], keep: bool = True) -> None:
        """Continue the record at ``path``, or begin it; without ``keep`` write nothing."""
        self.path, self.head = path, head
        self.planned: int | None = None
        self.finished = self.resumed = False
        self.outcomes: dict[Key, Outcome] = {}
        self.pending: dict[Key, Intent] = {}
        self._lock = threading.Lock()
        self._descriptor: int | None = None
        try:
            if keep:
                self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._read(path)
            if keep and not self.resumed:
                self._append([head])
                self.sync()
                sync_directory(path)
            elif keep:
                # A kill may have cut the last line.
                self._write("\n")
        except BlockingIOError:
            raise Usage(f"cannot migrate: another bucketctl works with {path}") from None
        except OSError as problem:
            raise Usage(f"cannot use {path}: {problem.strerror}") from None

    def _read(self, path: str) -> None:
        if not os.path.exists(path):
            return
        with open(path, encoding="utf-8", errors="replace") as file:
            beginning = file.readline()
            if not beginning.endswith("\n"):
                # The file is new, or a kill has cut its first line: nothing was done yet.
                if self._descriptor is not None:
                    os.ftruncate(self._descriptor, 0)
                return
            self._check_head(path, beginning)
            for line in file:
                with suppress(ValueError, TypeError, KeyError):
                    self._take(json.loads(line))

    def _check_head(self, path: str, line: str) -> None:
        try:
            head = json.loads(line)
        except ValueError:
            head = None
        if not isinstance(head, dict) or head.get("format") != FORMAT:
            raise Usage(f"cannot use {path}: bucketctl schema migrate has not written it")
        if any(head.get(name) != self.head[name] for name in ("automation", "id")):
            raise Usage(
                f"cannot use {path}: it is of the migration of {head.get('automation')!r} to "
                "another schema; give --backup another file"
            )
        self.head, self.resumed = head, True

    def _take(self, entry: dict[str, Any]) -> None:
        if "intent" in entry:
            device, job, created_at, revision, etag = entry["intent"]
            key = (device, job)
            self.pending[key] = Intent(
                key, created_at, revision, etag, entry["before"], entry["after"]
            )
        elif "outcome" in entry:
            device, job, created_at, what = entry["outcome"]
            self.outcomes[device, job] = Outcome(what, created_at)
            self.pending.pop((device, job), None)
        elif "planned" in entry:
            self.planned = entry["planned"]
        elif "finished" in entry:
            self.finished = bool(entry["finished"])

    def plan(self, count: int) -> None:
        """Record that the backup is complete, before anything is changed."""
        self.planned = count
        self._append([{"planned": count}])
        self.sync()

    def intend(self, intents: Iterable[Intent]) -> None:
        """Record changes durably, before they are made."""
        found = list(intents)
        self.pending.update((intent.key, intent) for intent in found)
        self._append(
            {
                "intent": [*intent.key, intent.created_at, intent.revision, intent.etag],
                "before": intent.before,
                "after": intent.after,
            }
            for intent in found
        )
        self.sync()

    def note(self, key: Key, what: str, created_at: str | None) -> None:
        """Record the outcome of a bucket, on any thread."""
        with self._lock:
            self.outcomes[key] = Outcome(what, created_at)
            self.pending.pop(key, None)
            self._append([{"outcome": [*key, created_at, what]}])

    def finish(self, finished: bool) -> None:
        self.finished = finished
        self._append([{"finished": finished}])
        self.sync()

    def sync(self) -> None:
        if self._descriptor is not None:
            os.fsync(self._descriptor)

    def _append(self, entries: Iterable[dict[str, Any]]) -> None:
        lines = [json.dumps(e, ensure_ascii=False, separators=(",", ":")) for e in entries]
        self._write("".join(f"{line}\n" for line in lines))

    def _write(self, text: str) -> None:
        data = memoryview(text.encode())
        while data and self._descriptor is not None:
            data = data[os.write(self._descriptor, data) :]


def sync_directory(path: str) -> None:
    """Make the name of a new file durable."""
    descriptor = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def agrees(bucket: dict[str, Any], side: dict[str, Any], other: dict[str, Any]) -> bool:
    """Report whether a bucket has the values of one side of an intent, at all keys that differ."""
    from ..json_diff import ABSENT, same

    return all(same(bucket.get(key, ABSENT), side.get(key, ABSENT)) for key in {**side, **other})
