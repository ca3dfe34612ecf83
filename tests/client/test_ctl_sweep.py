"""bucketctl sweep and usage."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest
from ctl_shell import Shell
from external_edits import write_lock
from harness import Daemon, pair


def age(daemon: Daemon, device: str, job: str, updated_at: str) -> None:
    """Make a bucket look as if it had been written then."""
    path = daemon.bucket_path(device, job)
    # Files are current under the lock; without it the daemon may still write this one.
    with write_lock(daemon):
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


@pytest.mark.parametrize(
    "days", ["0", "-1", "x", "nan", "inf", "", "1e6", "0.5", "36526", "999999999", "1e300"]
)
def test_days_that_are_none(ctl: Shell, days: str) -> None:
    assert ctl("sweep", "--days", days, "--yes").returncode == 2
    assert ctl("sweep", "--yes").returncode == 2
    assert len(left(ctl)) == 3


@pytest.mark.parametrize("days", ["36525", "36500", "3000"])
def test_days_beyond_any_bucket_remove_nothing(ctl: Shell, days: str) -> None:
    """The first day is in the first century: compared as text, each bucket would be older."""
    assert ctl.json("sweep", "--days", days, "--yes") == {"removed": 0}
    assert len(left(ctl)) == 3


def test_an_invalid_time_is_never_old(ctl: Shell) -> None:
    age(ctl.daemon, "a", "old", "2020-02-31T00:00:00.000Z")
    shown = ctl.json("sweep", "--days", "1", "--dry-run")
    assert [(row["device"], row["job"]) for row in shown] == [("b", "old")]


def test_the_daemon_decides_what_is_older(ctl: Shell) -> None:
    """Whatever the wall clock of the command says."""
    script = (
        "import datetime, sys, time\n"
        "from bucketd_client.ctl import clock, main\n"
        "real = time.time\n"
        "time.time = lambda: real() + 400 * 86400\n"
        "clock.jump_seconds = lambda status: 0.0\n"
        "sys.exit(main())\n"
    )
    words = ["sweep", "--days", "90", "--dry-run", "--json"]
    done = subprocess.run(
        [sys.executable, "-c", script, *words], env=ctl.environ, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert '"new"' not in done.stdout
    assert done.stdout.count('"old"') == 2


def test_a_daemon_that_does_not_know_the_parameter(ctl: Shell) -> None:
    script = (
        "import sys\n"
        "from bucketd_client.ctl import main\n"
        "from bucketd_client.ctl.session import Session\n"
        "real = Session.call\n"
        "def call(self, method, target, **more):\n"
        "    return real(self, method, target.replace('/v1/buckets', '/v1/status'), **more)\n"
        "Session.call = call\n"
        "sys.exit(main())\n"
    )
    words = ["sweep", "--days", "90", "--yes"]
    done = subprocess.run(
        [sys.executable, "-c", script, *words], env=ctl.environ, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "upgrade bucketd" in done.stderr
    assert len(left(ctl)) == 3


@pytest.mark.parametrize("days", [200, -200, 1, -1])
def test_a_clock_that_jumps_removes_nothing(ctl: Shell, days: int) -> None:
    """Neither the past in which a board without a battery boots, nor two seconds of the future."""
    script = (
        "import datetime, sys\n"
        "from bucketd_client.ctl import clock, main\n"
        "class Clock(datetime.datetime):\n"
        "    @classmethod\n"
        "    def now(cls, zone=None):\n"
        f"        return super().now(zone) + datetime.timedelta(days={days})\n"
        "clock.datetime = Clock\n"
        "sys.exit(main())\n"
    )
    words = ["sweep", "--days", "1", "--yes"]
    done = subprocess.run(
        [sys.executable, "-c", script, *words], env=ctl.environ, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "the clock has jumped" in done.stderr
    assert len(left(ctl)) == 3


def test_what_cannot_be_read_is_told_by_every_list(ctl: Shell) -> None:
    path = ctl.daemon.bucket_path("a", "broken")
    path.write_bytes(b"{")
    for words in (
        ["list"],
        ["list", "--json"],
        ["usage"],
        ["export"],
        ["sweep", "--days", "9000", "--yes"],
        ["sweep", "--days", "9000", "--dry-run"],
        ["clear", "--all", "--device", "a", "--job", "none*", "--yes"],
        ["device", "rename", "a", "c", "--dry-run"],
        ["device", "forget", "a", "--yes"],
        ["device", "forget", "a", "--yes"],
    ):
        done = ctl(*words)
        assert done.returncode == 1, words
        assert done.stderr.count("devices/a/jobs/broken.json") == 1, done
    assert path.read_bytes() == b"{"


def test_a_failure_on_the_way_tells_how_far_it_came(ctl: Shell) -> None:
    """Lest "nothing was changed" is read as if it were about all."""
    ctl.json("schema", "set", "s", "-", stdin="{}")
    script = (
        "import sys\n"
        "from bucketd_client.ctl import main\n"
        "from bucketd_client.ctl.session import Session\n"
        "real, deleted = Session.call, []\n"
        "def call(self, method, target, **more):\n"
        "    if method == 'DELETE' and deleted:\n"
        "        self.path = '/nope'\n"
        "    deleted.extend([1] if method == 'DELETE' else [])\n"
        "    return real(self, method, target, **more)\n"
        "Session.call = call\n"
        "sys.exit(main())\n"
    )
    words = ["clear", "--all", "--timeout", "1", "--yes"]
    done = subprocess.run(
        [sys.executable, "-c", script, *words], env=ctl.environ, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr.startswith("bucketctl: 1 of 3 buckets cleared, then:\n")


def test_another_refusal_is_not_taken_for_an_old_daemon(ctl: Shell) -> None:
    done = ctl("sweep", "--days", "90", "--device", "x" * 129, "--yes")
    assert done.returncode == 1
    assert "upgrade" not in done.stderr
    assert "129 characters" in done.stderr


def test_usage(ctl: Shell) -> None:
    found = ctl.json("usage", "--json")["devices"]
    assert [(row["device"], row["buckets"]) for row in found] == [("a", 2), ("b", 1)]
    assert found[0]["size"] == 2 * found[1]["size"] > 2000
    over = ctl.json("usage", "--json", "--over", str(found[1]["size"]))["devices"]
    assert [row["device"] for row in over] == ["a"]
    assert ctl("usage", "--over", "much").returncode == 2
    assert ctl.json("usage", "--over", "1M") == ctl.json("usage", "--over", "1MiB") == []
    assert len(ctl.json("usage", "--over", "0B")) == len(found)


def test_a_time_that_is_none_spoils_no_list(ctl: Shell) -> None:
    age(ctl.daemon, "a", "new", "2020-02-31T00:00:00.000Z")
    seen = ctl.on_terminal("list")
    assert ("2020-02-31T00:00:00.000Z" in seen, len(seen.splitlines())) == (True, 4)


@pytest.mark.parametrize(
    "words", [["list", "--limit", "9" * 5000], ["usage", "--over", "9" * 5000]]
)
def test_numbers_beyond_all_bounds(ctl: Shell, words: list[str]) -> None:
    done = ctl(*words)
    assert (done.returncode, "it must be a whole number" in done.stderr) == (2, True)
