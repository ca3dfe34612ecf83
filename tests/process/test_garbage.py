"""What is done with is freed at once: a search for cycles among all objects holds up everybody."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fleet import wait_until
from harness import Daemon, new_daemon, pair
from sse import Stream

TIMES = 50
TARGET = pair("phone", "job")


@pytest.fixture(scope="module")
def collecting() -> Iterator[Daemon]:
    daemon = new_daemon(program=(str(Path(__file__).with_name("collecting_daemon.py")),))
    try:
        yield daemon.start()
    finally:
        daemon.remove()


def collected(daemon: Daemon) -> int:
    """How many objects could be freed by a search alone, since the last one."""

    def found() -> list[int]:
        lines = daemon.log.splitlines()
        return [int(line.rpartition(" ")[2]) for line in lines if " collected " in line]

    before = len(found())
    os.kill(daemon.pid, signal.SIGUSR1)
    wait_until(lambda: len(found()) > before)
    return found()[-1]


def connects_only(daemon: Daemon) -> None:
    daemon.connect().close()


def gets(daemon: Daemon) -> None:
    assert daemon.request("GET", TARGET).status == 200


def sets_and_goes_on(daemon: Daemon) -> None:
    with daemon.connect() as sock:
        for number in range(2):
            assert daemon.request("PATCH", TARGET, {"n": number}, sock=sock).status == 200


def loses_a_race(daemon: Daemon) -> None:
    assert daemon.request("PATCH", TARGET, {"n": 1}, {"If-Match": '"old"'}).status == 412


def finds_nothing(daemon: Daemon) -> None:
    assert daemon.request("GET", "/v1/nothing").status == 404


def speaks_no_http(daemon: Daemon) -> None:
    assert b" 400 " in daemon.raw(b"HELO\r\n\r\n")


def watches(daemon: Daemon) -> None:
    with Stream(daemon, f"{TARGET}/events?snapshot=true") as stream:
        stream.next()


@pytest.mark.parametrize(
    "use",
    [connects_only, gets, sets_and_goes_on, loses_a_race, finds_nothing, speaks_no_http, watches],
    ids=lambda use: use.__name__,
)
def test_nothing_of_it_is_left(collecting: Daemon, use: Callable[[Daemon], None]) -> None:
    use(collecting)
    collected(collecting)  # what is made once
    for _ in range(TIMES):
        use(collecting)
    wait_until(lambda: collecting.request("GET", "/v1/status").json["counts"]["watchers"] == 0)
    assert collected(collecting) < TIMES
