"""The files of history: their bounds, what damage and obstacles do to them, and what is owed."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from external_edits import quarantine_entries
from harness import Daemon, pair

from bucketd.fs import files
from bucketd.model import revisions, strict_json
from bucketd.model.author import EDIT, known
from bucketd.model.bucket import ABSENT, BucketKey, Snapshot
from bucketd.model.document import Document
from bucketd.model.inverses import invert
from bucketd.model.revisions import HistoryLimits, Revision
from bucketd.store.file import backlog, history_files, history_lines
from bucketd.store.file.backlog import Backlog
from bucketd.store.file.batch import Transition
from bucketd.store.file.history_files import HistoryFiles, Place

KEY = BucketKey("phone", "login")
LIMITS = HistoryLimits(10, 1 << 20)
PLACE = history_files.place_of(KEY)


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    fd = files.open_root(str(tmp_path))
    yield fd
    os.close(fd)


def lines(begin: int, end: int) -> list[bytes]:
    return [b'{"etag":"%d","text":"%b"}' % (n, b"x" * (n % 7)) for n in range(begin, end)]


def names(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "/".join(PLACE.parts)).iterdir())


@pytest.mark.parametrize("at_once", [1, 3, 7, 10, 25])
def test_the_newest_lines_are_there_and_not_many_others(
    root: int, tmp_path: Path, at_once: int
) -> None:
    history = HistoryFiles(root, LIMITS)
    written: list[bytes] = []
    for begin in range(0, 400, at_once):
        new = lines(begin, begin + at_once)
        history.append(PLACE, new)
        written += new
        found = history.read(PLACE)
        assert found[-10:] == written[-10:]
        assert min(10, len(written)) <= len(found) <= 80
        if begin % 3 == 0:
            # As after a start, or where another program has removed a file.
            history.close()
            history = HistoryFiles(root, LIMITS)
    assert set(names(tmp_path)) <= {"login.0.ndjson", "login.1.ndjson"}
    history.close()


def test_lines_are_bounded_by_their_bytes(root: int, tmp_path: Path) -> None:
    history = HistoryFiles(root, HistoryLimits(1000, 3000))
    for number in range(200):
        history.append(PLACE, [b'{"etag":"%d","pad":"%b"}' % (number, b"x" * (number % 400))])
        total = sum(len(line) for line in history.read(PLACE))
        assert total < 6000
        assert number < 60 or total > 2400
    history.close()


def test_a_history_is_moved_and_removed(root: int, tmp_path: Path) -> None:
    history = HistoryFiles(root, LIMITS)
    other = Place(("history", "elsewhere"), "id")
    history.move(PLACE, other)
    for begin in (0, 8):
        history.append(PLACE, lines(begin, begin + 8))
    history.move(PLACE, other)
    assert history.read(PLACE) == []
    assert history.read(other) == lines(0, 16)
    history.append(PLACE, lines(16, 17))
    assert history.read(PLACE) == lines(16, 17)
    history.remove(PLACE)
    history.move(other, PLACE)
    history.append(PLACE, lines(16, 18))
    assert history.read(PLACE) == lines(0, 18)
    history.remove(PLACE)
    history.remove(PLACE)
    assert names(tmp_path) == []
    history.close()


def test_every_bit_of_a_history(
    root: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The other lines are there, what was damaged is kept, and appending goes on."""
    caplog.set_level(logging.CRITICAL)
    path = tmp_path / "/".join(PLACE.parts) / PLACE.name(0)
    history = HistoryFiles(root, LIMITS)
    history.append(PLACE, lines(0, 3))
    whole = path.read_bytes()
    for place in range(0, 8 * len(whole), 7):
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << place % 8
        path.write_bytes(damaged)
        history = HistoryFiles(root, LIMITS)
        history.append(PLACE, lines(3, 4))
        found = history.read(PLACE)
        assert found[-1:] == lines(3, 4)
        # A line feed in the middle of a line, or none between two, damages two.
        assert len(found) >= 2
        assert set(found) <= set(lines(0, 4))
        assert found == sorted(found)
        history.remove(PLACE)
        path.write_bytes(whole)
    assert len([*(tmp_path / "quarantine").iterdir()]) == len(range(0, 8 * len(whole), 7))


def test_lost_histories_are_written_again(root: int, tmp_path: Path) -> None:
    history = HistoryFiles(root, LIMITS)
    owed = Backlog(history)
    history.append(PLACE, lines(0, 4))
    inode = (tmp_path / "/".join(PLACE.parts) / PLACE.name(0)).stat().st_ino
    owed.note_lost([KEY, BucketKey("other")])
    owed.write_lost()
    assert (tmp_path / "/".join(PLACE.parts) / PLACE.name(0)).stat().st_ino != inode
    history.append(PLACE, lines(4, 5))
    assert history.read(PLACE) == lines(0, 5)
    history.close()


