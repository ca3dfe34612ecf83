"""A client in a separate process: operations one after another, with the times of each.

The process reads one order per line, performs it, and writes the log in one line of JSON. The clock
is CLOCK_MONOTONIC, which all processes of a machine share.
"""

from __future__ import annotations

import json
import random
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from harness import Daemon, Response
from holders import Holder

KINDS = ("get", "get", "set", "set", "set", "replace", "remove", "swap", "swap", "swap", "clear")
METHODS = {"get": "GET", "set": "PATCH", "replace": "PUT", "swap": "PUT"}  # all others: DELETE
KEYS = "abc"
PAUSE = 0.004
Record = dict[str, Any]


def plan(dice: random.Random, etag: str | None) -> Record:
    """Return a random operation; there are few values, so that some changes change nothing."""
    kind = dice.choice(KINDS)
    if kind == "swap" and etag is None:
        kind = "get"
    record: Record = {"kind": kind}
    if kind in ("set", "replace", "swap"):
        keys = dice.sample(KEYS, dice.randrange(1, 3))
        record["data"] = {key: dice.randrange(5) for key in keys}
    if kind == "remove":
        record["keys"] = dice.sample(KEYS, dice.randrange(1, 3))
    if kind == "swap":
        record["guard"] = etag
    return record


def send(daemon: Daemon, path: str, record: Record) -> Response:
    """Perform an operation on a connection that is open before the recorded time."""
    query = "?" + "&".join(f"key={key}" for key in record["keys"]) if "keys" in record else ""
    guard = {"If-Match": record["guard"]} if "guard" in record else {}
    if "fence" in record:
        guard["Bucketd-Fence"] = record["fence"]
    method = METHODS.get(record["kind"], "DELETE")
    with connected(daemon) as sock:
        record["invoked"] = time.monotonic_ns()
        return daemon.request(method, path + query, record.get("data"), guard, sock=sock)


def connected(daemon: Daemon) -> Any:
    """Return a connection, as soon as the daemon accepts one."""
    while True:
        try:
            return daemon.connect()
        except OSError:
            time.sleep(0.002)


def note(record: Record, response: Response) -> None:
    record["answered"] = time.monotonic_ns()
    record["status"] = response.status
    if response.status == 412:
        record["code"] = response.json["code"]
    if response.status in (200, 412) and record.get("code") != "hold_lost":
        record["revision"] = response.json["revision"]
    if response.status == 200:
        record["bucket"], record["etag"] = response.bucket, response.etag


class Holding:
    """At most one hold at a time, with the operations that it makes; all fences that there were."""

    def __init__(self, daemon: Daemon, dice: random.Random) -> None:
        self._daemon, self._dice = daemon, dice
        self._holder: Holder | None = None
        self._path, self._taken = "", 0
        self._fences: dict[str, list[str]] = {}

    def step(self, logs: dict[str, list[Record]], path: str) -> None:
        """Take a hold, or release it, or come back to it after a restart of the daemon."""
        try:
            if self._holder is None:
                self._take(logs, path)
            elif self._is_gone(self._holder):
                self._come_back(logs)
            else:
                self._release(logs)
        except (ConnectionError, TimeoutError, EOFError):
            # The holder may come back, and a take without a response is none.
            pass

    def fence(self, path: str) -> str | None:
        """Return the fence for the next write, mostly the current one, sometimes an old one."""
        known = self._fences.get(path)
        if known is None or self._dice.random() < 0.2:
            return None
        is_held = self._holder is not None and self._path == path
        return known[-1] if is_held and self._dice.random() < 0.9 else self._dice.choice(known)

    def close(self, logs: dict[str, list[Record]]) -> None:
        if self._holder is not None:
            self._end(logs, None)

    def _take(self, logs: dict[str, list[Record]], path: str) -> None:
        with connected(self._daemon):
            invoked = time.monotonic_ns()
        self._ask(logs, path, {"wait_seconds": self._dice.choice((0, 0.05, 0.5))}, invoked)

    def _ask(self, logs: dict[str, list[Record]], path: str, body: Record, invoked: int) -> None:
        holder = Holder(self._daemon, path.removesuffix("bucket") + "hold", body, timeout=30)
        try:
            if holder.response().status != 200:
                holder.close()
                if "fence" in body:
                    self._end(logs, None)
                return
        except BaseException:
            holder.close()
            raise
        if self._holder is not None:
            self._holder.close()
        self._holder, self._path = holder, path
        if "fence" not in body:
            fence = str(holder.hold["fence"])
            self._fences.setdefault(path, []).append(fence)
            self._taken = answered = time.monotonic_ns()
            record = {"kind": "take", "invoked": invoked, "answered": answered, "fence": fence}
            logs[path].append(record)

    def _is_gone(self, holder: Holder) -> bool:
        holder.sock.setblocking(False)
        try:
            return holder.sock.recv(65536) == b""
        except BlockingIOError:
            return False
        except ConnectionError:
            return True
        finally:
            holder.sock.settimeout(30)

    def _come_back(self, logs: dict[str, list[Record]]) -> None:
        if self._dice.random() < 0.3:
            self._end(logs, None)
        else:
            with connected(self._daemon):
                body = {"fence": self._fences[self._path][-1]}
            self._ask(logs, self._path, body, 0)

    def _release(self, logs: dict[str, list[Record]]) -> None:
        assert self._holder is not None
        if self._dice.random() < 0.5:
            self._end(logs, None)
            return
        # Once an operator is told that it has ended, no write with its fence is applied.
        target, invoked = f"/v1/holds/{self._holder.id}", time.monotonic_ns()
        try:
            status = self._daemon.request("DELETE", target).status
        except (ConnectionError, TimeoutError):
            self._end(logs, None)
        else:
            self._end(logs, time.monotonic_ns(), invoked if status == 200 else None)

    def _end(
        self, logs: dict[str, list[Record]], answered: int | None, invoked: int | None = None
    ) -> None:
        """Record the end of a hold, which may have been lost at any time since it was had."""
        assert self._holder is not None
        self._holder.close()
        self._holder = None
        invoked = self._taken if invoked is None else invoked
        fence = self._fences[self._path][-1]
        record = {"kind": "release", "invoked": invoked, "answered": answered, "fence": fence}
        logs[self._path].append(record)


def perform(
    daemon: Daemon, paths: list[str], count: int, seed: int, holds: float = 0.0
) -> dict[str, list[Record]]:
    """Perform ``count`` operations on buckets, and return the log of each bucket.

    So many of them, in the mean, are about ``holds``.
    """
    dice, etags = random.Random(seed), dict.fromkeys(paths)
    logs: dict[str, list[Record]] = {path: [] for path in paths}
    holding = Holding(daemon, dice)
    for _ in range(count):
        path = dice.choice(paths)
        if dice.random() < holds:
            holding.step(logs, path)
            continue
        record = plan(dice, etags[path])
        fence = holding.fence(path) if record["kind"] != "get" else None
        if fence is not None:
            record["fence"] = fence
        try:
            note(record, send(daemon, path, record))
        except (ConnectionError, TimeoutError):
            # The operation may take effect now, later or never.
            record["answered"] = None
        etags[path] = record.get("etag") or etags[path]
        logs[path].append(record)
        time.sleep(dice.random() * PAUSE)
    holding.close(logs)
    return logs


def main() -> None:
    daemon = Daemon(Path(sys.argv[1]))
    for line in sys.stdin:
        print(json.dumps(perform(daemon, **json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
