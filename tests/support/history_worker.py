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
    guard = {"If-Match": record["guard"]} if "guard" in record else None
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
    if response.status in (200, 412):
        record["revision"] = response.json["revision"]
    if response.status == 200:
        record["bucket"], record["etag"] = response.bucket, response.etag


def perform(daemon: Daemon, paths: list[str], count: int, seed: int) -> dict[str, list[Record]]:
    """Perform ``count`` operations on buckets, and return the log of each bucket."""
    dice, etags = random.Random(seed), dict.fromkeys(paths)
    logs: dict[str, list[Record]] = {path: [] for path in paths}
    for _ in range(count):
        path = dice.choice(paths)
        record = plan(dice, etags[path])
        try:
            note(record, send(daemon, path, record))
        except (ConnectionError, TimeoutError):
            # The operation may take effect now, later or never.
            record["answered"] = None
        etags[path] = record.get("etag") or etags[path]
        logs[path].append(record)
        time.sleep(dice.random() * PAUSE)
    return logs


def main() -> None:
    daemon = Daemon(Path(sys.argv[1]))
    for line in sys.stdin:
        print(json.dumps(perform(daemon, **json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
