"""bucketctl sweep and usage."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
from ctl_shell import Shell
from harness import Daemon, pair


def age(daemon: Daemon, device: str, job: str, updated_at: str) -> None:
    """Make a bucket look as if it had been written then."""
    daemon.request("GET", "/v1/status")  # so that its file is current
    path = daemon.bucket_path(device, job)
    envelope: dict[str, Any] = json.loads(path.read_text())
    new = path.with_name("new")
    new.write_text(json.dumps({**envelope, "updated_at": updated_at}))
    os.utime(new, (0, 0))
    os.rename(new, path)
    daemon.request("GET", pair(device, job))


@pytest.fixture
def ctl(daemon: Daemon) -> Shell:
    for device, job in (("a", "old"), ("a", "new"), ("b", "old")):
        daemon.request("PUT", pair(device, job), {"pad": "x" * 1000})
    for device in ("a", "b"):
        age(daemon, device, "old", "2020-01-01T00:00:00.000Z")
    return Shell(daemon)


def left(ctl: Shell) -> list[tuple[str, str]]:
    return [(row["device"], row["job"]) for row in ctl.json("list")]


def test_what_is_old_is_removed(ctl: Shell) -> None:
    shown = ctl.json("sweep", "--days", "90", "--dry-run")
    assert [(row["device"], row["job"]) for row in shown] == [("a", "old"), ("b", "old")]
    assert ctl("sweep", "--days", "90").returncode == 2  # nobody was asked
    assert len(left(ctl)) == 3
    assert ctl.json("sweep", "--days", "90", "--device", "b", "--yes") == {"removed": 1}
    assert ctl.json("sweep", "--days", "90", "--yes") == {"removed": 1}
    assert left(ctl) == [("a", "new")]
    for words in ((), ("--yes",)):  # nobody need be asked
        assert ctl.json("sweep", "--days", "90", *words) == {"removed": 0}
    assert ctl.on_terminal("sweep", "--days", "90") == "there is nothing to remove\n"
    assert ctl.json("sweep", "--days", "90", "--dry-run") == []


@pytest.mark.parametrize("days", ["0", "-1", "x", "nan", "inf", ""])
def test_days_that_are_none(ctl: Shell, days: str) -> None:
    assert ctl("sweep", "--days", days, "--yes").returncode == 2
    assert ctl("sweep", "--yes").returncode == 2
    assert len(left(ctl)) == 3


def test_usage(ctl: Shell) -> None:
    found = ctl.json("usage", "--json")["devices"]
    assert [(row["device"], row["buckets"]) for row in found] == [("a", 2), ("b", 1)]
    assert found[0]["size"] == 2 * found[1]["size"] > 2000
    over = ctl.json("usage", "--json", "--over", str(found[1]["size"]))["devices"]
    assert [row["device"] for row in over] == ["a"]
    assert ctl("usage", "--over", "much").returncode == 2
