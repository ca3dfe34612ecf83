"""Reads with defaults in the Python client, ``bucketctl get`` and ``set`` with ``--defaults``."""

from __future__ import annotations

import asyncio
import threading

import pytest
from bucketd_client import Bucket, agent
from bucketd_client.aio import AsyncBucket
from bucketd_client.aio import agent as async_agent
from ctl_shell import Shell
from harness import Daemon, pair

FIELDS = {
    "fields": [
        {"name": "status", "type": "string", "defaultValue": "new"},
        {"name": "tags", "type": "array", "defaultValue": []},
        {"name": "n", "type": "number"},
    ]
}
NAMES = ["--device", "d", "--job", "j", "--automation", "login"]


@pytest.fixture
def ctl(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> Shell:
    assert daemon.request("PUT", "/v1/schemas/login", FIELDS).status == 200
    monkeypatch.setenv("BUCKETD_SOCKET", daemon.socket)
    monkeypatch.setenv("BUCKETD_TOKEN", daemon.mint("d", "j", "login"))
    return Shell(daemon)


def test_a_read_is_completed_and_nothing_is_stored(ctl: Shell) -> None:
    bucket = Bucket()
    assert bucket.get(defaults=True) == {"status": "new", "tags": []}
    assert (bucket.get(), bucket.snapshot().revision) == ({}, 0)
    bucket.set(status="used", n=1)
    assert bucket.get(defaults=True) == {"status": "used", "n": 1, "tags": []}
    assert bucket.get("tags", "n", defaults=True) == {"tags": [], "n": 1}
    assert bucket.get("tags") == {}
    assert bucket.snapshot().revision == 1


def test_a_default_is_never_shared(ctl: Shell) -> None:
    bucket = Bucket()
    bucket.get(defaults=True)["tags"].append("mine")
    assert bucket.get(defaults=True)["tags"] == []


def test_agents_and_asyncio(ctl: Shell) -> None:
    expected = {"status": "new", "tags": []}
    result = agent.utils.bucket.get(defaults=True)
    assert result.success
    assert result.bucket == expected
    assert agent.utils.bucket.get()["bucket"] == {}

    async def read() -> None:
        assert await AsyncBucket().get(defaults=True) == expected
        assert await AsyncBucket().get() == {}
        found = await async_agent.utils.bucket.get(defaults=True)
        assert found["bucket"] == expected

    asyncio.run(read())


def test_get_shows_defaults(ctl: Shell) -> None:
    assert ctl.json("get", *NAMES, "--defaults") == {"status": "new", "tags": []}
    assert ctl.json("get", *NAMES) == {}
    assert ctl.json("get", *NAMES, "--defaults", "status") == "new"
    assert "defaults=true" in ctl("get", *NAMES, "--defaults", "--curl").stdout


def test_set_stores_the_missing_defaults_only(ctl: Shell) -> None:
    done = ctl("set", *NAMES, "--defaults", "n:=1", "status=used")
    assert (done.returncode, done.stderr) == (0, "bucketctl: set by default: tags\n")
    assert Bucket().get() == {"status": "used", "n": 1, "tags": []}
    ctl.json("unset", *NAMES, "status")
    done = ctl("set", *NAMES, "--defaults")
    assert done.stderr == "bucketctl: set by default: status\n"
    assert Bucket().get() == {"status": "new", "n": 1, "tags": []}
    revision = Bucket().snapshot().revision
    done = ctl("set", *NAMES, "--defaults")
    assert (done.returncode, "there is nothing to set" in done.stderr) == (0, True)
    assert Bucket().snapshot().revision == revision


def test_set_by_the_token_of_the_bucket(ctl: Shell) -> None:
    done = ctl("run", *NAMES, "--", "sh", "-c", "true")
    assert done.returncode == 0
    token = ctl.daemon.mint("d", "j", "login")
    done = ctl("set", "--defaults", "--quiet", env={"BUCKETD_TOKEN": token})
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert Bucket().get() == {"status": "new", "tags": []}


def test_nothing_is_created_without_defaults(ctl: Shell) -> None:
    done = ctl("set", "--device", "d", "--job", "other", "--defaults")
    assert (done.returncode, done.stdout.strip()) == (0, "{}")
    assert ctl.json("list") == []


def test_a_key_that_another_sets_meanwhile_stays(ctl: Shell) -> None:
    stop = threading.Event()
    bucket = Bucket()

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            bucket.set(status="mine", n=number)

    bucket.set(n=0)
    thread = threading.Thread(target=write)
    thread.start()
    try:
        done = ctl("set", *NAMES, "--defaults", "--quiet")
    finally:
        stop.set()
        thread.join()
    # A writer without pause may win each time; the bucket is never changed unguarded.
    assert done.returncode in (0, 6)
    assert bucket.get()["status"] == "mine"


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["--defaults", "--curl"], 2),
        (["--defaults", "--if-match", '"stale"'], 6),
        (["--defaults", "n=text"], 5),
        ([], 2),
    ],
)
def test_refusals(ctl: Shell, words: list[str], status: int) -> None:
    assert ctl("set", *NAMES, *words).returncode == status
    assert ctl.daemon.request("GET", pair("d", "j")).bucket == {}
