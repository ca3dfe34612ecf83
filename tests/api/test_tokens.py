"""Who may do what: every route for every kind of caller, as one table."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from typing import Any

import pytest
from harness import Daemon, encode_request, new_daemon, pair, read_response
from other_user import daemon_as

from bucketd.api.routes import ROUTES

NOBODY = 65534
BODIES: dict[tuple[str, str], Any] = {("/v1/contexts", "POST"): {"device": "made"}}
CALLERS = ("operator", "stranger", "job token", "device token", "expired", "revoked", "garbage")
# Status by caller, in that order; 0 where the route is used as it is meant to be.
ANYONE = (0, 0, 0, 0, 0, 0, 0)
JOB = (401, 401, 0, 401, 401, 401, 401)
DEVICE = (401, 401, 0, 0, 401, 401, 401)
OPERATOR = (0, 403, 401, 401, 401, 401, 401)
# Written a second time, and not made of the routes: whoever adds one decides here as well.
TABLE: dict[str, tuple[int, ...]] = {
    "GET /healthz": ANYONE,
    "GET /metrics": OPERATOR,
    "GET /readyz": ANYONE,
    "PUT /v1/backup": OPERATOR,
    "DELETE /v1/bucket": JOB,
    "GET /v1/bucket": JOB,
    "PATCH /v1/bucket": JOB,
    "PUT /v1/bucket": JOB,
    "GET /v1/bucket/events": JOB,
    "GET /v1/buckets": OPERATOR,
    "GET /v1/context": DEVICE,
    "GET /v1/contexts": OPERATOR,
    "POST /v1/contexts": OPERATOR,
    "DELETE /v1/contexts/{id}": OPERATOR,
    "DELETE /v1/device/bucket": DEVICE,
    "GET /v1/device/bucket": DEVICE,
    "PATCH /v1/device/bucket": DEVICE,
    "PUT /v1/device/bucket": DEVICE,
    "GET /v1/device/bucket/events": DEVICE,
    "POST /v1/device/hold": DEVICE,
    "DELETE /v1/devices/{device}/bucket": OPERATOR,
    "GET /v1/devices/{device}/bucket": OPERATOR,
    "PATCH /v1/devices/{device}/bucket": OPERATOR,
    "PUT /v1/devices/{device}/bucket": OPERATOR,
    "GET /v1/devices/{device}/bucket/events": OPERATOR,
    "POST /v1/devices/{device}/hold": OPERATOR,
    "DELETE /v1/devices/{device}/jobs/{job}/bucket": OPERATOR,
    "GET /v1/devices/{device}/jobs/{job}/bucket": OPERATOR,
    "PATCH /v1/devices/{device}/jobs/{job}/bucket": OPERATOR,
    "PUT /v1/devices/{device}/jobs/{job}/bucket": OPERATOR,
    "GET /v1/devices/{device}/jobs/{job}/bucket/events": OPERATOR,
    "POST /v1/devices/{device}/jobs/{job}/hold": OPERATOR,
    "GET /v1/events": OPERATOR,
    "GET /v1/export": OPERATOR,
    "POST /v1/hold": JOB,
    "GET /v1/holds": OPERATOR,
    "DELETE /v1/holds/{id}": OPERATOR,
    "GET /v1/openapi.json": ANYONE,
    "GET /v1/quarantine": OPERATOR,
    "DELETE /v1/quarantine/{id}": OPERATOR,
    "GET /v1/quarantine/{id}": OPERATOR,
    "GET /v1/schemas": OPERATOR,
    "DELETE /v1/schemas/{automation}": OPERATOR,
    "GET /v1/schemas/{automation}": OPERATOR,
    "PUT /v1/schemas/{automation}": OPERATOR,
    "POST /v1/schemas/{automation}/check": OPERATOR,
    "GET /v1/status": OPERATOR,
    "GET /v1/trash": OPERATOR,
    "DELETE /v1/trash/{id}": OPERATOR,
    "POST /v1/trash/{id}/restore": OPERATOR,
}
SECRET = {"whose": "of another job"}


def told_each_time(daemon: Daemon, method: str, text: bytes, times: int) -> list[Any]:
    """Status and JSON (or text) of a request that is sent so often over one connection."""
    with daemon.connect() as sock:
        answers = []
        for _ in range(times):
            sock.sendall(text)
            answers.append(read_response(sock, method))
    answer = answers[0]
    assert {a.status for a in answers} == {answer.status}
    is_json = answer.headers["content-type"] == "application/json"
    return [answer.status, answer.json if is_json else answer.body.decode()]


def ask_as(
    daemon: Daemon,
    uid: int,
    method: str,
    target: str,
    body: Any,
    token: str | None,
    groups: tuple[int, ...] = (),
) -> Any:
    """A request of a process of another user: status and JSON, the same each time that it is sent.

    We send it before, as an operator, so the daemon has seen its very bytes.
    """
    text = encode_request(method, target, body, None, token, close=False)
    times = 1 if target.endswith("/events") else 3  # a stream is the last of its connection
    with daemon.connect() as sock:
        for _ in range(times - 1):
            sock.sendall(text)
            read_response(sock, method)
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups(groups)
            os.setgid(uid)
            os.setuid(uid)
            told = told_each_time(daemon, method, text, times)
            os.write(theirs, json.dumps(told).encode())
        finally:
            os._exit(0)
    os.close(theirs)
    with os.fdopen(ours, "rb") as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return json.loads(text)


@pytest.fixture(scope="module")
def tokens(shared_daemon: Daemon) -> dict[str, str | None]:
    shared_daemon.request("PUT", pair("d", "other"), SECRET)
    shared_daemon.request("PUT", pair("other"), SECRET)
    expired = shared_daemon.mint("d", "other", ttl_seconds=0.01)
    answer = shared_daemon.request("POST", "/v1/contexts", {"device": "d", "job": "other"})
    assert shared_daemon.request("DELETE", f"/v1/contexts/{answer.json['id']}").status == 200
    time.sleep(0.05)
    shared_daemon.home.chmod(0o755)  # as a real runtime directory is
    return {
        "operator": None,
        "stranger": None,
        "job token": shared_daemon.mint("d", "mine"),
        "device token": shared_daemon.mint("d"),
        "expired": expired,
        "revoked": answer.json["token"],
        "garbage": "x" * 43,
    }


def line_of(route: Any) -> tuple[int, ...]:
    return TABLE[f"{route.method} {route.path}"]


def test_every_route_has_its_line() -> None:
    assert {f"{route.method} {route.path}" for route in ROUTES} == set(TABLE)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be a stranger and an operator")
@pytest.mark.parametrize("uid", [0, NOBODY])
@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_truth_table(
    shared_daemon: Daemon, tokens: dict[str, str | None], route: Any, caller: str, uid: int
) -> None:
    """The user of a peer counts only where it sends no token, except on operator routes."""
    if caller in ("operator", "stranger") and (uid == 0) != (caller == "operator"):
        return
    expected = line_of(route)[CALLERS.index(caller)]
    if line_of(route) == OPERATOR and uid == NOBODY:
        expected = 403
    target = route.path
    for name in ("device", "job", "automation", "id"):
        target = target.replace("{" + name + "}", f"unknown-{name}")
    # Something is there to be had, by the short way as well.
    for path in (target, pair("d", "mine"), pair("d")) if route.of_bucket else ():
        shared_daemon.request("PUT", path.removesuffix("/events"), {"n": 1})
    body = BODIES.get((route.path, route.method), {} if route.method in ("PUT", "PATCH") else None)
    status, said = ask_as(shared_daemon, uid, route.method, target, body, tokens[caller])
    if expected or route.path != "/v1/export":  # whose purpose it is, for an operator
        assert SECRET["whose"] not in json.dumps(said)
    if expected:
        code = "forbidden" if expected == 403 else "no_job_context"
        assert (status, said["code"]) == (expected, code), said
    else:
        assert status not in (401, 403), said


DAEMON_UID, OPERATORS_GID, STRANGER_UID = 64001, 64002, 64003
PEERS = {
    "root": (0, ()),
    "the daemon's user": (DAEMON_UID, ()),
    "member of the operators' group": (STRANGER_UID, (OPERATORS_GID,)),
    "member of another group": (STRANGER_UID, (OPERATORS_GID + 9,)),
}


@pytest.fixture(scope="module")
def users_daemon() -> Iterator[Daemon]:
    """A daemon of an ordinary user, with a group of operators."""
    program = daemon_as(DAEMON_UID, DAEMON_UID)
    if program is None:
        pytest.skip("an ordinary user can run no Python of this version here")
    daemon = new_daemon(program=program)
    daemon.env |= {
        "HOME": str(daemon.home),
        "BUCKETD_ACCESS_OPERATOR_GROUPS": str(OPERATORS_GID),
    }
    os.chown(daemon.home, DAEMON_UID, DAEMON_UID)
    daemon.home.chmod(0o755)
    try:
        yield daemon.start()
    finally:
        daemon.remove()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be several users")
@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_operators_by_user_and_by_group(users_daemon: Daemon, route: Any, peer: str) -> None:
    """Without a token, as the kernel tells of the peer; the daemon itself is not root."""
    uid, groups = PEERS[peer]
    caller = "stranger" if peer == "member of another group" else "operator"
    expected = line_of(route)[CALLERS.index(caller)]
    target = route.path
    for name in ("device", "job", "automation", "id"):
        target = target.replace("{" + name + "}", f"unknown-{name}")
    body = BODIES.get((route.path, route.method), {} if route.method in ("PUT", "PATCH") else None)
    status, said = ask_as(users_daemon, uid, route.method, target, body, None, groups)
    assert status == expected if expected else status not in (401, 403), said


def test_a_refusal_says_how_to_become_an_operator(users_daemon: Daemon) -> None:
    _, said = ask_as(users_daemon, STRANGER_UID, "GET", "/v1/buckets", None, None)
    assert said["error"].endswith(
        f"or become an operator: sudo usermod -aG {OPERATORS_GID} $USER, then log in again"
    )


def test_a_token_opens_its_own_bucket_and_nothing_else(shared_daemon: Daemon) -> None:
    one, two = shared_daemon.mint("own", "one"), shared_daemon.mint("own", "two")
    for token, value in ((one, 1), (two, 2)):
        shared_daemon.request("PUT", "/v1/bucket", {"n": value}, token=token)
    for token, value in ((one, 1), (two, 2)):
        assert shared_daemon.request("GET", "/v1/bucket", token=token).bucket == {"n": value}
        assert shared_daemon.request("GET", "/v1/context", token=token).json["job"] == (
            "one" if value == 1 else "two"
        )
    # With both on one connection, and each request seen before: still each its own.
    with shared_daemon.connect() as sock:
        for token, value in ((one, 1), (two, 2)) * 5:
            answer = shared_daemon.request("GET", "/v1/bucket", token=token, sock=sock)
            assert answer.bucket == {"n": value}


def test_a_revoked_token_ends_at_once_on_a_kept_connection(shared_daemon: Daemon) -> None:
    made = shared_daemon.request("POST", "/v1/contexts", {"device": "d", "job": "kept"}).json
    with shared_daemon.connect() as sock:
        for _ in range(3):
            answer = shared_daemon.request("GET", "/v1/bucket", token=made["token"], sock=sock)
            assert answer.status == 200
        shared_daemon.request("DELETE", f"/v1/contexts/{made['id']}")
        answer = shared_daemon.request("GET", "/v1/bucket", token=made["token"], sock=sock)
        assert (answer.status, answer.json["code"]) == (401, "no_job_context")


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_contexts_outlive_the_daemon(daemon: Daemon, end: str) -> None:
    token, short = daemon.mint("d", "j"), daemon.mint("d", "j", ttl_seconds=0.2)
    daemon.request("PUT", "/v1/bucket", {"n": 1}, token=token)
    getattr(daemon, end)()
    time.sleep(0.2)
    daemon.start()
    assert daemon.request("GET", "/v1/bucket", token=token).bucket == {"n": 1}
    assert daemon.request("GET", "/v1/bucket", token=short).status == 401
    assert len(daemon.request("GET", "/v1/contexts").json["contexts"]) == 1


def test_a_label_is_told_wherever_its_context_is(daemon: Daemon) -> None:
    body = {"device": "d", "job": "j", "label": "nightly 42 ✓"}
    made = daemon.request("POST", "/v1/contexts", body).json
    assert made["label"] == body["label"]
    for _ in range(2):
        own = daemon.request("GET", "/v1/context", token=made["token"]).json
        [row] = daemon.request("GET", "/v1/contexts").json["contexts"]
        assert own["label"] == row["label"] == body["label"]
        daemon.kill()
        daemon.start()


def test_a_context_without_a_label_is_stored_as_before(daemon: Daemon) -> None:
    token = daemon.mint("d", "j")
    [path] = (daemon.runtime_dir / "contexts").iterdir()
    assert "label" not in json.loads(path.read_text())
    daemon.restart()
    assert daemon.request("GET", "/v1/context", token=token).json["label"] is None


@pytest.mark.parametrize("label", ["x\n", "", "x" * 129, 1])
def test_a_stored_label_that_is_none_is_not_loaded(daemon: Daemon, label: object) -> None:
    token = daemon.mint("d", "j", label="good")
    [path] = (daemon.runtime_dir / "contexts").iterdir()
    path.write_text(json.dumps(json.loads(path.read_text()) | {"label": label}))
    daemon.restart()
    assert daemon.request("GET", "/v1/context", token=token).status == 401


def test_a_token_is_stored_nowhere(daemon: Daemon) -> None:
    token = daemon.mint("d", "j")
    daemon.request("GET", "/v1/bucket", token=token)
    daemon.request("GET", "/v1/bucket?x=1", token=token)
    daemon.request("PUT", "/v1/bucket", b"{", token=token)
    daemon.raw(b"GET /v1/bucket HTTP/1.1\r\nAuthorization: Bearer " + token.encode() + b"\r\n\0")
    for path in daemon.home.rglob("*"):
        if path.is_file():
            assert token.encode() not in path.read_bytes(), path
    assert token not in json.dumps(daemon.request("GET", "/v1/contexts").json)


@pytest.mark.parametrize(
    "value", ["", "Bearer", "Bearer ", "Basic {}", "{}", "Bearer {} x", "Bearer x{}", "Bearer\t{}x"]
)
def test_headers_that_open_nothing(shared_daemon: Daemon, value: str) -> None:
    token = shared_daemon.mint("d", "j")
    headers = {"Authorization": value.format(token)}
    assert shared_daemon.request("GET", "/v1/bucket", headers=headers).status == 401
    assert shared_daemon.request("GET", pair("d", "j"), headers=headers).status == 401


def test_two_tokens_at_once(shared_daemon: Daemon) -> None:
    token = shared_daemon.mint("d", "j").encode()
    line = b"Authorization: Bearer " + token + b"\r\n"
    said = shared_daemon.raw(b"GET /v1/bucket HTTP/1.1\r\nHost: b\r\nConnection: close\r\n"
                             + line * 2 + b"\r\n")  # fmt: skip
    assert said.startswith(b"HTTP/1.1 400")
