"""One of many processes that want one hold: take it, write with its fence, let it go, again.

Every step is a line of the process's log, with the time of CLOCK_MONOTONIC, which all processes of
a machine share. A kill loses no line.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from harness import Daemon, Response
from holders import Holder

WRITES = 3
BACK_SECONDS = 10.0
JSON_PATCH = {"Content-Type": "application/json-patch+json"}
GONE = (OSError, EOFError)


class Contender:
    """Takes the hold at ``path`` and writes to ``bucket`` on one daemon, until it is killed."""

    def __init__(self, home: str, path: str, bucket: str, log: str) -> None:
        self._daemon, self._path, self._bucket = Daemon(Path(home)), path, bucket
        self._log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._dice = random.Random(os.getpid())

    def note(self, what: str, **more: Any) -> None:
        line = {"what": what, "at": time.monotonic(), "pid": os.getpid(), **more}
        os.write(self._log, json.dumps(line).encode() + b"\n")

    def run(self) -> None:
        while True:
            with contextlib.suppress(*GONE):
                holder = Holder(self._daemon, self._path, {"wait_seconds": 60}, timeout=90)
                with holder:
                    self.note("ask")
                    if holder.response().status == 200:
                        self.note("take", fence=holder.hold["fence"])
                        self.hold(holder)
                        continue
            time.sleep(0.02)

    def hold(self, holder: Holder) -> None:
        """Write a few times, and release; come back if the daemon went away meanwhile."""
        fence = holder.hold["fence"]
        current: Holder | None = holder
        for _ in range(WRITES):
            if self._dice.random() < 0.2:
                time.sleep(self._dice.random() * 0.01)
            with contextlib.suppress(*GONE):
                status = self.write(fence)
                self.note("write", fence=fence, status=status)
                if status == 412:
                    break
                continue
            current = self.come_back(fence)
            if current is None:
                self.note("lost", fence=fence)
                return
        self.note("release", fence=fence)
        if current is not None:
            with current, contextlib.suppress(*GONE):
                current.sock.shutdown(socket.SHUT_WR)
                # What comes before the end may say that it was lost meanwhile.
                while current.sock.recv(65536):
                    pass
        if self._dice.random() < 0.2:
            # A late write of somebody who does not know that it has lost.
            with contextlib.suppress(*GONE):
                self.note("late", fence=fence, status=self.write(fence))

    def write(self, fence: str) -> int:
        patch = [{"op": "add", "path": "/log/-", "value": fence}]
        headers = {**JSON_PATCH, "Bucketd-Fence": fence}
        response: Response = self._daemon.request("PATCH", self._bucket, patch, headers)
        return response.status

    def come_back(self, fence: str) -> Holder | None:
        deadline = time.monotonic() + BACK_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(*GONE):
                holder = Holder(self._daemon, self._path, {"fence": fence}, timeout=20)
                status = holder.response().status
                if status == 200:
                    self.note("back", fence=fence)
                    return holder
                holder.close()
                if status != 503:
                    return None
            time.sleep(0.02)
        return None


if __name__ == "__main__":
    Contender(*sys.argv[1:]).run()
