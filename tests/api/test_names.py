"""Names: which are refused; and each legal one is a bucket of its own, inside its directory."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest
from harness import Daemon, pair

SMILE = "\U0001f600"
LEGAL = [
    "/", "..", ".", "...", "%2e", "%2E%2e", "a/../b", "../../etc/passwd", "a b", " ", "(x)", "a.b",
    ".hidden", "dot.", "~", "~root", "-rf", "\\", "'", '"', "a&b=c", "?", "#", "+", "*", "CON",
    SMILE, SMILE * 128, "é" * 128, "x" * 128, "Job", "job", "JOB", "job.json", "device.json",
    "\u202e", "\xa0", "e\u0301", "\xe9", "a%2Fb", "a/b", "_", "jobs", "\ufffd",
]  # fmt: skip
REFUSED = ["", "x" * 129, SMILE * 129, "a\0b", "a\nb", "\t", "\x7f", "\x85", "\x1b[2J", "\r"]


def files(daemon: Daemon) -> set[Path]:
    """All bucket files (or what else may be called like one), wherever they are; keys in etcd."""
    if not (daemon.state_dir / "write.lock").exists():
        return {Path(key) for key in daemon.files()}
    with (daemon.state_dir / "write.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # when it is free, the files are current
        devices = daemon.state_dir / "devices"
        found = {path for path in devices.rglob("*.json") if path.is_file()}
        return {path for path in found if path.parent != daemon.runtime_dir / "contexts"}


@pytest.mark.parametrize("part", ["device", "job"])
def test_each_legal_name_is_a_bucket_of_its_own(daemon: Daemon, part: str) -> None:
    def at(name: str) -> tuple[str, str]:
        return (name, "job") if part == "device" else ("device", name)

    with daemon.connect() as sock:
        for number, name in enumerate(LEGAL):
            answer = daemon.request("PUT", pair(*at(name)), {"n": number}, sock=sock)
            assert (answer.status, answer.json["revision"]) == (200, 1), name
        for number, name in enumerate(LEGAL):
            assert daemon.request("GET", pair(*at(name)), sock=sock).bucket == {"n": number}, name
    assert files(daemon) == {daemon.bucket_path(*at(name)) for name in LEGAL}
    rows = daemon.request("GET", "/v1/buckets").json["buckets"]
    assert sorted(row[part] for row in rows) == sorted(LEGAL)
    daemon.kill()
    daemon.start()
    for number, name in enumerate(LEGAL):
        assert daemon.request("GET", pair(*at(name))).bucket == {"n": number}, name


@pytest.mark.parametrize("name", LEGAL, ids=ascii)
def test_a_context_for_each_legal_name(shared_daemon: Daemon, name: str) -> None:
    token = shared_daemon.mint(name, name, name, label=name)
    context = shared_daemon.request("GET", "/v1/context", token=token).json
    members = ("device", "job", "automation", "label")
    assert [context[member] for member in members] == [name] * 4
    shared_daemon.request("PUT", "/v1/bucket", {"mine": name}, token=token)
    assert shared_daemon.request("GET", pair(name, name)).bucket == {"mine": name}


@pytest.mark.parametrize("name", REFUSED, ids=ascii)
def test_refused_names(shared_daemon: Daemon, name: str) -> None:
    before = files(shared_daemon)
    for target in (pair(name, "j"), pair("d", name), pair(name)):
        for method, body in (("GET", None), ("PUT", {"n": 1}), ("DELETE", None)):
            answer = shared_daemon.request(method, target, body)
            assert (answer.status, answer.json["code"]) == (400, "invalid_request"), answer
    for body in (
        {"device": name},
        {"device": "d", "job": name},
        {"device": "d", "job": "j", "automation": name},
        {"device": "d", "job": "j", "label": name},
    ):
        answer = shared_daemon.request("POST", "/v1/contexts", body)
        assert (answer.status, answer.json["code"]) == (400, "invalid_request"), answer
    assert files(shared_daemon) == before


@pytest.mark.parametrize("device", [b'"\\ud800"', b"1", b"null", b"[]", b"{}", b"true"])
def test_a_context_with_a_device_that_is_no_name(shared_daemon: Daemon, device: bytes) -> None:
    answer = shared_daemon.request("POST", "/v1/contexts", b'{"device": ' + device + b"}")
    assert answer.status == 400
    assert answer.json["code"] in ("invalid_request", "invalid_json")


@pytest.mark.parametrize(
    "path",
    ["/v1/devices/a%2/bucket", "/v1/devices/%ff/bucket", "/v1/devices/%c0%af/bucket",
     "/v1/devices/%ed%a0%80/bucket", "/v1/devices/a%zz/bucket"],
)  # fmt: skip
def test_what_is_not_percent_encoded_utf8(shared_daemon: Daemon, path: str) -> None:
    answer = shared_daemon.request("GET", path)
    assert (answer.status, answer.json["code"]) == (400, "invalid_request")


@pytest.mark.parametrize(
    "path",
    ["/v1/devices/..%2f..%2fetc%2fpasswd/bucket", "/v1/devices/%2e%2e/jobs/%2e%2e/bucket"],
)
def test_encoded_slashes_stay_in_the_name(shared_daemon: Daemon, path: str) -> None:
    assert shared_daemon.request("GET", path).status == 200


@pytest.mark.parametrize("path", ["/v1/devices/../bucket/x", "/v1/../v1/bucket", "//v1/bucket"])
def test_no_path_is_resolved(shared_daemon: Daemon, path: str) -> None:
    assert shared_daemon.request("GET", path).status == 404
