"""A node of etcd for each module, and how long the proofs run (``make fleet-faults``: in full)."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from fleet import Cluster, cluster


@pytest.fixture(scope="module")
def etcd() -> Iterator[Cluster]:
    with cluster(1) as found:
        yield found


@pytest.fixture
def fault_scale() -> float:
    """1 is the whole proof; ``FAULT_SCALE`` says how much of it to run (0.02 by default)."""
    return float(os.environ.get("FAULT_SCALE", "0.02"))