def transitions() -> list[Transition]:
    values: list[dict[str, Any]] = [
        {"n": 1},
        {"n": 2},
        {"n": 2, "m": [1]},
        {"m": [1]},
        {"m": [2], "n": "ü"},
        {"n": "ü", "m": [2]},
        {"n": "ü", "m": {"a": 1}},
    ]
    made, before = [], ABSENT
    author = known("ada", "c1", "phone", "login", "run 7")
    for number, bucket in enumerate(values, 1):
        automation = "shop" if number > 3 else None
        at = f"2026-11-30T00:00:0{number}.000Z"
        after = Snapshot(Document.of(bucket), number, f"e{number}", automation, at, at)
        undoes = number - 1 if number == 5 else None
        imported = "2026-12-01T00:00:00.000Z" if number == 6 else None
        who = EDIT if number == 2 else author
        made.append(Transition(KEY, before, after, who, imported, undoes))
        before = after
    return made


def lines_of(changes: list[Transition]) -> list[bytes]:
    return [backlog.line_of(change, LIMITS) for change in changes]


def test_a_line_has_who_and_when_and_the_inverse() -> None:
    made = transitions()
    found = [revisions.decode(line) for line in lines_of(made)]
    assert found == [
        Revision(
            after.revision,
            after.etag or "",
            at or after.updated_at,
            (before.revision, before.etag),
            author,
            after.automation,
            invert(before.bucket.members, after.bucket.members),
            undoes,
        )
        for _, before, after, author, at, undoes, *_ in made
        if before is not None
    ]
    unknown = made[4]._replace(before=None)
    (line,) = lines_of([unknown])
    assert revisions.decode(line).inverse is None


def test_a_backlog_has_what_is_kept_and_ends_with_the_bucket(root: int) -> None:
    history = HistoryFiles(root, HistoryLimits(3, 1 << 20))
    owed, made = Backlog(history), transitions()
    owed.announce(made * 5)
    # A reader finds changes at once, and the same ones when their lines are built.
    assert owed.lines(KEY) == lines_of(made[-3:])
    owed.add()
    assert owed.lines(KEY) == lines_of(made[-3:])
    owed.write(KEY, lambda _id: True)
    assert owed.lines(KEY) == []
    assert history.read(PLACE) == lines_of(made[-3:])
    removal = Transition(KEY, made[-1].after, ABSENT, EDIT)
    owed.announce([made[0], removal, made[0]])
    assert owed.lines(KEY) == lines_of(made[:1])
    # What was not built yet is written nevertheless.
    owed.write(KEY, lambda _id: True)
    assert history.read(PLACE) == lines_of(made[:1])
    # The restoration of an unreadable file is no change.
    owed.announce([Transition(KEY, made[0].after, made[0].after, EDIT)])
    assert owed.lines(KEY) == []
    owed.add()
    assert owed.lines(KEY) == []
    history.close()


