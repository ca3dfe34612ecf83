"""ARCHITECTURE.md walks one set and one get through the code: a daemon makes just these calls."""

from __future__ import annotations

import re

from harness import REPO, Daemon, new_daemon, pair

ARCHITECTURE = (REPO / "ARCHITECTURE.md").read_text()
ROW = re.compile(r"^\| `(bucketd/[\w/]+\.py)` \| (`[^|]+`) \|", re.M)
CONNECTED = "bucketd/server/connection.py Connection.connection_made"
Calls = list[str]


def walks() -> tuple[Calls, Calls]:
    """The two tables, each as ``file function`` in order."""
    change, read = section().split("\n`GET /v1/bucket`")
    return _calls(change), _calls(read)


def section() -> str:
    """The part of ARCHITECTURE.md that has both tables."""
    start = ARCHITECTURE.index("## One set and one get")
    return ARCHITECTURE[start : ARCHITECTURE.index("\n## ", start)]


def _calls(table: str) -> Calls:
    rows = ROW.findall(table)
    return [f"{path} {name}" for path, names in rows for name in re.findall(r"`(.+?)`", names)]


def traced(daemon: Daemon, method: str, token: str) -> Calls:
    """The calls of a daemon for this one request, and to its end."""
    trace = daemon.home / "trace"
    daemon.start(env={"TRACE": str(trace)})
    daemon.request("PUT", pair("other", "job"), {})  # a journal's first write is more work
    body = {"loggedIn": True} if method == "PATCH" else None
    assert daemon.request(method, "/v1/bucket", body, token=token).bucket == {"loggedIn": True}
    assert daemon.stop() == 0, daemon.log
    calls = trace.read_text().splitlines()
    return calls[len(calls) - calls[::-1].index(CONNECTED) - 1 :]


def missing(walk: Calls, calls: Calls) -> str | None:
    """The first of the walk that is not called after the one before it."""
    rest = iter(calls)
    return next((step for step in walk if step not in rest), None)


def test_the_walk_is_what_is_called() -> None:
    change, read = walks()
    assert len(change) > 20
    assert len(read) > 8
    for table in section().split("\n`GET /v1/bucket`"):
        assert len(ROW.findall(table)) <= 25
    daemon = new_daemon()
    try:
        daemon.start()
        token = daemon.mint("phone-1", "login")  # contexts outlive a daemon
        assert daemon.stop() == 0
        daemon.program = (str(REPO / "tests/support/traced_daemon.py"),)
        assert missing(change, traced(daemon, "PATCH", token)) is None
        assert missing(read, traced(daemon, "GET", token)) is None
    finally:
        daemon.remove()


def test_a_walk_in_another_order_is_noticed() -> None:
    assert missing(["a", "b"], ["b", "a"]) == "b"
    assert missing(["a", "b"], ["a", "c", "b"]) is None
