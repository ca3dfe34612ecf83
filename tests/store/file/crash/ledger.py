"""Writers that note outside the daemon what was acknowledged, and the comparison with it.

Each bucket of a writer holds a number and a text that follows from the number, so what is
found says which write made it, and whether it is whole.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from harness import Daemon, Response, pair

STEADY = 5  # writers that change one bucket all the time
LARGE = "a login " * 600
SLOTS, KEPT = 40, 4  # the last writer makes buckets, and deletes all but the newest of them


@dataclass
class Known:
    """One bucket: what was acknowledged last (0 is absence), and what has no answer yet."""

    number: int = 0
    revision: int = 0
    pending: int | None = None
    history: list[tuple[float, int]] = field(default_factory=list)  # when, and which number

    def acknowledge(self, revision: int) -> None:
        assert self.pending is not None
        assert revision == (self.revision + 1 if self.pending else 0), (self, revision)
        self.number, self.revision, self.pending = self.pending, revision, None
        self.history.append((time.monotonic(), self.number))


@dataclass
class Ledger:
    """All buckets by path, and the figures of the proof."""

    known: dict[str, Known] = field(default_factory=dict)
    made: int = 0
    cuts: int = 0
    acknowledged: int = 0
    lost: int = 0
    torn: int = 0
    back: int = 0
    # Files whose bytes had not been written, so that they are empty or (ext4) all zeros:
    # the next start has to complete them before it serves.
    empty: int = 0

    def of(self, path: str) -> Known:
        return self.known.setdefault(path, Known())

    def put(
        self, daemon: Daemon, path: str, number: int, sock: socket.socket | None = None
    ) -> Response:
        """One write (0: a deletion), and what its answer says noted."""
        known = self.of(path)
        before, known.pending = known.pending, number
        method, body = ("PUT", value(number)) if number else ("DELETE", None)
        answer = daemon.request(method, path, body, sock=sock)
        if answer.status == 200:
            known.acknowledge(answer.json["revision"])
            self.acknowledged += 1
        elif "unknown" not in answer.json["error"]:
            known.pending = before  # it says that nothing changed, and has to be right
        else:
            assert before is None, "a write was tried when the outcome of another was unknown"
        return answer

    @property
    def wrong(self) -> tuple[int, int, int]:
        return self.lost, self.torn, self.back

    def __str__(self) -> str:
        return (
            f"{self.cuts} cuts, {self.acknowledged} acknowledged, {self.lost} lost, "
            f"{self.torn} torn, {self.back} revisions back, "
            f"{self.empty} files without their bytes until the start"
        )


def value(number: int) -> dict[str, object]:
    """Make up to 2 KB, so that records and files end anywhere in a block.

    Eight numbers in turn have a large text as well, which the journal does not repeat.
    """
    found: dict[str, object] = {"n": number, "pad": f"{number}." * (number * 7919 % 400)}
    return found | {"login": LARGE} if number // 8 % 2 else found


def slot(number: int) -> str:
    return pair(f"new{number % 3}", f"{number % SLOTS}")


class Load:
    """Several writers at once, until told to stop or cut off."""

    def __init__(self, daemon: Daemon, ledger: Ledger) -> None:
        self.daemon, self.ledger = daemon, ledger
        self._stop = threading.Event()
        jobs = [*(partial(self._steady, n) for n in range(STEADY)), self._maker]
        self._threads = [threading.Thread(target=self._until_over, args=(job,)) for job in jobs]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()

    def join(self) -> None:
        self.stop()
        for thread in self._threads:
            thread.join()

    def _until_over(self, job: Callable[[socket.socket], None]) -> None:
        # Whatever ends the connection, this writer's part in the round is over.
        with contextlib.suppress(OSError), self.daemon.connect() as sock:
            job(sock)

    def _steady(self, writer: int, sock: socket.socket) -> None:
        # Some share a device, one is a device bucket, so that every kind of file is met.
        path = pair(f"d{writer % 3}", None if writer == 0 else f"job/{writer}")
        number = self.ledger.of(path).number + 1
        while self._put(path, number, sock):
            number += 1

    def _maker(self, sock: socket.socket) -> None:
        going = True
        while going:
            number = self.ledger.made = self.ledger.made + 1
            going = self._put(slot(number), number, sock)
            going = going and self._put(slot(number - KEPT), 0, sock)

    def _put(self, path: str, number: int, sock: socket.socket) -> bool:
        """Whether to go on."""
        answer = self.ledger.put(self.daemon, path, number, sock)
        return answer.status == 200 and not self._stop.is_set()


def compare(daemon: Daemon, ledger: Ledger) -> None:
    """What is there now, against the ledger; then the ledger follows what is there."""
    with daemon.connect() as sock:
        found = {path: look(daemon, path, sock) for path in ledger.known}
    for path, (number, revision) in found.items():
        known = ledger.known[path]
        if number is None:
            ledger.torn += 1
            continue
        if number == known.number:
            ledger.back += revision != known.revision
        elif number == known.pending:
            ledger.back += revision != (known.revision + 1 if number else 0)
        else:
            ledger.lost += 1
        if not number and not known.number:
            del ledger.known[path]  # absent, and seen to be so once more
        else:
            ledger.known[path] = Known(number, revision, history=[(0.0, number)])


def look(daemon: Daemon, path: str, sock: socket.socket) -> tuple[int | None, int]:
    """Number and revision of one bucket; no number where it is not whole."""
    answer = daemon.request("GET", path, sock=sock)
    if answer.status != 200:
        print(f"{path}: {answer}")
        return None, 0
    number = answer.bucket.get("n", 0)
    whole = answer.bucket == (value(number) if number else {})
    if not whole:
        print(f"{path}: {answer}")
    return number if whole else None, answer.json["revision"]


def count_torn_files(devices: Path) -> tuple[int, int]:
    """How many files another program would stumble over; those with and without their bytes."""
    torn = empty = 0
    for path in devices.rglob("[!.]*.json"):
        text = path.read_bytes()
        if not text.strip(b"\0"):
            empty += 1
        elif not _is_whole(text):
            print(f"{path} is torn: {text!r}")
            torn += 1
    return torn, empty


def _is_whole(text: bytes) -> bool:
    try:
        return bool(json.loads(text)["format"] == "bucketd/1")
    except (ValueError, KeyError):
        return False
