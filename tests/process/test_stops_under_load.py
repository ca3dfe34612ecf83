"""The daemon ends while writes are under way: nothing acknowledged is lost, nothing is torn."""

from __future__ import annotations

import json
import random
import time

from harness import Daemon
from load import Writer, load


def test_term_under_load(daemon: Daemon) -> None:
    """What was answered 200 is there; what was refused or cut off was not applied."""
    for round_number in range(3):
        writers = [Writer(daemon, f"{round_number}-{n}") for n in range(16)]
        with load(writers):
            time.sleep(0.3)
            begun = time.monotonic()
            assert daemon.stop() == 0, daemon.log
            assert time.monotonic() - begun < 5
        assert all(writer.acknowledged for writer in writers)
        for writer in writers:
            text = json.loads(daemon.bucket_path("load", writer.job).read_bytes())
            assert text["bucket"]["n"] == writer.acknowledged
        daemon.start()
        for writer in writers:
            assert writer.read() == (writer.acknowledged, writer.revision)
    assert "Traceback" not in daemon.log


def test_kill_under_load(daemon: Daemon) -> None:
    """Twenty times: the one write that was under way may be there or not, whole or not at all."""
    chance = random.Random(7)
    writers = [Writer(daemon, str(n)) for n in range(4)]
    for _ in range(20):
        for writer in writers:
            writer.wanted.clear()
        with load(writers, killed=True):
            time.sleep(chance.uniform(0.02, 0.2))
            daemon.kill()
        for path in (daemon.state_dir / "devices").rglob("*.json"):
            json.loads(path.read_bytes())
        daemon.start()
        for writer in writers:
            n, revision = writer.read()
            assert n in (writer.acknowledged, writer.begun), writer
            assert revision - writer.revision == n - writer.acknowledged, writer
            writer.acknowledged, writer.revision = n, revision
    assert sum(writer.acknowledged for writer in writers) > 100
    daemon.restart()
    for writer in writers:
        assert writer.read() == (writer.acknowledged, writer.revision)
    quarantine = daemon.state_dir / "quarantine"
    assert not quarantine.exists() or list(quarantine.iterdir()) == []


def test_kill_while_it_starts(daemon: Daemon) -> None:
    """Completing the files after a crash may itself be cut short, at any point."""
    chance = random.Random(11)
    writers = [Writer(daemon, str(n)) for n in range(4)]
    with load(writers, killed=True):
        time.sleep(0.3)
        daemon.kill()
    for _ in range(6):
        daemon.spawn()
        time.sleep(chance.uniform(0.1, 0.6))
        daemon.kill()
    daemon.start()
    for writer in writers:
        n, revision = writer.read()
        assert n in (writer.acknowledged, writer.begun)
        assert revision == n
