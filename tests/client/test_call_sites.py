"""Errors lead to their caller, say what to do, and ``value`` reads one key."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime
import decimal
import enum
import os
import pathlib
import subprocess
import sys
import traceback
import typing
import uuid
from pathlib import Path
from typing import Any

import pytest
from bucketd_client import (
    AsyncBucket,
    Bucket,
    BucketError,
    InvalidRequest,
    TooLarge,
    agent,
    aio,
)
from bucketd_client._codes import Code
from harness import Daemon
from type_checkers import errors_of

LARGE = "x" * 600_000


@pytest.fixture
def bucket(shared_daemon: Daemon, request: pytest.FixtureRequest) -> Bucket:
    return Bucket(device=request.node.name, job="j", socket=shared_daemon.socket)


def frames(error: BaseException) -> list[str]:
    return [each.name for each in traceback.extract_tb(error.__traceback__)]


def test_a_traceback_leads_to_the_caller_in_few_frames(bucket: Bucket) -> None:
    def author() -> None:
        bucket.set({"a": 1}, if_match='"other"')

    with pytest.raises(BucketError) as caught:
        author()
    assert frames(caught.value)[1:] == ["author", "set", "_run", "_exchange"]
    assert caught.value.__suppress_context__


async def test_a_traceback_of_asyncio_too(bucket: Bucket, shared_daemon: Daemon) -> None:
    later = AsyncBucket(device="d", job="j", socket=shared_daemon.socket)

    async def author() -> None:
        await later.set({"a": 1}, if_match='"other"')

    with pytest.raises(BucketError) as caught:
        await author()
    assert frames(caught.value)[1:] == ["author", "set", "_run", "_exchange"]


def test_pytest_shows_the_line_of_the_test(bucket: Bucket, tmp_path: Path) -> None:
    program = """
        from bucketd_client import Bucket

        def test_it():
            Bucket().set({"a": 1}, if_match='"other"')
    """
    (tmp_path / "test_it.py").write_text(program.replace("\n        ", "\n"))
    env = {
        **os.environ,
        "BUCKETD_SOCKET": bucket._path(),
        "BUCKETD_DEVICE": "d",
        "BUCKETD_JOB": "j",
    }
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "--tb=short",
        str(tmp_path),
    ]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert "test_it.py:5: in test_it" in done.stdout
    assert "bucketd_client/_" not in done.stdout.partition("short test summary")[0]


def test_value(bucket: Bucket) -> None:
    assert bucket.value("opened", 0) == 0
    assert bucket.value("opened") is None
    bucket.set(opened=3, none=None)
    assert bucket.value("opened", 0) == 3
    assert bucket.value("none", 1) is None
    with bucket.hold() as held:
        assert held.value("opened") == 3


async def test_value_of_asyncio(bucket: Bucket, shared_daemon: Daemon) -> None:
    bucket.set(opened=3)
    async with AsyncBucket(device="test_value_of_asyncio", job="j",
                           socket=shared_daemon.socket) as later:  # fmt: skip
        assert await later.value("opened", 0) == 3
        assert await later.value("other", 0) == 0
        async with later.hold() as held:
            assert await held.value("opened") == 3
            await held.close()
        assert not held.lost


def test_a_default_where_a_key_belongs_is_refused_with_what_to_call(bucket: Bucket) -> None:
    with pytest.raises(InvalidRequest, match=r"of type int: .* bucket\.value\(key, default\)"):
        bucket.get("opened", 0)  # type: ignore[arg-type]


def test_a_block_closes_its_connections(bucket: Bucket) -> None:
    def connections() -> int:
        found = 0
        for each in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(OSError):
                found += str(each.readlink()).startswith("socket:")
        return found

    with bucket as same:
        assert same is bucket
        bucket.set(a=1)
        before = connections()
    assert connections() == before - 1
    # It is of use afterwards.
    assert bucket.get() == {"a": 1}
    bucket.close()
    bucket.close()


async def test_a_block_closes_the_connections_of_its_loop(shared_daemon: Daemon) -> None:
    from bucketd_client._async_connections import pool_of_loop

    async with AsyncBucket(device="closes", job="j", socket=shared_daemon.socket) as later:
        await asyncio.gather(*(later.set({f"k{n}": n}) for n in range(5)))
        pool = await pool_of_loop(shared_daemon.socket)
        assert len(pool._idle) > 1
    assert not pool._idle
    assert not pool._open
    assert len(await later.get()) == 5


class Colour(enum.Enum):
    RED = 1


@dataclasses.dataclass
class Point:
    x: int


class Row(typing.NamedTuple):
    x: int


ADVICE: list[tuple[Any, str]] = [
    (datetime.datetime.now(datetime.UTC), "store its isoformat()"),
    (datetime.date.min, "store its isoformat()"),
    (datetime.timedelta(1), "store its total_seconds()"),
    (b"x", "store base64.b64encode(value).decode()"),
    ({1}, "store sorted() of it, or list()"),
    (decimal.Decimal(1), "store str() of it"),
    (uuid.uuid4(), "store str() of it"),
    (pathlib.Path("x"), "store str() of it"),
    (Colour.RED, "store its value"),
    (Point(1), "store dataclasses.asdict() of it"),
    ((n for n in ()), "store list() of it"),
]


@pytest.mark.parametrize(("value", "advice"), ADVICE, ids=lambda each: type(each).__name__)
def test_what_json_does_not_have_is_refused_with_what_to_do(
    bucket: Bucket, value: Any, advice: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        bucket.set({"a": [{"b": value}]})
    assert f"at '/a/0/b' is a {type(value).__name__}, which JSON does not have; {advice}" in str(
        caught.value
    )


def test_too_large_names_bucket_size_limit_and_keys_from_both_ways_in(bucket: Bucket) -> None:
    bucket.set(first=LARGE)
    with pytest.raises(TooLarge) as merged:
        bucket.set(second=LARGE)
    with pytest.raises(TooLarge) as body:
        bucket.set(whole=LARGE + LARGE, small=1)
    name = "test_too_large_names_bucket_size_limit_and_keys_from_both_ways_in"
    assert str(merged.value).startswith(
        f"cannot set the bucket of device {name!r}, job 'j': it would have 120"
    )
    assert "its largest keys: 'first' (600002 bytes)" in str(merged.value)
    said = str(body.value)
    assert said.startswith(
        f"cannot set the bucket of device {name!r}, job 'j': the request body has 12000"
    )
    assert "allowed are 1048576" in said
    assert said.endswith("its largest keys: 'whole' (1200002 bytes), 'small' (1 bytes)")
    assert body.value.message == said
    assert body.value.details == [{"key": "whole", "bytes": 1200002}, {"key": "small", "bytes": 1}]


def test_too_large_as_a_result(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUCKETD_SOCKET", bucket._path())
    monkeypatch.setenv("BUCKETD_DEVICE", "large")
    monkeypatch.setenv("BUCKETD_JOB", "j")
    results = [
        agent.utils.bucket.set({"a": LARGE * 2}),
        asyncio.run(aio.agent.utils.bucket.set({"a": LARGE * 2}, returning=False)),
    ]
    for result in results:
        assert not result.success
        assert (result.code, result.details) == ("too_large", [{"key": "a", "bytes": 1200002}])


def test_a_code_is_one_of_a_union(tmp_path: Path) -> None:
    assert set(typing.get_args(Code)) >= {"too_large", "timeout"}
    program = tmp_path / "program.py"
    program.write_text(
        "from bucketd_client import Bucket, BucketError, agent\n"
        "try:\n"
        "    Bucket().get()\n"
        "except BucketError as error:\n"
        "    print(error.code == 'too_large')\n"
        "    print(error.code == 'too_big')\n"
        "result = agent.utils.bucket.get()\n"
        "if not result.success:\n"
        "    print(result.code == 'no_job_context', result.code == 'no_context')\n"
    )
    found = errors_of("mypy", tmp_path, [program])
    assert sorted(line for _, line in found) == [6, 9]
