"""No time stamp gets older because somebody sets the wall clock."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bucketd.core.clock_record import FILE, ClockRecord
from bucketd.core.contexts import Contexts
from bucketd.fs import clock, files

DAY = 86400.0
WITHIN = 90 * DAY


class Clocks:
    """The clocks of a host: elapsed time, the wall clock's offset to it, and its boot."""

    def __init__(self) -> None:
        self.boottime, self.offset, self.boot = 100.0, 1_790_000_000.0, "first"

    def wall(self) -> float:
        return self.boottime + self.offset

    def go(self, seconds: float) -> None:
        self.boottime += seconds

    def reboot(self, offset: float, boot: str = "second") -> None:
        self.boottime, self.offset, self.boot = 5.0, offset, boot


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    clocks = Clocks()
    monkeypatch.setattr(clock, "boottime", lambda: clocks.boottime)
    monkeypatch.setattr(clock, "boot_id", lambda: clocks.boot)
    monkeypatch.setattr(time, "time", clocks.wall)
    return clocks


@pytest.fixture
def record(tmp_path: Path, clocks: Clocks) -> Callable[[], ClockRecord]:
    return lambda: ClockRecord(files.open_root(str(tmp_path)))


def test_what_is_old_is_old(record: Callable[[], ClockRecord], clocks: Clocks) -> None:
    kept = record()
    assert kept.age(clocks.wall() - 400 * DAY, WITHIN) == pytest.approx(400 * DAY)
    stamp = clocks.wall()
    clocks.go(100 * DAY)
    assert kept.age(stamp, WITHIN) == pytest.approx(100 * DAY, abs=2)


@pytest.mark.parametrize("days", [200, -200, 0.01, 40_000])
def test_a_jump_makes_nothing_older(
    record: Callable[[], ClockRecord], clocks: Clocks, days: float
) -> None:
    kept = record()
    before, unseen = clocks.wall(), clocks.wall() - 10 * DAY
    clocks.go(3)
    clocks.offset += days * DAY
    during = clocks.wall()
    assert kept.age(before, WITHIN) <= 3.1
    assert kept.age(unseen, WITHIN) <= 10 * DAY + 4
    clocks.go(2)
    clocks.offset -= days * DAY
    clocks.go(2)
    assert kept.age(during, WITHIN) <= 4.1
    assert kept.age(before, WITHIN) <= 7.1
    clocks.go(100 * DAY)
    assert kept.age(before, WITHIN) >= 100 * DAY


def test_a_boot_in_the_past(record: Callable[[], ClockRecord], clocks: Clocks) -> None:
    now, clocks.offset = clocks.offset, 0.0
    kept = record()
    stamp = clocks.wall()
    clocks.go(3)
    clocks.offset = now
    assert kept.age(stamp, WITHIN) <= 3.1
    restarted = record()
    clocks.go(60)
    assert restarted.age(stamp, WITHIN) <= 63.1


@pytest.mark.parametrize("ids", [True, False])
def test_across_a_restart_and_a_boot(
    record: Callable[[], ClockRecord], clocks: Clocks, ids: bool, tmp_path: Path
) -> None:
    if not ids:
        clocks.boot = ""
    record()
    stamp = clocks.wall()
    clocks.go(50 * DAY)
    record()
    saved = json.loads((tmp_path / FILE).read_text())
    assert len(saved["eras"]) == 1
    clocks.reboot(clocks.offset + 300 * DAY, "second" if ids else "")
    restarted = record()
    assert restarted.age(stamp, WITHIN) <= 50 * DAY + 10
    clocks.go(91 * DAY)
    assert restarted.age(stamp, WITHIN) > WITHIN


def test_a_board_that_always_boots_in_the_past_still_removes(
    record: Callable[[], ClockRecord], clocks: Clocks
) -> None:
    right = clocks.offset
    record()
    for number in range(20):
        clocks.go(10 * DAY)
        right += 110.0 + 10 * DAY
        clocks.reboot(0.0, f"boot {number}")
        restarted = record()
        clocks.go(10)
        clocks.offset = right
        restarted.observe()
    assert restarted.age(clocks.wall() - 1000 * DAY, WITHIN) > WITHIN


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"eras": 1}'])
def test_a_damaged_record_begins_anew(
    record: Callable[[], ClockRecord], tmp_path: Path, text: bytes
) -> None:
    (tmp_path / FILE).write_bytes(text)
    record()
    assert len(json.loads((tmp_path / FILE).read_text())["eras"]) == 1


@pytest.mark.parametrize("jump", [400 * DAY, -400 * DAY])
def test_a_token_lives_for_an_elapsed_time(tmp_path: Path, clocks: Clocks, jump: float) -> None:
    def contexts() -> Contexts:
        return Contexts(files.open_root(str(tmp_path)), 10, 60.0, 1e6)

    first = contexts()
    context, _ = first.mint("d", "j", None, 3)
    clocks.offset += jump
    assert contexts().find(context.token_sha256) is not None
    clocks.go(2.9)
    assert first.find(context.token_sha256) is not None
    clocks.go(0.2)
    assert first.find(context.token_sha256) is None
    assert contexts().find(context.token_sha256) is None


def test_a_token_of_another_boot_never_lives_longer(tmp_path: Path, clocks: Clocks) -> None:
    root = files.open_root(str(tmp_path))
    context, _ = Contexts(root, 10, 60.0, 1e6).mint("d", "j", None, 1000)
    clocks.reboot(0.0)
    again = Contexts(root, 10, 60.0, 1e6)
    assert again.find(context.token_sha256) is not None
    clocks.go(1001)
    assert again.find(context.token_sha256) is None


def test_a_context_of_an_earlier_version_is_loaded(tmp_path: Path, clocks: Clocks) -> None:
    root = files.open_root(str(tmp_path))
    context, _ = Contexts(root, 10, 60.0, 1e6).mint("d", "j", None, 1000)
    path = tmp_path / "contexts" / f"{context.id}.json"
    members = json.loads(path.read_text())
    del members["ends"], members["boot"]
    path.write_text(json.dumps(members))
    clocks.go(900)
    again = Contexts(root, 10, 60.0, 1e6)
    assert again.find(context.token_sha256) is not None
    clocks.go(101)
    assert again.find(context.token_sha256) is None


def test_names_that_are_not_utf8_are_named_and_others_loaded(
    tmp_path: Path, clocks: Clocks
) -> None:
    root = files.open_root(str(tmp_path))
    context, _ = Contexts(root, 10, 60.0, 1e6).mint("d", "j", None, 1000)
    Path(tmp_path / "contexts" / "\udcff.json").write_text("{}")
    again = Contexts(root, 10, 60.0, 1e6)
    assert len(again) == 1
    assert "\\xff.json" in "".join(again.problems())
    assert again.find(context.token_sha256) is not None
