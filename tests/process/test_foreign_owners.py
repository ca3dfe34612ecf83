"""What another user made in the state directory is the trouble of that one bucket, of no other."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from harness import Daemon, pair

TARGET, BESIDE = pair("phone", "job"), pair("phone", "beside")


@pytest.fixture
def daemon(nobodys_daemon: Daemon) -> Daemon:
    """Of an ordinary user, while the test is root."""
    return nobodys_daemon.start()


def goes_on(daemon: Daemon) -> None:
    for number in range(3):
        assert daemon.request("PUT", BESIDE, {"n": number}).status == 200
        time.sleep(0.03)
    assert daemon.request("GET", "/v1/status").json["store"]["healthy"] is True
    daemon.kill()
    daemon.start()
    assert daemon.request("GET", BESIDE).bucket == {"n": 2}


def kept(daemon: Daemon) -> list[bytes]:
    return [path.read_bytes() for path in (daemon.state_dir / "quarantine").iterdir()]


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_an_unreadable_file_is_replaced(daemon: Daemon, method: str) -> None:
    """It cannot be linked then (fs.protected_hardlinks), only moved."""
    assert daemon.request("PUT", BESIDE, {}).status == 200
    path = daemon.state_dir / "devices" / "phone" / "jobs" / "job.json"
    time.sleep(0.1)
    path.write_bytes(b"no bucket")
    path.chmod(0o644)
    assert daemon.request("GET", TARGET).json["code"] == "bucket_corrupt"
    body = {"n": 1} if method == "PUT" else None
    assert daemon.request(method, TARGET, body).status == 200
    goes_on(daemon)
    assert kept(daemon) == [b"no bucket"]
    assert daemon.request("GET", TARGET).bucket == (body or {})


@pytest.mark.parametrize("below", [".", "jobs"])
def test_a_directory_that_may_not_be_written(daemon: Daemon, below: str) -> None:
    assert daemon.request("PUT", BESIDE, {}).status == 200
    time.sleep(0.1)
    place: Path = daemon.state_dir / "devices" / "tablet" / below
    place.mkdir(parents=True)
    answer = daemon.request("PUT", pair("tablet", "job"), {"n": 1})
    assert (answer.status, answer.json["code"]) == (503, "read_only")
    assert "devices/tablet/jobs/job.json: Permission denied" in answer.json["error"]
    goes_on(daemon)
    for path in (place, daemon.state_dir / "devices" / "tablet"):
        path.chmod(0o777)
    assert daemon.request("PUT", pair("tablet", "job"), {"n": 1}).status == 200
    goes_on(daemon)
