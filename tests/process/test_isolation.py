"""What stands between the daemon's files and memory and everybody else."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import signal
import time
from pathlib import Path

import pytest
from harness import Daemon, pair, read_response

TARGET = pair("phone", "job")


def refused_start(daemon: Daemon) -> str:
    daemon.spawn()
    assert daemon.process is not None
    assert daemon.process.wait(20) == 1, daemon.log
    assert "Traceback" not in daemon.log
    return daemon.log


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
@pytest.mark.parametrize("flag", ["state", "run"])
def test_a_directory_of_another_user_is_refused(stopped_daemon: Daemon, flag: str) -> None:
    path = stopped_daemon.home / flag
    path.mkdir(mode=0o700)
    os.chown(path, 65534, 65534)
    said = refused_start(stopped_daemon)
    assert f"{path}: it belongs to user 65534" in said
    assert "chown it" in said
    assert list(path.iterdir()) == []


@pytest.mark.parametrize("mode", [0o770, 0o777, 0o1777])
@pytest.mark.parametrize("flag", ["state", "run"])
def test_a_directory_that_others_write_to_is_refused(
    stopped_daemon: Daemon, flag: str, mode: int
) -> None:
    path = stopped_daemon.home / flag
    path.mkdir()
    (path / "of somebody").touch()
    path.chmod(mode)
    said = refused_start(stopped_daemon)
    assert f"{path}: other users may write to it" in said
    assert "chmod go-w" in said


def test_a_crash_leaves_no_core_dump(stopped_daemon: Daemon) -> None:
    before = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (before[1], before[1]))
    try:
        daemon = stopped_daemon.start()
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, before)
    limits = Path(f"/proc/{daemon.pid}/limits").read_text()
    line = next(line for line in limits.splitlines() if line.startswith("Max core file size"))
    assert line.split()[4] in ("0", "1")
    os.kill(daemon.pid, signal.SIGSEGV)
    _, status = os.waitpid(daemon.pid, 0)
    assert daemon.process is not None
    daemon.process.returncode = -signal.SIGSEGV  # it was waited for here
    assert os.WIFSIGNALED(status)
    assert not os.WCOREDUMP(status)


@pytest.mark.parametrize("name", ["journal", "schemas", "quarantine"])
def test_a_link_in_the_place_of_a_directory_leads_nowhere(
    stopped_daemon: Daemon, name: str
) -> None:
    """Nothing is read or written through it, whether or not the daemon starts."""
    daemon, outside = stopped_daemon, stopped_daemon.home / "outside"
    outside.mkdir()
    daemon.state_dir.mkdir(mode=0o700)
    (daemon.state_dir / name).symlink_to(outside)
    daemon.spawn()
    if name == "journal":
        assert daemon.process is not None
        assert daemon.process.wait(20) == 1
        assert "Traceback" not in daemon.log
    else:
        daemon.wait_ready()
        daemon.request("PUT", TARGET, {"n": 1})
        daemon.request("PUT", "/v1/schemas/auto", {"fields": []})
        daemon.bucket_path("phone", "job").write_text("{")
        daemon.request("PUT", TARGET, {"n": 2})
        assert daemon.stop() == 0
    assert list(outside.iterdir()) == []


def test_a_schema_is_not_taken_through_a_link(stopped_daemon: Daemon) -> None:
    """From the state directory. Among the settings, links are the operator's own."""
    daemon, outside = stopped_daemon, stopped_daemon.home / "outside.json"
    outside.write_text('{"type": "object", "required": ["planted"]}')
    planted = daemon.state_dir / "schemas" / "planted.json"
    wanted = daemon.home / "schemas" / "wanted.json"
    for link in (planted, wanted):
        link.parent.mkdir(parents=True)
        link.symlink_to(outside)
    os.mkfifo(daemon.home / "schemas" / "pipe.json")  # nor does it wait for somebody to write
    daemon.config.write_text("")
    daemon.state_dir.chmod(0o700)
    daemon.start()
    rows = {row["automation"]: row for row in daemon.request("GET", "/v1/schemas").json["schemas"]}
    in_force = {name for name, row in rows.items() if row["form"] is not None}
    assert in_force == {"wanted"}
    assert "required" not in json.dumps([rows["planted"], rows["pipe"]])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be several users")
