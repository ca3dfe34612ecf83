"""systemd/move-buckets.sh: what a service runs before it starts on the other engine."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fleet import Cluster, Host
from harness import REPO, Daemon, pair
from test_migrate import fill, held, migrate


@pytest.fixture
def files(daemon: Daemon) -> Daemon:
    return daemon


@pytest.fixture
def host(etcd: Cluster, files: Daemon, request: pytest.FixtureRequest) -> Iterator[Host]:
    """The same host as ``files``, once its settings say etcd."""
    prefix = f"/{request.node.name}/"
    text = f'[store]\nengine = "etcd"\n[store.etcd]\nprefix = "{prefix}"\n'
    files.config.write_text(f'{text}endpoints = ["{etcd.endpoints}"]\n')
    host = etcd.host(BUCKETD_STORE_ETCD_PREFIX=prefix)
    host.home.rmdir()
    host.home = files.home
    yield host
    if host.process is not None:
        host.stop()


def run(daemon: Daemon, engine: str) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    script = [str(REPO / "systemd" / "move-buckets.sh"), engine]
    return subprocess.run(
        [*script, str(daemon.state_dir), str(daemon.config)],
        env={**daemon.environ(), "PATH": path},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_restart_moves_there_and_another_one_back(files: Daemon, host: Host) -> None:
    fill(files)
    before = held(files)
    assert files.stop() == 0
    assert run(host, "etcd").returncode == 0
    host.start()
    assert held(host) == before
    assert not (host.state_dir / "devices").exists()
    assert host.request("DELETE", pair("phone-2", "login")).status == 200
    assert host.request("PATCH", pair("new", "j"), {"n": 1}).status == 200
    now = held(host)
    assert host.stop() == 0
    # At each start, and so here, it finds that it is done.
    again = run(host, "etcd")
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")
    assert run(host, "file").returncode == 0
    files.start(env={"BUCKETD_STORE_ENGINE": "file"})
    assert held(files) == now


def test_only_the_rest_is_left_to_carry(etcd: Cluster, files: Daemon, host: Host) -> None:
    fill(files)
    beside = etcd.host(BUCKETD_STORE_ETCD_PREFIX=host.prefix)
    try:
        beside.start()
        assert migrate(files, beside, "--note", str(files.state_dir / "moving"))[0] == 0
    finally:
        beside.remove()
    assert files.request("DELETE", pair("phone-2", "login")).status == 200
    assert files.request("PATCH", pair("late", "j"), {"n": 1}).status == 200
    now = held(files)
    files.kill()  # what its files lack is in the journal
    done = run(host, "etcd")
    assert done.returncode == 0, done.stderr
    assert '"carried": 1, "again": 0, "removed": 1' in done.stdout
    host.start()
    assert held(host) == now


def test_what_cannot_be_carried_stops_it(files: Daemon, host: Host) -> None:
    """The service then does not start; nothing is put aside, and it may be tried again."""
    fill(files)
    assert files.stop() == 0
    damaged = files.bucket_path("phone-2", "unknown")
    damaged.write_text("{half")
    done = run(host, "etcd")
    assert done.returncode == 1
    assert "cannot be read" in done.stderr
    assert not (host.state_dir / "moved").exists()
    damaged.unlink()
    assert run(host, "etcd").returncode == 0
    assert {key[0] for key in held(host.start())} == {"phone 1 📱", "phone-2", "../x"}
