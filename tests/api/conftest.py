"""The API is one, whatever keeps the buckets: its tests run on each engine.

Those marked ``files`` are about files, which there are none of on etcd. Of what lies above the
store (who may do what, how bytes are read) only ``make test-fleet`` runs all on etcd, too.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest
from fleet import Cluster, cluster
from harness import Daemon, new_daemon

ENGINES = ["file", "etcd"]
ABOVE_THE_STORE = ("test_tokens", "test_protocol", "test_bad_input", "test_openapi")
WHOLE = float(os.environ.get("FLEET_SCALE", "0.02")) >= 1


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "engine" in metafunc.fixturenames:
        one = metafunc.definition.get_closest_marker("files") or (
            metafunc.module.__name__ in ABOVE_THE_STORE and not WHOLE
        )
        engines = ENGINES[:1] if one else ENGINES
        metafunc.parametrize("engine", engines, scope="module")


@pytest.fixture(scope="session")
def etcd() -> Iterator[Cluster]:
    with cluster(1) as found:
        yield found


def new(request: pytest.FixtureRequest, engine: str) -> Daemon:
    """Not started; what it keeps in etcd is its own."""
    if engine == "file":
        return new_daemon()
    host: Daemon = request.getfixturevalue("etcd").host()
    host.env["BUCKETD_STORE_ETCD_PREFIX"] = f"{host.home}/"
    return host


@pytest.fixture
def daemon(request: pytest.FixtureRequest, engine: str) -> Iterator[Daemon]:
    daemon = new(request, engine)
    try:
        yield daemon.start()
    finally:
        daemon.remove()


@pytest.fixture(scope="module")
def shared_daemon(request: pytest.FixtureRequest, engine: str) -> Iterator[Daemon]:
    daemon = new(request, engine)
    try:
        yield daemon.start()
    finally:
        daemon.remove()


@pytest.fixture
def keeping(request: pytest.FixtureRequest, engine: str) -> Iterator[Callable[[int], Daemon]]:
    """Start a daemon that keeps so many changes of each bucket."""
    daemon = new(request, engine)

    def start(revisions: int) -> Daemon:
        kept = {"BUCKETD_HISTORY_REVISIONS": f"{revisions}", "BUCKETD_HISTORY_BYTES": "9000000"}
        daemon.env |= kept
        return daemon.start()

    try:
        yield start
    finally:
        daemon.remove()