def test_no_user_can_take_all_connections(stopped_daemon: Daemon) -> None:
    daemon = stopped_daemon
    daemon.config.write_text("[limits]\nmax_connections = 40\n")
    daemon.home.chmod(0o755)
    daemon.start()
    for _ in range(2):  # what was held is given back
        counted, told = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.setgroups(())
                os.setuid(65534)
                socks = [daemon.connect() for _ in range(30)]
                time.sleep(0.3)
                refused = [s for s in socks if select.select([s], [], [], 0)[0]]
                served = [s for s in socks if s not in refused]
                asked = [read_response(s).status for s in refused]
                asked += [daemon.request("GET", "/healthz", sock=s).status for s in served]
                os.write(told, json.dumps(sorted(asked)).encode())
                time.sleep(1)
            finally:
                os._exit(0)
        assert select.select([counted], [], [], 10)[0], "the other user was not served"
        assert json.loads(os.read(counted, 1000)) == [200] * 10 + [503] * 20
        with contextlib.ExitStack() as others:
            for _ in range(25):
                sock = others.enter_context(daemon.connect())
                assert daemon.request("GET", TARGET, sock=sock).status == 200
        os.waitpid(child, 0)
        os.close(counted)
        os.close(told)


def test_files_that_are_no_contexts_are_left_alone(daemon: Daemon) -> None:
    token = daemon.mint("d", "j")
    [kept] = (daemon.runtime_dir / "contexts").iterdir()
    found = json.loads(kept.read_text())
    for name, change in {
        "elsewhere": {"id": "../../state/write.lock"},
        "unnamed": {"id": None},
        "keyless": {"id": "keyless", "token_sha256": ["x"]},
        "endless": {"id": "endless", "expires": "never"},
        "more": {"id": "more", "surprise": 1},
        "text": {"id": "text", "created": str(found["created"])},
        "late": {"id": "late", "created": 1e300, "expires": 1e301},
        "nan": {"id": "nan", "created": float("nan")},
        "huge": {"id": "huge", "expires": 10**400},
        "bound": {"id": "bound", "automation": ["x"]},
        "booted": {"id": "booted", "boot": None},
    }.items():
        (kept.parent / f"{name}.json").write_text(json.dumps(found | change))
    (kept.parent / "deep.json").write_text("[" * 200_000)
    (kept.parent / "list.json").write_text("[]")
    (kept.parent / "directory.json").mkdir()
    (kept.parent / "lost.json").symlink_to("nowhere")
    os.mkfifo(kept.parent / "pipe.json")
    (kept.parent / os.fsdecode(b"\xff.json")).write_text("{}")
    daemon.restart()
    assert daemon.request("GET", "/v1/bucket", token=token).status == 200
    contexts = daemon.request("GET", "/v1/contexts").json["contexts"]
    assert [context["id"] for context in contexts] == [found["id"]]
    told = daemon.request("GET", "/v1/status").json["problems"]
    assert daemon.log.count("cannot load the context") == len(told) == 17
    assert any("contexts/\\xff.json" in problem for problem in told)
    assert daemon.request("GET", "/metrics").status == 200


def test_contexts_are_not_taken_through_a_link(stopped_daemon: Daemon) -> None:
    daemon, outside = stopped_daemon, stopped_daemon.home / "outside"
    outside.mkdir()
    daemon.runtime_dir.mkdir()
    (daemon.runtime_dir / "contexts").symlink_to(outside)
    daemon.start()
    assert daemon.request("POST", "/v1/contexts", {"device": "d"}).status >= 500
    assert list(outside.iterdir()) == []
