"""Watching, on a fake that breaks off: what is asked again, what is told, and when it ends."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from bucketd_client import (
    AsyncBucket,
    Bucket,
    DaemonUnreachable,
    InternalError,
    InvalidRequest,
    NoJobContext,
    NotFound,
    Overloaded,
    Timeout,
    _watch_session,
    agent,
    aio,
)
from bucketd_client._sse import Event, Parser
from fake import Fake, Seen, answer, fake

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
REVOKED = {"success": False, "error": "no job context: revoked", "code": "no_job_context"}
Part = Any


def event(id: str, revision: int, set_: dict[str, Any], kind: str = "bucket") -> bytes:
    data = {"device": "d", "job": "j", "revision": revision, "set": set_, "removed": []}
    return f"event: {kind}\nid: {id}\ndata: {json.dumps(data)}\n\n".encode()


GAP = b'event: gap\nid: g\ndata: {"device": "d", "job": "j"}\n\n'


def streams(*scripts: list[Part]) -> Callable[[socket.socket, Seen, int], bool]:
    """One script a connection: bytes are sent, an int is a refusal, an Event is waited for."""

    def script(connection: socket.socket, _seen: Seen, number: int) -> bool:
        for part in scripts[min(number, len(scripts)) - 1]:
            if isinstance(part, bytes):
                connection.sendall(part)
            elif isinstance(part, threading.Event):
                part.wait(10)
            else:
                answer(connection, part[0], part[1], part[2] if len(part) > 2 else None)
        return False

    return script


END: list[Part] = [(401, REVOKED)]


def bucket(server: Fake, **more: Any) -> Bucket:
    return Bucket(token="t", socket=server.path, **more)


def told(changes: Iterator[Any]) -> list[Any]:
    """All that is told until the token is over."""
    found = []
    try:
        for change in changes:
            found.append((change.id, change.set, change.gap))
    except NoJobContext:
        return found
    raise AssertionError("it ended without saying why")


def asked(server: Fake) -> list[tuple[str, str | None]]:
    return [(seen.target, seen.headers.get("last-event-id")) for seen in server.seen]


TEXT = (
    b"retry: 1000\nid: 0\n\n: \n\n"
    b'event: bucket\r\nid: 1\r\ndata: {"a":\r\ndata: "\xc3\xa9"}\r\nnonsense\r\n\r\n'
    b"data:x\n\nid: 2\n\nid: a\0b\n\n"
)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_the_parser_takes_any_pieces(size: int) -> None:
    parser = Parser()
    pieces = [TEXT[at : at + size] for at in range(0, len(TEXT), size)]
    found = [each for piece in pieces for each in parser.feed(piece)]
    assert [each for each in found if each.data] == [
        Event("bucket", "1", '{"a":\n"é"}'),
        Event("", "1", "x"),
    ]
    assert [each.id for each in found] == ["0", "0", "1", "1", "2", "2"]


def test_changes_as_they_come_and_on_behind_the_last() -> None:
    first = [HEAD[:20], HEAD[20:] + b"id: 0\n\n" + event("1", 1, {"a": 1})[:30]]
    first += [event("1", 1, {"a": 1})[30:] + event("2", 2, {"b": None})]
    second = [HEAD + b": \nid: 3\n\n" + event("4", 3, {"a": 2})]
    with fake(streams(first, second, [HEAD], END)) as server:
        assert told(bucket(server).watch()) == [
            ("1", {"a": 1}, False),
            ("2", {"b": None}, False),
            ("4", {"a": 2}, False),
        ]
        path = "/v1/bucket/events"
        assert asked(server) == [(path, None), (path, "2"), (path, "4"), (path, "4")]
        assert server.seen[0].headers["authorization"] == "Bearer t"
        assert server.seen[0].headers["accept"] == "text/event-stream"


def test_an_id_without_an_event_is_gone_on_from_as_well() -> None:
    with fake(streams([HEAD + b"id: 7\n\n"], END)) as server:
        told(bucket(server).watch())
        assert asked(server)[1][1] == "7"


def test_half_an_event_is_none() -> None:
    whole = event("2", 2, {"a": 2})
    cut = [HEAD + event("1", 1, {"a": 1}) + whole[:-1]]
    with fake(streams(cut, [HEAD + whole], END)) as server:
        assert [each[0] for each in told(bucket(server).watch())] == ["1", "2"]
        assert asked(server)[1][1] == "1"


def test_what_a_change_is() -> None:
    with fake(streams([HEAD + event("1", 5, {"a": 1})], END)) as server:
        change = next(bucket(server).watch())
    assert (change.device, change.job, change.revision) == ("d", "j", 5)
    assert (change.set, change.removed, change.id, change.gap) == ({"a": 1}, [], "1", False)
    assert change["set"] is change.set
    assert dict(change) == {
        **{"device": "d", "job": "j", "revision": 5, "set": {"a": 1}, "removed": []},
        **{"id": "1", "gap": False},
    }


def test_keys_snapshot_since_and_names() -> None:
    one: list[Part] = [HEAD + event("1", 1, {})]
    with fake(streams(one, END, one, END, one, END)) as server:
        told(bucket(server).watch("a b", "ü", snapshot=True))
        told(Bucket(device="d", job="j", automation="x", socket=server.path).watch(since="s"))
        told(Bucket(device="d", socket=server.path).watch("k"))
    query = "?key=a%20b&key=%C3%BC"
    assert asked(server)[:2] == [
        (f"/v1/bucket/events{query}&snapshot=true", None),
        (f"/v1/bucket/events{query}", "1"),
    ]
    assert asked(server)[2::2] == [
        ("/v1/devices/d/jobs/j/bucket/events?automation=x", "s"),
        ("/v1/devices/d/bucket/events?key=k", None),
    ]


def test_a_snapshot_that_did_not_come_is_asked_for_again() -> None:
    with fake(streams([HEAD + b"id: 0\n\n"], [HEAD + event("1", 1, {})], END)) as server:
        assert len(told(bucket(server).watch(snapshot=True))) == 1
    path = "/v1/bucket/events"
    assert asked(server) == [(f"{path}?snapshot=true", None)] * 2 + [(path, "1")]


@pytest.mark.parametrize("where", ["at once", "later"])
def test_after_a_gap_the_whole_bucket_is_read_anew(where: str) -> None:
    first = [HEAD + event("1", 1, {"a": 1})]
    second = [HEAD + GAP] if where == "at once" else [HEAD + event("2", 2, {"a": 2}) + GAP]
    third = [HEAD + event("s", 9, {"a": 9, "b": 1}) + event("10", 10, {"a": 10})]
    with fake(streams(first, second, third, END)) as server:
        found = told(bucket(server).watch())
    assert found[-2:] == [("s", {"a": 9, "b": 1}, True), ("10", {"a": 10}, False)]
    assert [each[0] for each in found[:-2]] == (["1"] if where == "at once" else ["1", "2"])
    assert asked(server)[2:] == [
        ("/v1/bucket/events?snapshot=true", None),
        ("/v1/bucket/events", "10"),
    ]


def test_who_is_silent_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_watch_session, "SILENT_SECONDS", 0.2)
    done = threading.Event()
    with fake(streams([HEAD + event("1", 1, {}), done], [HEAD + event("2", 2, {})], END)) as server:
        assert [each[0] for each in told(bucket(server).watch())] == ["1", "2"]
        done.set()


def test_heartbeats_keep_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_watch_session, "SILENT_SECONDS", 0.4)

    def script(connection: socket.socket, _seen: Seen, number: int) -> bool:
        connection.sendall(HEAD)
        for _ in range(6):
            time.sleep(0.1)
            connection.sendall(b": \n\n")
        connection.sendall(event("1", 1, {}))
        return False

    with fake(script) as server:
        assert next(bucket(server).watch()).id == "1"
        assert server.connections == 1


def test_nobody_there() -> None:
    with pytest.raises(DaemonUnreachable, match="is bucketd running"):
        Bucket(token="t", socket="/nonexistent/s", timeout=0.1).watch()


def test_a_daemon_that_takes_no_one_on(monkeypatch: pytest.MonkeyPatch) -> None:
    done = threading.Event()
    with fake(streams([done])) as server:
        with pytest.raises(Timeout, match="no response within"):
            bucket(server, timeout=0.2).watch()
        done.set()


def test_what_is_refused_is_raised_at_once() -> None:
    missing = {"success": False, "error": "cannot find it", "code": "not_found"}
    with fake(streams([(404, missing)])) as server, pytest.raises(NotFound, match="cannot find"):
        bucket(server).watch()
    for said, cause in (
        ((200, {"success": True}), "not a stream of"),
        (b"SSH\r\n\r\n", "not HTTP"),
    ):
        with fake(streams([said])) as server, pytest.raises(InternalError, match=cause):
            bucket(server).watch()
    with pytest.raises(InvalidRequest, match="since or snapshot"):
        Bucket(token="t").watch(snapshot=True, since="1")


def test_busy_is_waited_for_and_then_told() -> None:
    busy = {"success": False, "error": "too many streams", "code": "overloaded"}
    later = (503, busy, {"Retry-After": "0"})
    with fake(streams([later], [later], [HEAD + event("1", 1, {})])) as server:
        assert next(bucket(server).watch()).id == "1"
    with fake(streams([later])) as server, pytest.raises(Overloaded, match="too many streams"):
        bucket(server, timeout=0.2).watch()


def test_an_event_that_is_none_is_said() -> None:
    broken = streams([HEAD + b"event: bucket\ndata: {\n\n"])
    with fake(broken) as server, pytest.raises(InternalError, match="not JSON"):
        next(bucket(server).watch())


def test_closing_it_closes_the_connection() -> None:
    closed = threading.Event()

    def script(connection: socket.socket, _seen: Seen, _number: int) -> bool:
        connection.sendall(HEAD + event("1", 1, {}))
        assert connection.recv(1) == b""
        closed.set()
        return False

    with fake(script) as server:
        changes = bucket(server).watch()
        next(changes)
        changes.close()
        assert closed.wait(5)
        for _ in bucket(server).watch():
            break
        closed.clear()

        async def one() -> None:
            stream = AsyncBucket(token="t", socket=server.path).watch()
            async for _ in stream:
                break
            await stream.aclose()

        asyncio.run(one())
        assert closed.wait(5)


def test_asyncio() -> None:
    first = [HEAD + event("1", 1, {"a": 1})]
    third = [HEAD + event("s", 3, {"a": 3})]
    with fake(streams(first, [HEAD + GAP], third, END)) as server:

        async def all_of_them() -> list[Any]:
            found = []
            try:
                async for change in AsyncBucket(token="t", socket=server.path).watch("a"):
                    found.append((change.id, change.set, change.gap))
            except NoJobContext:
                return found
            raise AssertionError("it ended without saying why")

        assert asyncio.run(all_of_them()) == [("1", {"a": 1}, False), ("s", {"a": 3}, True)]
        path = "/v1/bucket/events?key=a"
        assert asked(server) == [
            *[(path, None), (path, "1"), (f"{path}&snapshot=true", None), (path, "s")]
        ]


def test_asyncio_goes_on_while_it_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a silent daemon nor a missing one holds up the loop; cancelling ends it."""
    monkeypatch.setattr(_watch_session, "SILENT_SECONDS", 0.1)
    done = threading.Event()
    with fake(streams([HEAD, done], [HEAD + event("1", 1, {}), done])) as server:

        async def watching() -> int:
            stream = AsyncBucket(token="t", socket=server.path).watch()
            first = asyncio.ensure_future(stream.__anext__())
            turns = 0
            while not first.done():
                turns += 1
                await asyncio.sleep(0.01)
            second = asyncio.ensure_future(stream.__anext__())
            await asyncio.sleep(0.05)
            second.cancel()
            with pytest.raises(asyncio.CancelledError):
                await second
            return turns

        assert asyncio.run(watching()) > 3
        done.set()


def test_agent_ends_with_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [each.code for each in agent.utils.bucket.watch()] == ["no_job_context"]
    with fake(streams([HEAD + event("1", 1, {"a": 1})], END)) as server:
        monkeypatch.setenv("BUCKETD_SOCKET", server.path)
        monkeypatch.setenv("BUCKETD_TOKEN", "t")
        found = list(agent.utils.deviceBucket.watch("a", snapshot=True))
        assert [each.success for each in found] == [True, False]
        assert found[0].set == {"a": 1}
        assert found[1].error == "no job context: revoked"
        assert asked(server)[0][0] == "/v1/device/bucket/events?key=a&snapshot=true"


def test_agent_of_asyncio(monkeypatch: pytest.MonkeyPatch) -> None:
    with fake(streams([HEAD + event("1", 1, {"a": 1})], END)) as server:
        monkeypatch.setenv("BUCKETD_SOCKET", server.path)
        monkeypatch.setenv("BUCKETD_TOKEN", "t")

        async def all_of_them() -> list[bool]:
            return [each.success async for each in aio.agent.utils.bucket.watch()]

        assert asyncio.run(all_of_them()) == [True, False]
