"""One login for many runs: ``refresh``, with threads, tasks and processes."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from typing import Any

import pytest
from bucketd_client import AsyncBucket, Bucket, Held, HoldLost, InvalidRequest, agent, aio
from harness import Daemon


@pytest.fixture
def place(shared_daemon: Daemon) -> Daemon:
    return shared_daemon


@pytest.fixture
def bucket(place: Daemon, request: pytest.FixtureRequest) -> Bucket:
    return Bucket(device=request.node.name, job="j", socket=place.socket)


def fresh(bucket: dict[str, Any]) -> bool:
    return "session" in bucket


def test_a_fresh_bucket_is_returned_as_it_is(bucket: Bucket) -> None:
    bucket.set(session=1, other=2)
    revision = bucket.snapshot().revision
    assert bucket.refresh(fresh, lambda: {"session": 2}) == {"session": 1, "other": 2}
    assert bucket.snapshot().revision == revision


def test_login_gets_the_stale_bucket_or_nothing(bucket: Bucket) -> None:
    bucket.set(user="ada")
    assert bucket.refresh(fresh, lambda now: {"session": now["user"]})["session"] == "ada"
    bucket.remove("session")
    assert bucket.refresh(fresh, lambda: {"session": 2}) == {"user": "ada", "session": 2}


def test_a_login_that_fails_changes_nothing_and_lets_the_next_one_try(bucket: Bucket) -> None:
    bucket.set(user="ada")
    calls: list[float] = []
    inside: list[int] = []

    def login(_now: dict[str, Any]) -> dict[str, Any]:
        inside.append(1)
        assert len(inside) == 1
        calls.append(time.monotonic())
        time.sleep(0.05)
        inside.pop()
        if len(calls) == 1:
            raise ZeroDivisionError
        return {"session": len(calls)}

    outcomes: list[object] = []

    def work() -> None:
        try:
            outcomes.append(bucket.refresh(fresh, login)["session"])
        except ZeroDivisionError:
            outcomes.append("failed")

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(str, outcomes)) == ["2"] * 5 + ["failed"]
    assert len(calls) == 2
    assert bucket.get() == {"user": "ada", "session": 2}


def test_a_login_that_returns_nothing_is_a_mistake(bucket: Bucket) -> None:
    with pytest.raises(InvalidRequest, match="login returned None"):
        bucket.refresh(fresh, lambda: None)  # type: ignore[arg-type,return-value]
    with pytest.raises(InvalidRequest, match="must be a mapping"):
        bucket.refresh(fresh, lambda: "token")  # type: ignore[arg-type,return-value]
    assert bucket.get() == {}


def test_a_wait_for_the_login_of_another_ends(bucket: Bucket) -> None:
    with bucket.hold("login"), pytest.raises(Held):
        bucket.refresh(fresh, dict, wait=0)
    # Another name is another login.
    with bucket.hold("login"):
        assert bucket.refresh(fresh, lambda: {"session": 1}, name="api") == {"session": 1}


def test_a_login_that_has_lost_its_hold_stores_nothing(place: Daemon, bucket: Bucket) -> None:
    def login() -> dict[str, int]:
        (mine,) = [row for row in place.request("GET", "/v1/holds").json["holds"]
                   if row["device"] == bucket.context()["device"]]  # fmt: skip
        assert place.request("DELETE", f"/v1/holds/{mine['id']}").status == 200
        return {"session": 1}

    with pytest.raises(HoldLost):
        bucket.refresh(fresh, login)
    assert bucket.get() == {}


def test_a_refresh_inside_an_exclusive_hold(bucket: Bucket) -> None:
    with bucket.hold(exclusive=True) as held:
        assert held.refresh(fresh, lambda: {"session": 1}) == {"session": 1}


WORKER = """
import os, sys, time
from bucketd_client import Bucket
log = sys.argv[1]

