"""The library against a real daemon: agent, Bucket, AsyncBucket."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, TypedDict

import bucketd_client
import pytest
from bucketd_client import (
    AsyncBucket,
    Bucket,
    BucketError,
    InvalidJson,
    InvalidRequest,
    NoJobContext,
    PatchFailed,
    PreconditionFailed,
    Snapshot,
    agent,
    aio,
)
from harness import REPO, Daemon


class Login(TypedDict, total=False):
    sessionToken: str
    loggedIn: bool


@pytest.fixture
def mine(shared_daemon: Daemon, request: pytest.FixtureRequest) -> Bucket:
    return Bucket(device=request.node.name, job="job", socket=shared_daemon.socket)


@pytest.fixture
def in_context(shared_daemon: Daemon, monkeypatch: pytest.MonkeyPatch, request: Any) -> str:
    token = shared_daemon.mint(request.node.name, "login")
    monkeypatch.setenv("BUCKETD_TOKEN", token)
    monkeypatch.setenv("BUCKETD_SOCKET", shared_daemon.socket)
    return token


def test_agent_in_a_job_context(in_context: str) -> None:
    nothing = agent.utils.bucket.get()
    assert nothing.success
    assert (nothing.bucket, nothing.revision) == ({}, 0)
    assert dict(nothing) == {"success": True, "bucket": {}, "revision": 0}
    stored = agent.utils.bucket.set({"sessionToken": "s", "loggedIn": True, "gone": None})
    assert stored["bucket"] == {"sessionToken": "s", "loggedIn": True, "gone": None}
    assert "error" not in stored
    merged = agent.utils.bucket.set({"loggedIn": False})
    assert merged.success
    assert merged.bucket == {"sessionToken": "s", "loggedIn": False, "gone": None}
    assert merged.revision == 2


def test_agent_device_bucket(in_context: str) -> None:
    stored = agent.utils.deviceBucket.set({"model": "p7"})
    assert stored.success
    assert stored.deviceBucket == stored.device_bucket == {"model": "p7"}
    assert agent.utils.device_bucket.get()["deviceBucket"] == {"model": "p7"}
    assert agent.utils.bucket.get()["bucket"] == {}


def test_agent_outside_a_job_context() -> None:
    for result in (agent.utils.bucket.get(), agent.utils.bucket.set({"a": 1})):
        assert not result.success
        assert result.code == "no_job_context"
        assert "bucketctl run --device" in result.error


def test_device_bucket_needs_only_a_device(
    shared_daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BUCKETD_SOCKET", shared_daemon.socket)
    monkeypatch.setenv("BUCKETD_DEVICE", "only-device")
    assert agent.utils.deviceBucket.set({"a": 1}).success
    refused = agent.utils.bucket.get()
    assert not refused.success
    assert "BUCKETD_JOB is not" in refused.error


def test_token_file(in_context: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(in_context + "\n")
    monkeypatch.delenv("BUCKETD_TOKEN")
    monkeypatch.setenv("BUCKETD_TOKEN_FILE", str(path))
    assert agent.utils.bucket.set({"a": 1}).success
    monkeypatch.setenv("BUCKETD_TOKEN_FILE", str(tmp_path / "none"))
    refused = agent.utils.bucket.get()
    assert not refused.success
    assert str(tmp_path / "none") in refused.error


def _cycle() -> dict[str, Any]:
    data: dict[str, Any] = {}
    data["me"] = data
    return data


@pytest.mark.parametrize(
    "data",
    [
        {"x": float("nan")},
        {"x": {1, 2}},
        {"x": b"bytes"},
        {"x": "\ud800"},
        {1: 2},
        [1],
        None,
        _cycle(),
    ],
    ids=["nan", "set", "bytes", "surrogate", "key", "list", "none", "cycle"],
)
def test_data_that_is_no_json_object(in_context: str, data: Any) -> None:
    result = agent.utils.bucket.set(data)
    assert not result.success
    assert result.code == "invalid_request"
    after = agent.utils.bucket.get()
    assert after.success
    assert after.revision == 0


def test_integers_that_would_be_rounded(mine: Bucket) -> None:
    with pytest.raises(InvalidJson, match="outside"):
        mine.set(n=2**64)
    assert mine.set(n=2**64 - 1, m=-(2**63)) == {"n": 2**64 - 1, "m": -(2**63)}


def test_the_verbs(mine: Bucket) -> None:
    assert mine.get() == {}
    assert mine.set(a=1) == {"a": 1}
    assert mine.set({"b": {"c": 1}}, d=None) == {"a": 1, "b": {"c": 1}, "d": None}
    assert mine.get("a", "nope") == {"a": 1}
    assert mine.merge_patch({"b": {"c": None}, "d": None}) == {"a": 1, "b": {}}
    assert mine.json_patch([{"op": "add", "path": "/l", "value": [1]}])["l"] == [1]
    assert mine.remove("a", "l") == {"b": {}}
    assert mine.replace({"x": 1}) == {"x": 1}
    snapshot = mine.snapshot()
    assert (snapshot.bucket, snapshot.revision) == ({"x": 1}, 6)
    assert mine.set({"x": 2}, if_match=snapshot.etag) == {"x": 2}
    mine.clear()
    nothing = mine.snapshot()
    assert nothing == Snapshot({}, 0, None)
    assert mine.set({"x": 3}, if_match=nothing.etag) == {"x": 3}
    with pytest.raises(PreconditionFailed):
        mine.set({"x": 4}, if_match=nothing.etag)
    mine.clear()


def test_refusals_are_exceptions(mine: Bucket) -> None:
    mine.set(a=1)
    with pytest.raises(PreconditionFailed) as caught:
        mine.set({"a": 2}, if_match='"stale"')
    assert (caught.value.code, caught.value.status, caught.value.revision) == (
        "precondition_failed",
        412,
        1,
    )
    with pytest.raises(PatchFailed):
        mine.json_patch([{"op": "test", "path": "/a", "value": 2}])
    with pytest.raises(InvalidRequest):
        mine.json_patch([{"op": "nonsense", "path": "/a"}])
    with pytest.raises(NoJobContext):
        Bucket(token="unknown", socket=mine._path()).get()
    assert mine.get() == {"a": 1}


def test_a_socket_may_be_a_path(shared_daemon: Daemon) -> None:
    mine = Bucket(device="path", job="j", socket=Path(shared_daemon.socket))
    assert mine.set(a=1) == {"a": 1}
    with contextlib.closing(mine.watch(snapshot=True)) as changes:
        assert next(changes).set == {"a": 1}


@pytest.mark.parametrize(
    "options",
    [{"socket": 5}, {"device": 5}, {"device": b"d"}, {"job": 5}, {"job": "j", "automation": 5}]
    + [{"timeout": timeout} for timeout in ("x", "1", 0, -1, float("nan"), float("inf"))],
    ids=str,
)
def test_options_of_another_kind_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match="cannot use"):
        Bucket(**{"device": "d", "socket": "/nope", **options}).get()
    with pytest.raises(InvalidRequest, match="cannot use"):
        Bucket(device="d", socket="/nope").get(5)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["", "x" * 129, "a\nb", "\ud800"])
def test_names_that_are_refused(shared_daemon: Daemon, name: str) -> None:
    with pytest.raises(InvalidRequest):
        Bucket(device=name, job="j", socket=shared_daemon.socket).set(a=1)
    with pytest.raises(InvalidRequest):
        Bucket(device="d", job=name, socket=shared_daemon.socket).set(a=1)


@pytest.mark.parametrize("name", ["/", "..", ".", "%2e", "a/../b", "a b(c)", "😀" * 128, "ß?&#"])
def test_names_that_are_legal(shared_daemon: Daemon, name: str) -> None:
    mine = Bucket(device=name, job=name, socket=shared_daemon.socket)
    assert mine.set(name=name) == {"name": name}
    stored = shared_daemon.request("GET", "/v1/buckets").json["buckets"]
    assert [row for row in stored if row["device"] == name and row["job"] == name]


def test_update_gives_up_nothing(mine: Bucket) -> None:
    assert mine.update(lambda bucket: {**bucket, "n": 1}) == {"n": 1}

    def in_place(bucket: dict[str, Any]) -> None:
        bucket["n"] += 1

    assert mine.update(in_place) == {"n": 2}

    def broken(_bucket: dict[str, Any]) -> dict[str, Any]:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        mine.update(broken)
    assert mine.get() == {"n": 2}


def _increment(socket: str, times: int, device: str) -> None:
    mine = Bucket(device=device, job="j", socket=socket)
    for _ in range(times):
        mine.update(lambda bucket: {**bucket, "n": bucket.get("n", 0) + 1})


def _set_own_keys(socket: str, number: int) -> None:
    mine = Bucket(device="keys", job="j", socket=socket)
    for turn in range(40):
        mine.set({f"{number}-{turn}": turn})


def _in_processes(target: Any, arguments: list[tuple[Any, ...]]) -> None:
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=target, args=each) for each in arguments]
    for process in processes:
        process.start()
    for process in processes:
        process.join(100)
    assert [process.exitcode for process in processes] == [0] * len(processes)


def test_two_processes_increment_to_exactly_1000(shared_daemon: Daemon) -> None:
    _in_processes(_increment, [(shared_daemon.socket, 500, "counter")] * 2)
    assert Bucket(device="counter", job="j", socket=shared_daemon.socket).get() == {"n": 1000}


def test_eight_processes_increment_without_one_starving(shared_daemon: Daemon) -> None:
    _in_processes(_increment, [(shared_daemon.socket, 100, "eight")] * 8)
    assert Bucket(device="eight", job="j", socket=shared_daemon.socket).get() == {"n": 800}


def test_eight_processes_lose_no_key(shared_daemon: Daemon) -> None:
    _in_processes(_set_own_keys, [(shared_daemon.socket, n) for n in range(8)])
    stored = Bucket(device="keys", job="j", socket=shared_daemon.socket).get()
    assert stored == {f"{n}-{turn}": turn for n in range(8) for turn in range(40)}


def test_context(in_context: str, shared_daemon: Daemon) -> None:
    context = Bucket().context()
    assert context["job"] == "login"
    assert context["expires_at"].endswith("Z")
    named = Bucket(device="d", job="j", automation="a", socket=shared_daemon.socket).context()
    assert named == {"device": "d", "job": "j", "automation": "a", "expires_at": None}


def test_bucket_takes_its_context_from_the_environment(in_context: str) -> None:
    login: Bucket[Login] = Bucket()
    assert login.set(loggedIn=True)["loggedIn"]
    assert Bucket(device_bucket=True).set(shared=1) == {"shared": 1}
    assert Bucket(token=in_context).get() == {"loggedIn": True}


def test_asyncio(in_context: str, shared_daemon: Daemon) -> None:
    async def play() -> None:
        assert (await aio.agent.utils.bucket.get()).success
        assert (await aio.agent.utils.bucket.set({"a": 1}))["bucket"] == {"a": 1}
        assert (await aio.agent.utils.deviceBucket.set({"d": 1})).success
        mine = AsyncBucket(device="aio", job="j", socket=shared_daemon.socket)
        await asyncio.gather(*(mine.set({str(n): n}) for n in range(20)))
        assert await mine.get() == {str(n): n for n in range(20)}
        assert await mine.update(lambda b: {"n": len(b)}) == {"n": 20}
        assert await mine.merge_patch({"n": None, "m": 1}) == {"m": 1}
        assert await mine.json_patch([{"op": "remove", "path": "/m"}]) == {}
        assert await mine.replace({"z": 1, "y": 2}) == {"z": 1, "y": 2}
        assert await mine.remove("z") == {"y": 2}
        assert (await mine.snapshot()).bucket == {"y": 2}
        assert (await mine.context())["device"] == "aio"
        await mine.clear()
        with pytest.raises(PreconditionFailed):
            await mine.set({"a": 1}, if_match='"x"')
        assert await mine.set({"a": 1}, if_match=None) == {"a": 1}
        with pytest.raises(PreconditionFailed):
            await mine.set({"a": 2}, if_match=None)
        await mine.clear()

    asyncio.run(play())
    asyncio.run(play_again(shared_daemon.socket))


async def play_again(socket: str) -> None:
    """Another loop, the same client."""
    assert await AsyncBucket(device="aio", job="j", socket=socket).get() == {}


def test_the_import_needs_nothing_but_itself() -> None:
    here = str(REPO / "client" / "python")
    code = (
        f"import sys; sys.path.insert(0, {here!r}); before = set(sys.modules); "
        "import bucketd_client; print(*set(sys.modules) - before)"
    )
    ran = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True)
    assert ran.stdout.split() == ["bucketd_client"]


def test_every_public_name_is_there() -> None:
    for name in dir(bucketd_client):
        assert getattr(bucketd_client, name) is not None
    assert issubclass(bucketd_client.CODES["too_large"], BucketError)
    with pytest.raises(AttributeError):
        _ = bucketd_client.nothing  # type: ignore[attr-defined]


def test_what_starting_costs() -> None:
    """Printed, not judged: a busy machine would fail it. Shown with ``pytest -s``."""
    here = f"import sys; sys.path.insert(0, {str(REPO / 'client' / 'python')!r})"
    bare = seconds_of(here)
    for line in (
        "import bucketd_client",
        "from bucketd_client import agent",
        "import bucketd_client.aio",
    ):
        print(f"{line}: {1000 * (seconds_of(f'{here}; {line}') - bare):.1f} ms")


def seconds_of(code: str) -> float:
    """The best of a few runs of a bare interpreter."""
    runs = []
    for _ in range(4):
        began = time.monotonic()
        subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True)
        runs.append(time.monotonic() - began)
    return min(runs)
