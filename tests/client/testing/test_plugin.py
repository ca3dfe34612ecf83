"""The fixtures, as the author of an automation uses them: in a pytest of their own."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from bucketd_client import Bucket, NoJobContext
from bucketd_client.testing import Server

AUTOMATION = """
import asyncio
from bucketd_client import agent
from bucketd_client.aio import agent as async_agent

def main():
    result = agent.utils.bucket.get()
    if not result.success:
        raise SystemExit(result.error)
    if not result.bucket.get("loggedIn"):
        result = agent.utils.bucket.set({"loggedIn": True, "token": "t1"})
        if not result.success:
            raise SystemExit(result.code)
    agent.utils.deviceBucket.set({"lastJob": "login"})

def awaited():
    asyncio.run(async_agent.utils.bucket.set({"loggedIn": True}))
"""

PASSING = """
import subprocess, sys
import automation
import pytest
from bucketd_client import Bucket, agent

def test_logs_in(bucket, device_bucket):
    automation.main()
    bucket.assert_set(loggedIn=True)
    bucket.assert_set({"token": "t1"})
    device_bucket.assert_set(lastJob="login")
    assert bucket.data == {"loggedIn": True, "token": "t1"}
    assert [(w.method, w.set, w.revision) for w in bucket.writes] == [("PATCH", bucket.data, 1)]

@pytest.mark.bucketd(bucket={"loggedIn": True}, device_bucket={"model": "p7"}, job="log in")
def test_resumes(bucket, device_bucket):
    automation.main()
    bucket.assert_unchanged()
    assert device_bucket.data == {"model": "p7", "lastJob": "login"}
    assert Bucket().context()["job"] == "log in"

def test_each_test_has_its_own(bucket):
    assert (bucket.data, bucket.revision, bucket.writes) == ({}, 0, [])

def test_its_context_has_its_name(bucket):
    assert Bucket().context()["label"] == "test_its_context_has_its_name"
    assert bucket.environ["BUCKETD_RUN"] == "test_its_context_has_its_name"

@pytest.mark.parametrize("name", ["x" * 200, "a\\nb"])
def test_a_long_name(bucket, name):
    assert Bucket().context()["label"].startswith("test_a_long_name[")

@pytest.mark.bucketd(label="nightly")
def test_a_label_of_its_own(bucket, bucketd_server):
    assert Bucket().context()["label"] == "nightly"
    assert "BUCKETD_RUN" not in bucketd_server.bucket("d", "j").environ

def test_asyncio(bucket):
    automation.awaited()
    bucket.assert_set(loggedIn=True)

def test_a_process_of_its_own(bucket):
    subprocess.run([sys.executable, "-c", "import automation; automation.main()"], check=True)
    bucket.assert_set(loggedIn=True)

def test_the_same_value_again_counts_as_set(bucket):
    bucket.seed({"loggedIn": True})
    agent.utils.bucket.set({"loggedIn": True})
    bucket.assert_set(loggedIn=True)
    bucket.assert_unchanged()

def test_removed(bucket):
    bucket.seed({"a": 1, "b": 2})
    Bucket().remove("a")
    bucket.assert_removed("a")

def test_what_the_automation_does_when_refused(bucket, bucketd_server):
    bucketd_server.refuse("storage_full", times=2)
    with pytest.raises(SystemExit, match="storage_full, as the test wants it"):
        automation.main()
    assert agent.utils.bucket.set({"a": 1}).code == "storage_full"
    bucket.assert_unchanged()
    assert agent.utils.bucket.set({"a": 1}).success

def test_what_it_does_without_its_token(bucket):
    bucket.revoke()
    assert agent.utils.bucket.get().code == "no_job_context"

def test_operators_and_other_buckets(bucketd_server):
    assert agent.utils.bucket.get().code == "no_job_context"
    Bucket(device="d", job="j").set(a=1)
    assert bucketd_server.bucket("d", "j").data == {"a": 1}

