"""What ``bucketctl migrate`` has carried, for its later runs."""

from __future__ import annotations

import json
import os
import threading
from contextlib import suppress
from typing import IO

from ..parser import Usage

Key = tuple[str, "str | None"]  # device and job; no job for a device bucket
HEAD = "bucketctl migrate, format 1\n"


class Note:
    """Which state of each bucket was carried; in a file too, where one is named.

    Only that tells a bucket that was removed at the source from one of another host.
    """

    def __init__(self, path: str | None, keep: bool = True) -> None:
        self.carried: dict[Key, str] = {}
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
                with suppress(ValueError):  # a kill cut it: that bucket was not carried yet
                    device, job, at = json.loads(line)
                    self.carried[device, job] = at

    def add(self, key: Key, at: str) -> None:
        """Before it is carried, so that a kill in between leaves nothing unknown."""
        with self._lock:
            self.carried[key] = at
            self._append(json.dumps([*key, at]) + "\n")

    def _append(self, text: str) -> None:
        if self._file is not None:
            self._file.write(text)
            self._file.flush()
            os.fsync(self._file.fileno())
