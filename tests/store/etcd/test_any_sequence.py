"""Any sequence of requests to two hosts of one cluster, with kills, against a dictionary."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any, ClassVar

import bucket_inputs as inputs
import pytest
from bucket_model import Name, same
from fleet import Cluster, Host, cluster
from harness import Daemon, pair
from hypothesis import settings
from hypothesis.stateful import invariant, rule, run_state_machine_as_test
from test_stateful import STEPS, Requests

FIGURES: Counter[str] = Counter()


@pytest.fixture(scope="module")
def hosts() -> Iterator[list[Host]]:
    with cluster(1) as etcd:
        both = [etcd.host(), etcd.host()]
        try:
            for host in both:
                host.start()
            yield both
        finally:
            for host in both:
                host.remove()


class Fleet(Requests):
    """The same requests as to one host's files; each goes to this or the other host."""

    hosts: ClassVar[list[Host]]

    def new(self) -> Daemon:
        for name in inputs.NAMES:
            self.hosts[0].request("DELETE", pair(*name))
        return self.hosts[0]

    def teardown(self) -> None:
        """The hosts go on to the next sequence."""

    @rule()
    def go_to_the_other_host(self) -> None:
        one, other = self.hosts
        self.daemon = self.model.daemon = other if self.daemon is one else one
        FIGURES["moves"] += 1

    @rule()
    def kill(self) -> None:
        self.daemon.kill()
        self.daemon.start()
        FIGURES["kills"] += 1

    @invariant()
    def keys_are_the_model(self) -> None:
        etcd: Cluster | None = self.hosts[0].cluster
        assert etcd is not None
        values = etcd.stored_values(self.hosts[0].prefix).values()
        stored = [json.loads(value) for value in values]
        found: dict[Name, Any] = {(v["device"], v["job"]): v for v in stored}
        wanted = {name: now for name, now in self.model.stored.items() if now.bucket is not None}
        assert found.keys() == wanted.keys()
        for name, now in wanted.items():
            assert same(found[name]["bucket"], now.bucket)
            assert found[name]["revision"] == now.revision
        FIGURES["steps"] += 1


@pytest.mark.timeout(7200)
def test_any_sequence_agrees_with_the_model(hosts: list[Host], fault_scale: float) -> None:
    Fleet.hosts = hosts
    chosen = settings(
        max_examples=max(4, int(400 * fault_scale)),
        stateful_step_count=STEPS,
        derandomize=fault_scale < 1,  # a test run of every day must not depend on luck
        database=None,
        report_multiple_bugs=False,
    )
    run_state_machine_as_test(Fleet, settings=chosen)
    print("two hosts:", ", ".join(f"{number} {name}" for name, number in sorted(FIGURES.items())))
    # A proof about nothing would pass as well.
    assert FIGURES["kills"] > 0
    assert FIGURES["moves"] > 0
