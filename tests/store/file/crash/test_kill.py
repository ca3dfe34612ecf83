"""kill -9, at random moments and at every step of the commit path: nothing acknowledged is lost."""

from __future__ import annotations

import contextlib
import json
import math
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from harness import Daemon, Response, new_daemon, pair

WRITERS = 6
STEPS = [
    f"{call}:{when}"
    for call in ("pwrite", "fdatasync", "open", "write", "rename", "mkdir", "syncfs", "unlink")
    for when in ("before", "after")
]
KEPT = 20
LOGIN = "a login " * 600
KILLER = str(Path(__file__).with_name("killed_daemon.py"))
# Small, so that segments are recycled all the time.
SMALL_JOURNAL = {
    "BUCKETD_STORE_JOURNAL_BYTES": "200000",
    "BUCKETD_LIMITS_MAX_BUCKET_BYTES": "60000",
    "BUCKETD_STORE_UNSAFE_FILESYSTEM": "true",
    "BUCKETD_HISTORY_REVISIONS": f"{KEPT}",
}


@dataclass
class Ledger:
    """Kept outside the daemon: what each writer sent last, and what was acknowledged."""

    sent: dict[int, int] = field(default_factory=dict)
    acknowledged: dict[int, int] = field(default_factory=dict)
    revisions: dict[int, int] = field(default_factory=dict)
    total: int = 0
    lost: int = 0
    torn: int = 0
    back: int = 0
    gaps: int = 0


@pytest.fixture
def victim() -> Iterator[Daemon]:
    daemon = new_daemon(env=SMALL_JOURNAL)
    try:
        yield daemon
    finally:
        daemon.remove()


def write_until_killed(daemon: Daemon, ledger: Ledger, writer: int, dice: random.Random) -> None:
    # Whatever ends the connection, this writer's part in the round is over.
    with contextlib.suppress(OSError), daemon.connect() as sock:
        while True:
            number = ledger.sent.get(writer, 0) + 1
            ledger.sent[writer] = number
            body: dict[str, object] = {"n": number, "pad": "x" * dice.randrange(2000)}
            if number == 1 and keeps_login(writer):
                body["login"] = LOGIN
            response = daemon.request("PATCH", path_of(writer), body, sock=sock)
            assert response.status == 200, response
            assert response.bucket["n"] == number
            ledger.acknowledged[writer] = number
            ledger.revisions[writer] = response.json["revision"]
            ledger.total += 1


def keeps_login(writer: int) -> bool:
    """Report whether a writer keeps a text, which the journal does not repeat."""
    return writer % 2 == 0


def path_of(writer: int) -> str:
    # Some share a device, one is a device bucket, so that every kind of file is met.
    return pair(f"d{writer % 3}", None if writer == 0 else f"job/{writer}")


def compare(daemon: Daemon, ledger: Ledger) -> None:
    """What is there now, against the ledger; then the ledger follows what is there."""
    for writer in range(WRITERS):
        response = daemon.request("GET", path_of(writer))
        if response.status != 200:
            ledger.torn += 1
            continue
        number, revision = response.bucket.get("n", 0), response.json["revision"]
        ledger.lost += number < ledger.acknowledged.get(writer, 0)
        ledger.back += revision < ledger.revisions.get(writer, 0)
        assert number <= ledger.sent.get(writer, 0)
        if number and keeps_login(writer):
            ledger.torn += response.bucket.get("login") != LOGIN
        ledger.sent[writer] = ledger.acknowledged[writer] = number
        ledger.revisions[writer] = revision
        ledger.gaps += count_gaps(daemon, path_of(writer), response)


def count_gaps(daemon: Daemon, path: str, now: Response) -> int:
    """Look whether the history leads back from a state through all that it keeps.

    Each write counts up, so the number before is known.
    """
    revision, number = now.json["revision"], now.bucket.get("n", 0)
    found = daemon.request("GET", f"{path}/history?values=true&limit=1000").json["history"]
    gaps = abs(len(found) - min(revision, KEPT))
    for back, entry in enumerate(found):
        is_next = entry["revision"] == revision - back
        gaps += not (is_next and entry["before"].get("n", 0) == number - back - 1)
    if found and found[0]["etag"] != (now.etag or "").strip('"'):
        gaps += 1
    return gaps


def count_torn_files(daemon: Daemon) -> int:
    """Files that another program would stumble over, right after the kill."""
    torn = 0
    for path in daemon.state_dir.glob("devices/**/[!.]*.json"):
        try:
            json.loads(path.read_bytes())
        except ValueError:
            torn += 1
    return torn


def is_running(daemon: Daemon) -> bool:
    return daemon.process is not None and daemon.process.poll() is None


def one_round(daemon: Daemon, ledger: Ledger, dice: random.Random, step: str | None) -> None:
    """Start (to be killed at the step, or at a random moment), write, die, start, compare."""
    if step is not None:
        daemon.program = (KILLER, f"{step}:{dice.randrange(1, 40)}")
    if step is not None or not is_running(daemon):
        with contextlib.suppress(AssertionError):  # it may be killed before it is ready
            daemon.start()
    writers = [
        threading.Thread(target=write_until_killed, args=(daemon, ledger, n, dice))
        for n in range(WRITERS)
    ]
    for writer in writers:
        writer.start()
    assert daemon.process is not None
    deadline = time.monotonic() + (0.5 if step else dice.random() * 0.2)
    while time.monotonic() < deadline and daemon.process.poll() is None:
        time.sleep(0.005)
    daemon.kill()
    for writer in writers:
        writer.join()
    ledger.torn += count_torn_files(daemon)
    daemon.program = ("-m", "bucketd")
    daemon.start()
    compare(daemon, ledger)
    # Half of the rounds go on from a clean stop, the others with this daemon or one more kill.
    if dice.random() < 0.5:
        assert daemon.stop() == 0
    elif step is not None:
        daemon.kill()


def rounds(daemon: Daemon, steps: list[str | None], name: str) -> None:
    began, ledger, dice = time.monotonic(), Ledger(), random.Random(11)
    for step in steps:
        one_round(daemon, ledger, dice, step)
    print(
        f"{name}: {len(steps)} kills, {ledger.total} acknowledged, {ledger.lost} lost, "
        f"{ledger.torn} torn, {ledger.back} revisions back, {ledger.gaps} gaps in histories, "
        f"{time.monotonic() - began:.1f} s"
    )
    assert ledger.total > 0
    assert (ledger.lost, ledger.torn, ledger.back, ledger.gaps) == (0, 0, 0, 0)


@pytest.mark.timeout(7200)
def test_killed_at_random_moments(victim: Daemon, crash_scale: float) -> None:
    rounds(victim, [None] * max(5, int(500 * crash_scale)), "at random moments")


@pytest.mark.timeout(7200)
def test_killed_at_every_step(victim: Daemon, crash_scale: float) -> None:
    repeat = max(1, math.ceil(500 * crash_scale / len(STEPS)))
    steps: list[str | None] = [step for step in STEPS for _ in range(repeat)]
    rounds(victim, steps, "at every step")
