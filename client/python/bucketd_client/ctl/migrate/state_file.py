"""The record of the buckets that ``bucketctl migrate`` has copied, for its later runs."""

from __future__ import annotations

import json
import os
import threading
from contextlib import suppress
from typing import IO

from ..parser import Usage

# Device and job; no job for a device bucket.
Key = tuple[str, "str | None"]
HEAD = "bucketctl migrate, format 1\n"


class StateFile:
    """The state of each bucket when it was copied, in memory and in an optional file.

    Only this record distinguishes a bucket that was removed at the source from one that another
    host has created on the target.
    """

    def __init__(self, path: str | None, keep: bool = True) -> None:
        self.copied: dict[Key, str] = {}
        self._lock = threading.Lock()
        self._file: IO[str] | None = None
        try:
            if path is not None:
                self._read(path)
            if path is not None and keep:
                self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115
                self._append(HEAD if self._file.tell() == 0 else "\n")
        except OSError as problem:
            raise Usage(f"cannot use the note {path}: {problem.strerror}") from None

    def _read(self, path: str) -> None:
        if not os.path.exists(path):
            return
        with open(path, encoding="utf-8", errors="replace") as file:
            if (beginning := file.readline()) and beginning != HEAD:
                raise Usage(f"cannot use the note {path}: bucketctl migrate has not written it")
            for line in file:
                # A kill may have cut the last line; its bucket was not copied yet.
                with suppress(ValueError, TypeError):
                    device, job, at = json.loads(line)
                    self.copied[device, job] = at

    def add(self, key: Key, at: str) -> None:
        """Record a bucket before it is copied, so that no copy is unknown after a kill."""
        with self._lock:
            self.copied[key] = at
            self._append(json.dumps([*key, at]) + "\n")

    def _append(self, text: str) -> None:
        if self._file is not None:
            self._file.write(text)
            self._file.flush()
            os.fsync(self._file.fileno())
