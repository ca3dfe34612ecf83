"""Many processes for one hold; holders and the daemon are killed: never two at a time."""

from __future__ import annotations

import random
import statistics
from pathlib import Path

import pytest
from contention import Contention
from harness import Daemon

KILL_DAEMON_EVERY, KILL_HOLDER_EVERY = 20, 3


@pytest.mark.timeout(7200)
def test_never_two_at_a_time(stopped_daemon: Daemon, tmp_path: Path, crash_scale: float) -> None:
    dice = random.Random(23)
    contention = Contention([stopped_daemon.start()], tmp_path)
    processes = max(6, min(64, int(64 * crash_scale)))

    def restart() -> None:
        stopped_daemon.kill()
        stopped_daemon.start()

    def fail(number: int) -> None:
        if number % KILL_DAEMON_EVERY == 15:
            # A holder that was killed with the daemon is waited for.
            contention.disturb(restart, 7.0)
        elif number % KILL_HOLDER_EVERY == 1:
            contention.kill_holder()

    contention.begin(processes)
    try:
        rounds = max(150, int(1000 * crash_scale))
        contention.run_until(rounds, dice, fail, least=KILL_DAEMON_EVERY)
    finally:
        contention.end()
    print(f"contention for one hold: {contention.figures()}")
    contention.check()
    assert contention.killed
    assert contention.disturbed
    assert statistics.median(contention.waits()) <= 0.05