def login():
    with open(log, "a") as file:
        file.write("login\\n")
    time.sleep(0.3)
    if sys.argv[2] == "fail" and open(log).read().count("login") == 1:
        sys.exit("the first login fails")
    return {"session": os.getpid()}

print(Bucket().refresh(lambda now: "session" in now, login)["session"])
"""


@pytest.mark.parametrize("first", ["succeed", "fail"])
def test_twelve_processes_and_one_login(
    place: Daemon, bucket: Bucket, tmp_path: Any, first: str
) -> None:
    names = {"BUCKETD_DEVICE": bucket.context()["device"], "BUCKETD_JOB": "j"}
    environ = {**os.environ, "BUCKETD_SOCKET": place.socket, **names}
    log = tmp_path / "log"
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(log), first],
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(12)
    ]
    printed = [worker.communicate(timeout=60) for worker in workers]
    said = [out for out, _ in printed if out]
    assert [error for _, error in printed if error] == (
        ["the first login fails\n"] if first == "fail" else []
    )
    assert len(said) == (11 if first == "fail" else 12)
    assert len(set(said)) == 1
    assert log.read_text().count("login") == (2 if first == "fail" else 1)


# --- asyncio, and the agents


async def test_tasks_and_one_login(bucket: Bucket, place: Daemon) -> None:
    calls: list[int] = []
    mine = AsyncBucket(device=bucket._device, job="j", socket=place.socket)

    async def login(now: dict[str, Any]) -> dict[str, int]:
        calls.append(len(now))
        await asyncio.sleep(0.1)
        return {"session": 1}

    async def is_fresh(now: dict[str, Any]) -> bool:
        return fresh(now)

    found = await asyncio.gather(*(mine.refresh(is_fresh, login) for _ in range(12)))
    assert found == [{"session": 1}] * 12
    assert calls == [0]
    await mine.clear()
    assert await mine.refresh(fresh, lambda: {"session": 2}) == {"session": 2}
    with pytest.raises(InvalidRequest, match="login returned None"):
        await mine.refresh(lambda _now: False, lambda: None)  # type: ignore[arg-type,return-value]


def test_an_agent(place: Daemon, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    assert agent.utils.bucket.refresh(fresh, dict).code == "no_job_context"  # type: ignore[union-attr]
    assert agent.utils.bucket.hold().code == "no_job_context"  # type: ignore[union-attr]
    monkeypatch.setenv("BUCKETD_SOCKET", place.socket)
    monkeypatch.setenv("BUCKETD_TOKEN", place.mint(bucket.context()["device"], "j"))
    result = agent.utils.bucket.refresh(fresh, lambda: {"session": 1})
    assert result.success
    assert (result.bucket, result.revision) == ({"session": 1}, 1)
    device = agent.utils.deviceBucket.refresh(fresh, lambda: {"session": 1})
    assert device.success
    assert device.deviceBucket == {"session": 1}
    hold = agent.utils.bucket.hold()
    assert hold.success
    with hold.held as held:
        assert held.set(a=1) == {"session": 1, "a": 1}
        other = agent.utils.deviceBucket.hold(wait=0)
        assert not other.success
        assert (other.code, other.details[0]["id"]) == ("held", held.id)
        with pytest.raises(AttributeError, match="cannot hold"):
            _ = other.held
    with pytest.raises(ZeroDivisionError):
        agent.utils.bucket.refresh(lambda _now: 1 / 0, dict)


async def test_an_agent_on_asyncio(
    place: Daemon, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BUCKETD_SOCKET", place.socket)
    monkeypatch.setenv("BUCKETD_TOKEN", place.mint(bucket.context()["device"], "j"))
    result = await aio.agent.utils.bucket.refresh(fresh, lambda: {"session": 1})
    assert result.success
    assert result.bucket == {"session": 1}
    hold = await aio.agent.utils.deviceBucket.hold()
    assert hold.success
    async with hold.held as held:
        assert await held.set(a=1) == {"a": 1}
        assert not (await aio.agent.utils.bucket.hold(wait=0)).success
