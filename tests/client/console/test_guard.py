"""Each check of the console's guard, attacked by a raw request; and the order of the checks."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import console_process
import pytest
from bucketd_client.ctl.console.guard import is_read
from bucketd_client.ctl.console.http import Request
from bucketd_client.ctl.console.keys import TICKET_SECONDS, UNLOCKED_SECONDS, Keys, TicketRefused
from console_process import Console
from ctl_shell import CTL
from harness import Daemon

BUCKET = "/v1/devices/phone-1/jobs/login/bucket"


@pytest.fixture(scope="module")
def console(shared_daemon: Daemon) -> Iterator[Console]:
    shared_daemon.request("PUT", BUCKET, {"n": 1})
    yield from console_process.opened(shared_daemon)


def refused_by(console: Console, method: str, target: str, **fields: str | None) -> str:
    """Return the check that refused a request, and see that nothing else was answered."""
    response = console.request(method, target, **fields)
    assert response.status >= 400
    assert set(response.json) == {"success", "code", "error"}
    return response.headers["console-refused-by"]


def test_the_page_of_the_operator_gets_the_bucket(console: Console) -> None:
    response = console.request("GET", BUCKET)
    assert (response.status, response.json["bucket"]) == (200, {"n": 1})
    assert response.etag is not None
    assert b"bucketd_requests_total" in console.request("GET", "/metrics").body


# --- Host


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:{port}",
        "127.0.0.1.evil:{port}",
        "127.0.0.1:{port}.evil",
        "127.0.0.1",
        "127.0.0.1:1",
        "localhost:{port}",
        "[::1]:{port}",
        "0.0.0.0:{port}",
        "127.1:{port}",
        "user@127.0.0.1:{port}",
        "127.0.0.1:{port}, evil.example",
        "127.0.0.1:0{port}",
        "",
        None,
    ],
)
@pytest.mark.parametrize("target", [BUCKET, "/", "/main.js", "/console/session"])
def test_another_host_is_refused(console: Console, host: str | None, target: str) -> None:
    given = host and host.format(port=console.port)
    assert refused_by(console, "GET", target, Host=given) == "host"


def test_two_hosts_are_refused(console: Console) -> None:
    lines = f"GET {BUCKET} HTTP/1.1\r\nHost: {console.authority}\r\nHost: evil\r\n\r\n"
    assert b" 400 " in console.raw(lines.encode()).split(b"\r\n")[0]


def test_an_absolute_target_is_refused(console: Console) -> None:
    target = f"http://127.0.0.1.evil{BUCKET}"
    lines = f"GET {target} HTTP/1.1\r\nHost: {console.authority}\r\n\r\n"
    assert b" 400 " in console.raw(lines.encode()).split(b"\r\n")[0]


# --- Sec-Fetch-Site


@pytest.mark.parametrize("site", ["cross-site", "same-site", "", "Same-Origin", "none, none"])
@pytest.mark.parametrize("target", [BUCKET, "/main.js", "/console/session"])
def test_another_site_is_refused(console: Console, site: str, target: str) -> None:
    assert refused_by(console, "GET", target, Sec_Fetch_Site=site) == "site"


def test_the_page_itself_opens_from_the_file_that_leads_to_it(console: Console) -> None:
    navigation: dict[str, str | None] = {
        "Sec_Fetch_Site": "cross-site",
        "Sec_Fetch_Mode": "navigate",
        "Sec_Fetch_Dest": "document",
        "Authorization": None,
    }
    assert console.request("GET", "/", **navigation).status == 200
    for change in (
        {"Sec_Fetch_Dest": "iframe"},
        {"Sec_Fetch_Dest": "embed"},
        {"Sec_Fetch_Mode": "no-cors"},
    ):
        assert refused_by(console, "GET", "/", **{**navigation, **change}) == "site"
    assert refused_by(console, "POST", "/", **navigation) == "site"
    assert refused_by(console, "GET", "/?x", **navigation) == "site"
    assert refused_by(console, "GET", "/metrics", **navigation) == "site"


# --- Origin


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "http://127.0.0.1.evil:{port}",
        "https://127.0.0.1:{port}",
        "http://127.0.0.1",
        "http://127.0.0.1:1",
        "http://localhost:{port}",
        "http://127.0.0.1:{port}/",
        "null",
        "",
    ],
)
@pytest.mark.parametrize("target", [BUCKET, "/", "/main.js", "/console/session"])
def test_another_origin_is_refused(console: Console, origin: str, target: str) -> None:
    assert refused_by(console, "GET", target, Origin=origin.format(port=console.port)) == "origin"


def test_the_origin_is_not_compared_with_host(console: Console) -> None:
    """A rebound name is in both, so equality proves nothing."""
    both: dict[str, str | None] = {"Host": "evil.example", "Origin": "http://evil.example"}
    assert refused_by(console, "GET", BUCKET, **both) == "host"
    assert console.request("GET", BUCKET, Origin=f"http://{console.authority}").status == 200


# --- the token


@pytest.mark.parametrize(
    "token", [None, "", "Bearer", "Bearer ", "Bearer wrong", "Basic {token}", "bearer {token}"]
)
@pytest.mark.parametrize(
    "target", [BUCKET, "/metrics", "/console/state", "/v1/nothing", "/nothing"]
)
def test_a_request_without_the_token_of_a_page_is_refused(
    console: Console, token: str | None, target: str
) -> None:
    given = token and token.format(token=console.token)
    assert refused_by(console, "GET", target, Authorization=given) == "token"


def test_the_token_is_taken_from_no_other_place(console: Console) -> None:
    elsewhere = f"{BUCKET}?token={console.token}"
    assert refused_by(console, "GET", elsewhere, Authorization=None) == "token"
    cookie = f"token={console.token}"
    assert refused_by(console, "GET", BUCKET, Authorization=None, Cookie=cookie) == "token"


def test_a_context_token_of_the_daemon_opens_nothing(
    console: Console, shared_daemon: Daemon
) -> None:
    body = {"device": "phone-1", "job": "login"}
    token = shared_daemon.request("POST", "/v1/contexts", body).json["token"]
    assert refused_by(console, "GET", BUCKET, Authorization=f"Bearer {token}") == "token"


def test_the_token_of_the_page_does_not_reach_the_daemon(console: Console) -> None:
    """The daemon would take it for the token of a context, and know none."""
    response = console.request("GET", "/v1/context")
    assert response.json["code"] == "no_job_context"
    assert console.request("GET", "/v1/status").status == 200


# --- tickets


def test_a_ticket_opens_one_page_and_a_second_use_ends_it(shared_daemon: Daemon) -> None:
    console = console_process.start(shared_daemon)
    try:
        console.token = console.redeem(console.ticket).json["token"]
        assert console.request("GET", BUCKET).status == 200
        again = console.redeem(console.ticket)
        assert (again.status, again.json["code"]) == (401, "ticket_refused")
        assert "was used before" in again.json["error"]
        assert refused_by(console, "GET", BUCKET) == "token"
    finally:
        console.stop()
        console.process.communicate()


def test_a_ticket_of_another_console_opens_nothing(console: Console) -> None:
    for ticket in ("", "x", console.token, "A" * 43):
        assert console.redeem(ticket).headers["console-refused-by"] == "ticket"
    assert console.request("POST", "/console/session", b"[1]").status == 400
    assert console.request("POST", "/console/session", b"{").status == 400


def test_a_ticket_is_not_taken_from_the_address(console: Console) -> None:
    target = f"/console/session?ticket={console.ticket}"
    assert console.request("POST", target, b"{}", Authorization=None).status == 401


def test_a_ticket_expires() -> None:
    now = [0.0]
    keys = Keys(is_read_only=False, clock=lambda: now[0])
    early, late = keys.new_ticket(), keys.new_ticket()
    now[0] = TICKET_SECONDS - 1
    keys.redeem(early)
    now[0] = TICKET_SECONDS
    with pytest.raises(TicketRefused, match="expired"):
        keys.redeem(late)


# --- the lock


CHANGES = [
    ("PATCH", BUCKET),
    ("PUT", BUCKET),
    ("DELETE", BUCKET),
    ("POST", "/v1/contexts"),
    ("POST", f"{BUCKET}/undo"),
    ("DELETE", "/v1/holds/x"),
    ("POST", "/v1/trash/x/restore"),
    ("PUT", "/v1/schemas/login"),
    ("PUT", "/v1/schemas/login?dry_run=false"),
    ("PUT", "/v1/schemas/login?dry_run=true&dry_run=false"),
    ("PUT", "/v1/schemas/login?dry_run=true&force=true"),
    ("PUT", "/v1/schemas/login?x&dry_run=true"),
    ("POST", "/v1/schemas/login/check?x"),
    ("PUT", "/v1/devices/x/bucket?dry_run=true"),
    ("POST", "/v1/contexts/check"),
]


@pytest.mark.parametrize(("method", "target"), CHANGES)
def test_a_locked_page_changes_nothing(console: Console, method: str, target: str) -> None:
    console.request("POST", "/console/lock", b"")
    assert refused_by(console, method, target) == "lock"
    assert console.request("GET", BUCKET).json["bucket"] == {"n": 1}


def test_a_locked_page_may_check_schemas(console: Console) -> None:
    console.request("POST", "/console/lock", b"")
    target = "/v1/schemas/login?dry_run=true"
    done = console.json("PUT", target, {"fields": [{"name": "n", "type": "string"}]})
    assert (done.status, done.json["dry_run"]) == (200, True)
    assert console.request("GET", "/v1/schemas").json["schemas"] == []
    checked = console.json("POST", "/v1/schemas/login/check", {"bucket": {}})
    assert checked.status == 200


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_reads_are_reads(method: str) -> None:
    assert is_read(Request(method, BUCKET, []))


def test_an_unlocked_page_changes_what_it_is_told_to(console: Console) -> None:
    console.unlock()
    target = "/v1/devices/phone-2/jobs/login/bucket"
    done = console.json("PATCH", target, {"a": 1})
    assert (done.status, done.json["bucket"]) == (200, {"a": 1})
    guarded = console.request("DELETE", target, b"", If_Match='"another"')
    assert guarded.json["code"] == "precondition_failed"
    console.request("POST", "/console/lock", b"")
    assert refused_by(console, "DELETE", target) == "lock"


def test_a_page_locks_itself_some_time_after_its_last_change() -> None:
    now = [0.0]
    keys = Keys(is_read_only=False, clock=lambda: now[0])
    session = keys.session(keys.redeem(keys.new_ticket()))
    assert session is not None
    keys.unlock(session)
    now[0] = UNLOCKED_SECONDS - 1
    assert keys.use_unlocked(session)
    now[0] += UNLOCKED_SECONDS - 1
    assert keys.unlocked_seconds(session) == 1.0
    now[0] += 1
    assert not keys.use_unlocked(session)


def test_the_lock_of_one_page_is_not_that_of_another() -> None:
    keys = Keys(is_read_only=False)
    one, other = (keys.session(keys.redeem(keys.new_ticket())) for _ in range(2))
    assert one is not None
    assert other is not None
    keys.unlock(one)
    assert keys.use_unlocked(one)
    assert not keys.use_unlocked(other)


def test_read_only_cannot_be_unlocked(shared_daemon: Daemon) -> None:
    for console in console_process.opened(shared_daemon, "--read-only"):
        assert console.request("GET", "/console/state").json["read_only"] is True
        refused = console.request("POST", "/console/unlock", b"")
        assert (refused.status, refused.json["code"]) == (403, "console_read_only")
        assert refused_by(console, "PATCH", BUCKET) == "lock"
        assert console.request("GET", BUCKET).status == 200


# --- order, and what each response says


def test_the_checks_come_in_order(console: Console) -> None:
    wrong: dict[str, str | None] = {
        "Host": "evil",
        "Sec_Fetch_Site": "cross-site",
        "Origin": "http://evil",
        "Authorization": "Bearer x",
    }
    console.request("POST", "/console/lock", b"")
    for name, check in zip(wrong.copy(), ("host", "site", "origin", "token"), strict=True):
        assert refused_by(console, "DELETE", BUCKET, **wrong) == check
        del wrong[name]
    assert refused_by(console, "DELETE", BUCKET) == "lock"


@pytest.mark.parametrize("target", ["/", "/main.js", BUCKET, "/metrics", "/console/state", "/no"])
@pytest.mark.parametrize("host", [None, "evil"])
def test_no_response_may_be_framed_or_kept(console: Console, target: str, host: str | None) -> None:
    fields = console.request("GET", target, **({"Host": host} if host else {})).headers
    policy = fields["content-security-policy"].split("; ")
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert fields["x-frame-options"] == "DENY"
    assert fields["cache-control"] == "no-store"
    assert fields["x-content-type-options"] == "nosniff"
    assert fields["referrer-policy"] == "no-referrer"
    assert not [name for name in fields if name.startswith("access-control")]
    assert "set-cookie" not in fields


def test_a_preflight_gets_no_permission(console: Console) -> None:
    fields = {"Origin": "http://evil", "Access_Control_Request_Method": "PUT"}
    assert refused_by(console, "OPTIONS", BUCKET, Sec_Fetch_Site="cross-site", **fields) == "site"
    assert refused_by(console, "OPTIONS", BUCKET, **fields) == "origin"


# --- malformed requests


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET / HTTP/1.0\r\n\r\n", 400),
        (b"GET / HTTP/1.1\nHost: x\n\n\r\n\r\n", 400),
        (b"GET  / HTTP/1.1\r\n\r\n", 400),
        (b"get / HTTP/1.1\r\n\r\n", 400),
        (b"GET /\x00 HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost : {host}\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: {host}\r\n continued\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: {host}\r\nA: b\rc\r\n\r\n", 400),
        (b"CONNECT evil:80 HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nA: " + b"x" * 40000 + b"\r\n\r\n", 431),
        (b"POST /console/session HTTP/1.1\r\nHost: {host}\r\nContent-Length: x\r\n\r\n", 400),
        (b"POST /console/session HTTP/1.1\r\nHost: {host}\r\nContent-Length: -1\r\n\r\n", 400),
        (
            b"POST /console/session HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n",
            411,
        ),
        (
            b"POST /console/session HTTP/1.1\r\nHost: {host}\r\n"
            b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
            400,
        ),
        (
            b"POST /console/session HTTP/1.1\r\nHost: {host}\r\nContent-Length: 99999999\r\n\r\n",
            413,
        ),
    ],
)
def test_a_malformed_request_is_refused(console: Console, data: bytes, status: int) -> None:
    answer = console.raw(data.replace(b"{host}", console.authority.encode()))
    assert answer.split(b" ")[1] == str(status).encode(), answer


def test_nothing_but_the_listed_files_is_served(console: Console) -> None:
    for target in (
        "/../guard.py",
        "/%2e%2e/guard.py",
        "/web/files.json",
        "/files.json",
        "//",
        "/.",
    ):
        assert console.request("GET", target).status == 404
    assert console.request("GET", "/main.js").headers["content-type"].startswith("text/javascript")
    head = console.request("HEAD", "/main.js")
    assert (head.status, head.body) == (200, b"")
    assert console.request("POST", "/main.js", b"").status == 405


# --- who may reach it at all


def test_it_listens_on_loopback_alone(console: Console) -> None:
    tables = [Path(f"/proc/net/{name}").read_text() for name in ("tcp", "tcp6")]
    rows = [line.split()[1:4:2] for table in tables for line in table.splitlines()[1:]]
    listening = [place for place, state in rows if state == "0A"]
    assert [p for p in listening if p.endswith(f":{console.port:04X}")] == [
        f"0100007F:{console.port:04X}"
    ]
    with socket.socket(socket.AF_INET6) as other, pytest.raises(OSError, match="refused"):
        other.connect(("::1", console.port))


def test_no_argument_of_a_process_has_a_key(console: Console) -> None:
    seen = ""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            seen += (process / "cmdline").read_text(errors="replace")
    assert "\0".join([*CTL[1:], "console", "--no-browser"]) in seen
    assert console.ticket not in seen
    assert console.token not in seen