def test_watching(bucket, bucketd_server):
    bucket.seed({"a": 1})
    changes = Bucket().watch(snapshot=True)
    assert next(changes).set == {"a": 1}
    agent.utils.bucket.set({"a": 2})
    assert next(changes).set == {"a": 2}
    bucketd_server.stop()
    bucketd_server.start()
    agent.utils.bucket.set({"b": 1})
    assert next(changes).set == {"b": 1}
    bucket.revoke()
    assert [each.code for each in agent.utils.bucket.watch()] == ["no_job_context"]
    with pytest.raises(Exception, match="revoked"):
        next(changes)

@pytest.mark.bucketd(
    schema={"fields": [{"name": "n", "type": "number", "defaultValue": 7}]}, bucket={"n": 1}
)
def test_its_schema(bucket):
    assert agent.utils.bucket.set({"n": "x"}).code == "schema_violation"
    bucket.assert_unchanged()

def test_it_waits_for_its_turn(bucket):
    with Bucket().hold() as held:
        assert agent.utils.bucket.hold(wait=0).code == "held"
        held.set(a=1)
    assert agent.utils.bucket.refresh(lambda now: "s" in now, lambda: {"s": 1}).bucket["s"] == 1

def test_a_restart(bucket, bucketd_server):
    agent.utils.bucket.set({"a": 1})
    bucketd_server.stop()
    bucketd_server.start()
    assert agent.utils.bucket.get().bucket == {"a": 1}
"""

FAILING = """
from bucketd_client import Bucket, agent

def test_not_set(bucket):
    agent.utils.bucket.set({"a": 1})
    bucket.assert_set(b=1)

def test_another_value(bucket):
    agent.utils.bucket.set({"a": 1})
    bucket.assert_set(a=2)

def test_not_removed(bucket):
    bucket.assert_removed("a")

def test_set_again(bucket):
    bucket.seed({"a": 1})
    Bucket().remove("a")
    Bucket().set(a=2)
    bucket.assert_removed("a")

def test_changed(bucket):
    agent.utils.bucket.set({"a": 1})
    bucket.assert_unchanged()

def test_changed_and_changed_back(bucket):
    bucket.seed({"a": 1})
    agent.utils.bucket.set({"a": 2})
    agent.utils.bucket.set({"a": 1})
    bucket.assert_unchanged()
"""

MISMARKED = """
import pytest

@pytest.mark.bucketd(buckets={})
def test_it(bucket):
    pass
