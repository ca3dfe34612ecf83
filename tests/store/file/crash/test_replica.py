"""A watcher's copy of a bucket is the bucket: through writes, edits by hand, stops and kills.

What is told in one stream after another, each begun where the last one broke off, is applied to
a copy. It must go through every revision once, and come to what is stored.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
from typing import Any

import pytest
from harness import Daemon, new_daemon, pair
from sse import Event, Stream, apply_event

DEVICE, JOB = "copied", "job"
TARGET = pair(DEVICE, JOB)


class Copy:
    """What one watcher knows, over all of its streams."""

    def __init__(self, daemon: Daemon, path: str) -> None:
        self.daemon, self.path = daemon, path
        self.bucket: dict[str, Any] = {}
        self.revision = 0
        self.since: str | None = None
        self.told = self.gaps = 0
        self.stream: Stream | None = None
        self.connect()

    def connect(self) -> None:
        self.close()
        self.stream = Stream(self.daemon, self.path, since=self.since)

    def close(self) -> None:
        if self.stream is not None:
            self.since = self.stream.last_id
            self.stream.close()
            self.stream = None

    def catch_up(self, bucket: dict[str, Any], revision: int) -> None:
        """Take what is told until the copy is what is stored, and nothing more comes."""
        assert self.stream is not None
        while True:
            there = (self.bucket, self.revision) == (bucket, revision)
            event = self.stream.next_within(0.02) if there else self.stream.next()
            if event is None:
                return
            self.take(event)

    def take(self, event: Event) -> None:
        self.told += 1
        if event.kind == "gap":
            self.gaps += 1
            answer = self.daemon.request("GET", TARGET).json
            self.bucket, self.revision = answer["bucket"], answer["revision"]
            return
        revision = event.data["revision"]
        assert revision in (self.revision + 1, 0), (self.revision, event)
        assert revision or self.revision, "a removal was told twice"
        self.bucket = apply_event(self.bucket, event)
        self.revision = revision

    def drop_out(self) -> None:
        """Lose the stream, if there is one, having read some of what was told."""
        if self.stream is None:
            return
        self.stream.sock.settimeout(0.01)
        with contextlib.suppress(OSError, EOFError):
            self.take(self.stream.next())
        self.close()


def by_hand(daemon: Daemon, bucket: dict[str, Any] | None) -> None:
    """As somebody with an editor would, once the files are current."""
    daemon.request("GET", "/v1/status")
    path = daemon.bucket_path(DEVICE, JOB)
    if bucket is None:
        path.unlink(missing_ok=True)
    elif path.exists():
        envelope = json.loads(path.read_text())
        new = path.with_name("edited")
        new.write_text(json.dumps({**envelope, "bucket": bucket}))
        os.rename(new, path)
    daemon.request("GET", TARGET)  # which takes it up


def step(daemon: Daemon, copies: list[Copy], chance: random.Random) -> str:
    """One thing that may happen; what it was."""
    value, key = chance.randrange(1000), chance.choice("abcde")
    what = chance.choices(
        ("set", "remove", "clear", "burst", "hand", "gone", "away", "stop", "kill"),
        (8, 3, 1, 3, 2, 1, 3, 1, 1),
    )[0]
    if what == "set":
        daemon.request("PATCH", TARGET, {key: value, "pad": "x" * chance.choice((1, 2000, 6000))})
    elif what == "remove":
        daemon.request("DELETE", f"{TARGET}?key={key}")
    elif what == "clear":
        daemon.request("DELETE", TARGET)
    elif what == "burst":
        with daemon.connect() as sock:
            for number in range(20):
                daemon.request("PATCH", TARGET, {key: number}, sock=sock)
    elif what == "hand":
        by_hand(daemon, {key: value})
    elif what == "gone":
        by_hand(daemon, None)
    elif what == "away":
        chance.choice(copies).drop_out()
    else:
        for copy in copies:
            copy.drop_out()
        getattr(daemon, what)()
        daemon.start()
    return what


@pytest.mark.timeout(3600)
def test_copies_are_what_is_stored(crash_scale: float) -> None:
    rounds, counts = max(2, int(40 * crash_scale)), {"told": 0, "gaps": 0}
    happened: dict[str, int] = {}
    for seed in range(rounds):
        chance, daemon = random.Random(seed), new_daemon()
        try:
            daemon.start()
            copies = [
                Copy(daemon, f"{TARGET}/events"),
                Copy(daemon, f"/v1/events?device={DEVICE}"),
            ]
            for _ in range(30):
                what = step(daemon, copies, chance)
                happened[what] = happened.get(what, 0) + 1
                if chance.random() < 0.7:
                    now = daemon.request("GET", TARGET).json
                    for copy in copies:
                        if copy.stream is None:
                            copy.connect()
                        copy.catch_up(now["bucket"], now["revision"])
            for copy in copies:
                copy.close()
                counts["told"] += copy.told
                counts["gaps"] += copy.gaps
        finally:
            daemon.remove()
    print(f"copies: {rounds} runs, {happened}, {counts['told']} told, {counts['gaps']} gaps")
