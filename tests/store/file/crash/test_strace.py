"""Failing system calls of the real daemon, by strace: the promise under test is the same as in
``test_io_errors``, with nothing of the daemon replaced.

Whatever was answered 200 is there after a kill and a start, a refusal changed
nothing or said that nobody knows, and the daemon goes on answering.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from harness import Daemon, Response, new_daemon, pair
from ledger import Ledger, compare
from tracer import Fault, failing, injected, skip_unless_traceable

PATHS = [pair("phone", "job"), pair("phone", "other"), pair("phone"), pair("tablet", "new")]
HOT = PATHS[0]
SMALL_JOURNAL = {
    "BUCKETD_STORE_JOURNAL_BYTES": "200000",
    "BUCKETD_LIMITS_MAX_BUCKET_BYTES": "60000",
}
# What a failure of the journal comes to, which only a new process can mend.
JOURNAL = [
    *(Fault("fdatasync", error) for error in ("EIO", "ENOSPC")),
    *(Fault("pwrite64", error, when) for error in ("EIO", "ENOSPC") for when in ("1", "1+")),
]
# Bucket files that cannot be written; meanwhile memory and journal have what was acknowledged.
FILES = [
    *(Fault("rename", error, "1+") for error in ("ENOSPC", "EIO")),
    *(Fault("openat", error, "1+") for error in ("EMFILE", "EROFS", "EIO")),
    *(Fault("mkdir", error, "1+") for error in ("ENOSPC", "EROFS")),
]
CODES = {"ENOSPC": "storage_full", "EROFS": "read_only", "EMFILE": "overloaded", "EIO": "internal"}
# What passes by itself, and nobody needs to hear of.
PASSING = [
    *(Fault(call, "EINTR") for call in ("fdatasync", "pwrite64", "rename", "openat", "syncfs")),
    *(Fault("rename", error) for error in ("EIO", "ENOSPC")),
    Fault("syncfs", "EIO"),
]


@pytest.fixture(autouse=True)
def _traceable() -> None:
    skip_unless_traceable()


@pytest.fixture
def victim() -> Iterator[Daemon]:
    daemon = new_daemon(env=SMALL_JOURNAL)
    try:
        yield daemon.start()
    finally:
        daemon.remove()


def some(cases: list[Fault], scale: float, few: int) -> list[Fault]:
    return cases if scale >= 1 else cases[:few]


def write(daemon: Daemon, ledger: Ledger, rounds: int) -> list[Response]:
    """Sets, pauses in which files are written, a deletion; what was refused."""
    answers = []
    last = max((known.number for known in ledger.known.values()), default=0)
    for number in range(last + 1, last + 1 + rounds):
        answers += [ledger.put(daemon, path, number) for path in PATHS]
        time.sleep(0.02)
    answers.append(ledger.put(daemon, PATHS[1], 0))
    return [answer for answer in answers if answer.status != 200]


def write_until_refused(daemon: Daemon, ledger: Ledger) -> list[Response]:
    """Files are written behind the answers: on a busy machine a good while behind them."""
    deadline = time.monotonic() + 20
    while not (refused := write(daemon, ledger, 1)):
        assert time.monotonic() < deadline, daemon.log
        time.sleep(0.05)
    return refused


def still_answers(daemon: Daemon) -> None:
    assert daemon.request("GET", "/healthz").status == 200
    assert daemon.request("GET", "/readyz").status == 200


def writes_again(daemon: Daemon, ledger: Ledger) -> None:
    deadline = time.monotonic() + 5
    while ledger.put(daemon, HOT, ledger.of(HOT).number + 1).status != 200:
        assert time.monotonic() < deadline, daemon.log
        time.sleep(0.05)


def all_there_after_a_kill(daemon: Daemon, ledger: Ledger) -> None:
    daemon.kill()
    daemon.start()
    compare(daemon, ledger)
    assert ledger.wrong == (0, 0, 0)
    assert write(daemon, ledger, 1) == []


@pytest.mark.timeout(600)
def test_journal(victim: Daemon, crash_scale: float) -> None:
    ledger = Ledger()
    for fault in some(JOURNAL, crash_scale, 2):
        assert write(victim, ledger, 2) == []
        with failing(victim, fault) as log:
            first, *others = write(victim, ledger, 2)
            still_answers(victim)
            assert injected(log) >= 1
        assert (first.status, first.json["code"]) == (500, "internal"), (fault, first)
        assert "unknown" in first.json["error"]
        later = [*others, ledger.put(victim, HOT, 10**6)]
        assert len(others) == 2 * len(PATHS), "a write was acknowledged after the failure"
        assert {(r.status, r.json["code"]) for r in later} == {(503, "read_only")}, fault
        all_there_after_a_kill(victim, ledger)
    print(f"journal: {ledger}")


@pytest.mark.timeout(600)
def test_files(victim: Daemon, crash_scale: float) -> None:
    """One process lives through all of them."""
    ledger = Ledger()
    temporary = victim.bucket_path("phone", "job").with_name(".job.json.tmp")
    cases = [
        Fault("write", "ENOSPC", "1+", temporary),
        *FILES,
        Fault("write", "EIO", "1+", temporary),
    ]
    for number, fault in enumerate(some(cases, crash_scale, 4)):
        assert write(victim, ledger, 1) == []
        time.sleep(0.05)
        with failing(victim, fault) as log:
            # A new device each time, so that a directory has to be made.
            ledger.put(victim, pair(f"new{number}", "job"), 1)
            refused = write_until_refused(victim, ledger)
            still_answers(victim)
            assert injected(log) >= 1, fault
            compare_readable(victim, ledger)
        assert {r.json["code"] for r in refused} == {CODES[fault.error]}, (fault, refused[0])
        assert all("nothing was changed" in r.json["error"] for r in refused)
        writes_again(victim, ledger)
    all_there_after_a_kill(victim, ledger)
    print(f"files: {ledger}")


def compare_readable(daemon: Daemon, ledger: Ledger) -> None:
    """During the fault a read may be refused, and never shows anything else than the truth."""
    for path, known in ledger.known.items():
        answer = daemon.request("GET", path)
        if answer.status == 200:
            assert answer.bucket.get("n", 0) == known.number, (path, known)


@pytest.mark.timeout(600)
def test_passing(victim: Daemon, crash_scale: float) -> None:
    ledger = Ledger()
    for fault in some(PASSING, crash_scale, 3):
        with failing(victim, fault) as log:
            refused = write(victim, ledger, 2)
            while not injected(log):  # until the journal is full, for syncfs
                refused += write(victim, ledger, 5)
            still_answers(victim)
        assert refused == [], (fault, refused[0])
    all_there_after_a_kill(victim, ledger)
    print(f"passing: {ledger}")


def test_files_that_never_get_durable(victim: Daemon) -> None:
    """The journal is not written over then, so sooner or later nothing more is accepted."""
    ledger, refused = Ledger(), []
    with failing(victim, Fault("syncfs", "EIO", "1+")) as log:
        while not refused:
            refused = write(victim, ledger, 5)
        still_answers(victim)
        assert injected(log) >= 1
    assert (refused[0].status, refused[0].json["code"]) == (500, "internal")
    assert "nothing was changed" in refused[0].json["error"]
    all_there_after_a_kill(victim, ledger)
    print(f"syncfs: {ledger}")


def test_status_while_nothing_can_be_opened(victim: Daemon) -> None:
    with failing(victim, Fault("openat", "EMFILE", "1+")):
        assert victim.request("GET", "/v1/status").status == 200


def test_a_lock_that_cannot_be_had_once(victim: Daemon) -> None:
    ledger = Ledger()
    with failing(victim, Fault("flock", "ENOLCK")) as log:
        answer = ledger.put(victim, HOT, 1)
        assert injected(log) == 1
    assert answer.status in (500, 503)
    assert "journal" not in answer.json["error"]
    writes_again(victim, ledger)


def test_a_lock_file_that_cannot_be_made_anew(victim: Daemon) -> None:
    """Nobody but the lock may lose a descriptor by that."""
    ledger = Ledger()
    (victim.state_dir / "write.lock").unlink()
    with failing(victim, Fault("openat", "EMFILE", "1+")):
        assert ledger.put(victim, HOT, 1).status == 503
    clients = [victim.connect() for _ in range(3)]
    try:
        before = [victim.request("GET", "/healthz", sock=sock).status for sock in clients]
        writes_again(victim, ledger)
        after = [victim.request("GET", "/healthz", sock=sock).status for sock in clients]
        assert before == after == [200, 200, 200]
    finally:
        for sock in clients:
            sock.close()