"""


# A bucketd that is installed nowhere, and that of this checkout.
ENGINES = {"daemon": "", "memory": "bucketd_in_memory = true"}


def run(folder: Path, tests: str, setting: str = "") -> tuple[int, str]:
    (folder / "pytest.ini").write_text(f"[pytest]\n{setting}\n")
    (folder / "automation.py").write_text(AUTOMATION)
    (folder / "test_automation.py").write_text(tests)
    command = [sys.executable, "-m", "pytest", "-q", "--strict-markers", "-p", "no:cacheprovider"]
    # Another plugin of this environment warns without a setting of its own.
    command += ["-o", "asyncio_default_fixture_loop_scope=function"]
    done = subprocess.run(
        [*command, "-W", "error", "test_automation.py"],
        cwd=folder, capture_output=True, text=True, timeout=60,
        env={**os.environ, "PYTHONPATH": str(folder), "BUCKETD_TOKEN": "of somebody else"},
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("engine", ENGINES)
def test_fixtures(tmp_path: Path, engine: str) -> None:
    status, said = run(tmp_path, PASSING, ENGINES[engine])
    assert status == 0, said
    wanted = {"daemon": "18 passed", "memory": "17 passed, 1 skipped"}
    assert wanted[engine] in said


@pytest.mark.parametrize("engine", ENGINES)
def test_assertions_fail_with_what_was_done(tmp_path: Path, engine: str) -> None:
    status, said = run(tmp_path, FAILING, ENGINES[engine])
    assert status == 1
    for wanted in (
        "6 failed",
        "'b' was not set; set were: 'a'",
        "'a' was set to 1, not to 2",
        "'a' was not removed; removed were: none",
        "'a' was removed, and set again to 2",
        "the bucket was changed: it was {}, it is {'a': 1}",
        "the bucket was changed: it was {'a': 1}, it is {'a': 1}",
    ):
        assert wanted in said, said


def test_a_marker_that_is_none(tmp_path: Path) -> None:
    status, said = run(tmp_path, MISMARKED)
    assert status != 0
    assert "it takes device, job, bucket, device_bucket, label, automation, schema" in said


def daemons() -> list[str]:
    """Return the command lines of the daemons that servers for tests have started."""
    found = []
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.append(each.read_bytes().replace(b"\0", b" ").decode())
    return [line for line in found if "bucketd-" in line and "--unsafe-filesystem" in line]


KILLED = """
import os, signal
from bucketd_client.testing import Server
Server().__enter__()
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_test_run_that_is_killed_leaves_no_daemon(tmp_path: Path) -> None:
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", KILLED], env=env, timeout=60)
    until = time.monotonic() + 20
    while any(str(tmp_path) in line for line in daemons()):
        assert time.monotonic() < until, daemons()
        time.sleep(0.05)


def test_servers_of_one_process_share_a_daemon_and_nothing_else() -> None:
    with Server() as server:
        bucket = server.bucket("d", "j")
        bucket.seed({"a": 1})
        Bucket(device="d", socket=server.socket).set(b=1)
        server.schema("login", {"fields": [{"name": "n", "type": "number"}]})
        Bucket(device="d", job="cleared", socket=server.socket).set(a=1)
        Bucket(device="d", job="cleared", socket=server.socket).clear()
        assert len(server.ask("GET", "/v1/trash")[0]["trash"]) == 1
        first = server._engine
    with Server() as server:
        assert server._engine is first
        assert server.ask("GET", "/v1/buckets")[0]["buckets"] == []
        assert server.ask("GET", "/v1/trash")[0]["trash"] == []
        assert server.ask("GET", "/v1/contexts")[0]["contexts"] == []
        assert server.ask("GET", "/v1/schemas")[0]["schemas"] == []
        other = Bucket(token=bucket.token, socket=server.socket)
        with pytest.raises(NoJobContext):
            other.get()


def test_without_bucketd_it_is_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    with Server() as server:
        assert server.in_memory
        with pytest.raises(
            RuntimeError, match=r"cannot set a schema of 'login': .*install bucketd"
        ):
            server.schema("login", {"fields": []})


WITHOUT_PYTEST = """
import sys
from bucketd_client import Bucket
assert "bucketd_client.testing" not in sys.modules
from bucketd_client.testing import Server
with Server() as server:
    kept = server.bucket("phone-1", "login")
    bucket = Bucket(token=kept.token, socket=server.socket)
    bucket.set(a=[1, None])
    bucket.json_patch([{"op": "add", "path": "/a/-", "value": 2**64 - 1}])
    assert kept.data == {"a": [1, None, 2**64 - 1]}
    kept.assert_set(a=[1, None, 2**64 - 1])
assert "pytest" not in sys.modules
"""


@pytest.mark.parametrize("version", ["3.9", "3.13"])
def test_without_pytest_and_on_other_pythons(version: str) -> None:
    python = f"python{version}"
    if subprocess.run(["sh", "-c", f"{python} -c pass"], capture_output=True).returncode:
        pytest.skip(f"there is no {python} here")
    client = Path(__file__).resolve().parents[3] / "client/python"
    env = {**os.environ, "PYTHONPATH": str(client), "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run([python, "-W", "error", "-c", WITHOUT_PYTEST], check=True, env=env)
