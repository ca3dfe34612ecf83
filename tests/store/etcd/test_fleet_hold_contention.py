"""Processes on two hosts for one hold; holders and the leader are killed, and a host is cut off."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import pytest
from contention import Contention
from fleet import cluster
from fleet_load import hosts_of

from bucketd.store.etcd.session import LEASE_SECONDS


@pytest.mark.timeout(7200)
def test_never_two_at_a_time_on_two_hosts(tmp_path: Path, fault_scale: float) -> None:
    dice = random.Random(29)
    processes = max(4, min(64, int(64 * fault_scale)))
    with cluster(3) as three, hosts_of(three, timeout=5) as hosts:
        contention = Contention(hosts, tmp_path)

        def kill_leader() -> None:
            leader = three.leader()
            leader.kill()
            time.sleep(dice.uniform(0.0, 1.0))
            leader.start()
            three.wait()

        def cut_off() -> None:
            """Stop a host for so long that its lease ends; then it goes on where it was."""
            process = hosts[1].process
            assert process is not None
            process.send_signal(signal.SIGSTOP)
            try:
                time.sleep(LEASE_SECONDS + 3)
            finally:
                process.send_signal(signal.SIGCONT)

        def fail(number: int) -> None:
            # Whoever waits for a lease to end is not waiting for a release.
            if number % 12 == 3:
                contention.disturb(kill_leader, LEASE_SECONDS + 2)
            elif number % 12 == 8:
                contention.disturb(cut_off, LEASE_SECONDS + 2)
            elif number % 3 == 1:
                contention.kill_holder()

        contention.begin(processes)
        try:
            contention.run_until(max(60, int(500 * fault_scale)), dice, fail, least=12)
        finally:
            contention.end()
        print(f"contention for one hold on two hosts: {contention.figures()}")
        contention.check()
    assert contention.killed
    assert contention.disturbed