def test_a_reader_finds_each_change_once_while_lines_are_built(
    root: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = HistoryFiles(root, HistoryLimits(4, 1 << 20))
    owed, made, found = Backlog(history), transitions(), list[list[bytes]]()
    reader = threading.Thread(target=lambda: found.append(owed.lines(KEY)))
    line_of, built = backlog.line_of, list[Transition]()

    def slow(change: Transition, *more: Any) -> bytes:
        built.append(change)
        if len(built) == 2:
            reader.start()
            reader.join(0.2)
        return line_of(change, *more)

    # As after a merge, which has split them.
    assert all(change.after.bucket.members for change in made)
    owed.announce(made[:4])
    owed.add()
    owed.announce(made[4:])
    monkeypatch.setattr(backlog, "line_of", slow)
    owed.add()
    reader.join()
    assert found == [lines_of(made[-4:])]
    history.close()


def test_lines_of_states_held_as_text_are_built_when_files_are_written(
    root: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(before: Snapshot, number: int) -> Transition:
        text = orjson.dumps({"n": number, **{f"key {n}": n for n in range(40)}})
        after = Snapshot(Document(text), number, f"e{number}", None, "at", "at")
        return Transition(KEY, before, after, EDIT)

    history = HistoryFiles(root, LIMITS)
    owed, first = Backlog(history), change(ABSENT, 1)
    made = [first, second := change(first.after, 2), change(second.after, 3)]
    split, splits = strict_json.split, list[Any]()
    monkeypatch.setattr(strict_json, "split", lambda v: splits.append(v) or split(v))
    owed.announce(made)
    owed.add()
    assert not splits
    owed.write(KEY, lambda _id: True)
    # Each state once, and the one before the first, which is empty, not at all.
    assert len(splits) == 3
    assert history.read(PLACE) == lines_of(made)
    history.close()


@pytest.fixture
def path(daemon: Daemon) -> str:
    path = pair("phone", "login")
    for number in range(4):
        daemon.request("PATCH", path, {"n": number})
    daemon.request("GET", "/v1/status")
    return path


def history_of(daemon: Daemon, path: str) -> list[int]:
    found = daemon.request("GET", f"{path}/history").json["history"]
    return [entry["revision"] for entry in found]


def test_a_damaged_history_hinders_nothing(daemon: Daemon, path: str) -> None:
    file = daemon.state_dir / "history/devices/phone/jobs/login.0.ndjson"
    file.write_bytes(file.read_bytes().replace(b'"changed":{"n":1}', b'"changed":{"n":7}'))
    # The line of revision 3 is damaged, so the history begins behind it.
    assert history_of(daemon, path) == [4]
    assert daemon.request("GET", f"{path}?revision=3").bucket == {"n": 2}
    assert daemon.request("GET", f"{path}?revision=2").json["code"] == "not_kept"
    assert daemon.request("POST", f"{path}/undo", {"revision": 2}).json["code"] == "not_kept"
    assert daemon.request("PATCH", path, {"n": 4}).json["revision"] == 5
    assert history_of(daemon, path) == [5, 4]
    daemon.restart()
    daemon.request("PATCH", path, {"n": 5})
    daemon.request("GET", "/v1/status")
    assert history_of(daemon, path) == [6, 5, 4]
    (kept,) = quarantine_entries(daemon)
    assert b'"changed":{"n":7}' in (daemon.state_dir / "quarantine" / kept).read_bytes()
    assert "history-login.0.ndjson is damaged" in daemon.log


@pytest.mark.parametrize("what", ["file", "device", "link", "history"])
def test_an_obstacle_goes_to_the_quarantine(daemon: Daemon, path: str, what: str) -> None:
    home = daemon.state_dir / "history"
    daemon.stop()
    old = home.rename(daemon.home / "old")
    if what == "file":
        (home / "devices/phone/jobs/login.0.ndjson").mkdir(parents=True)
        (home / "devices/phone/jobs/login.1.ndjson").mkdir(parents=True)
    elif what == "device":
        (home / "devices").mkdir(parents=True)
        (home / "devices/phone").write_text("no directory")
    elif what == "link":
        home.symlink_to(old)
    else:
        home.write_text("no directory")
    daemon.start()
    assert history_of(daemon, path) == []
    assert daemon.request("GET", path).bucket == {"n": 3}
    daemon.request("PATCH", path, {"n": 4})
    daemon.request("PATCH", path, {"n": 5})
    daemon.request("GET", "/v1/status")
    assert history_of(daemon, path) == [6, 5]
    assert quarantine_entries(daemon)
    assert len(list(old.rglob("*.ndjson"))) == 1


@pytest.mark.parametrize("is_read", [False, True])
def test_a_pipe_in_the_place_of_a_history_blocks_nobody(
    root: int, tmp_path: Path, is_read: bool
) -> None:
    kept = HistoryFiles(root, LIMITS)
    kept.append(PLACE, lines(0, 3))
    # As for a history that was not written for long.
    kept.close()
    path = tmp_path / "/".join(PLACE.parts) / PLACE.name(0)
    path.unlink()
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK) if is_read else None
    kept.append(PLACE, lines(3, 5))
    assert kept.read(PLACE) == lines(3, 5)
    kept.close()
    if reader is not None:
        assert os.read(reader, 100) == b""
        os.close(reader)


@pytest.mark.parametrize("head", [b'{"segment":"v9"}', b'{"segment":', b"[1]", b"{}"])
def test_lines_of_another_format_keep_no_daemon_from_starting(
    daemon: Daemon, path: str, head: bytes
) -> None:
    daemon.stop()
    file = daemon.state_dir / "history/devices/phone/jobs/login.0.ndjson"
    texts = [head, b'{"revision":[]}', b"[]", b'{"etag":5}', b"no JSON"]
    file.write_bytes(b"".join(map(history_lines.line, texts)))
    daemon.start()
    assert history_of(daemon, path) == []
    daemon.request("PATCH", path, {"n": 4})
    daemon.kill()
    daemon.start()
    assert history_of(daemon, path) == [5]


def test_a_history_that_is_removed_begins_anew(daemon: Daemon, path: str) -> None:
    file = daemon.state_dir / "history/devices/phone/jobs/login.0.ndjson"
    file.unlink()
    assert history_of(daemon, path) == []
    daemon.request("PATCH", path, {"n": 4})
    daemon.request("GET", "/v1/status")
    assert history_of(daemon, path) == [5]
    assert json.loads(file.read_bytes().split(b"\n")[1][9:])["revision"] == 5


def test_a_history_of_another_user_keeps_no_bucket_from_being_written(
    nobodys_daemon: Daemon,
) -> None:
    daemon = nobodys_daemon.start()
    path = pair("phone", "login")
    daemon.request("PATCH", path, {"n": 0})
    daemon.request("GET", "/v1/status")
    home = daemon.state_dir / "history/devices/phone/jobs"
    os.chown(home, 0, 0)
    home.chmod(0o700)
    for number in range(1, 4):
        assert daemon.request("PATCH", path, {"n": number}).status == 200
        daemon.restart()
    assert "cannot keep the history of" in daemon.log
    os.chown(home, 65534, 65534)
    daemon.request("PATCH", path, {"n": 4})
    assert history_of(daemon, path) == [5]


def test_history_is_private(daemon: Daemon, path: str) -> None:
    deadline = time.monotonic() + 5
    while not (found := [*(daemon.state_dir / "history").rglob("*")]):
        assert time.monotonic() < deadline
    for entry in found:
        assert entry.stat().st_mode & 0o077 == 0, entry
