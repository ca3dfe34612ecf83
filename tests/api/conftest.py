"""The API is one, whatever keeps the buckets: its tests run on each engine.

Those marked ``files`` are about files, which there are none of on etcd.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fleet import Cluster, cluster
from harness import Daemon, new_daemon

ENGINES = ["file", "etcd"]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "engine" in metafunc.fixturenames:
        about_files = metafunc.definition.get_closest_marker("files")
        engines = ENGINES[:1] if about_files else ENGINES
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
