"""Schemas set through the API of one host are in force on all, and stay so when etcd is away."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import select
import shutil
import signal
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fleet import Cluster, Host, cluster, wait_until
from harness import Daemon, pair

from bucketd.core.schemas import replication
from bucketd.core.schemas.registry import Registry
from bucketd.core.schemas.replication import ReplicatedSchemas
from bucketd.fs import files
from bucketd.store.etcd import EtcdOptions, EtcdSchemas
from bucketd.store.etcd.client import EtcdClient

NUMBER = {"fields": [{"name": "n", "type": "number"}]}
TEXT = {"fields": [{"name": "n", "type": "string"}]}


@pytest.fixture
def hosts(etcd: Cluster) -> Iterator[tuple[Daemon, Daemon]]:
    one, two = etcd.host(), etcd.host()
    try:
        yield one.start(), two.start()
    finally:
        one.remove()
        two.remove()


def schema_of(daemon: Daemon, automation: str) -> object:
    answer = daemon.request("GET", f"/v1/schemas/{automation}")
    return answer.json["schema"] if answer.status == 200 else None


def test_set_on_one_it_is_in_force_on_all(hosts: tuple[Daemon, Daemon]) -> None:
    one, two = hosts
    assert one.request("PUT", "/v1/schemas/mail", NUMBER).status == 200
    assert schema_of(one, "mail") == NUMBER
    wait_until(lambda: schema_of(two, "mail") == NUMBER)
    target = f"{pair('d', 'j')}?automation=mail"
    assert two.request("PATCH", target, {"n": "text"}).status == 422
    assert two.request("PUT", "/v1/schemas/mail", TEXT).status == 200
    wait_until(lambda: schema_of(one, "mail") == TEXT)
    assert one.request("DELETE", "/v1/schemas/mail").status == 200
    assert schema_of(one, "mail") is None
    wait_until(lambda: schema_of(two, "mail") is None)
    assert two.request("DELETE", "/v1/schemas/mail").status == 404


def test_names_of_any_length(hosts: tuple[Daemon, Daemon]) -> None:
    name = "%F0%9F%93%B1" * 128
    hosts[0].request("PUT", f"/v1/schemas/{name}", NUMBER)
    wait_until(lambda: schema_of(hosts[1], name) == NUMBER)
    hosts[1].request("DELETE", f"/v1/schemas/{name}")
    wait_until(lambda: schema_of(hosts[0], name) is None)


def test_what_happened_meanwhile_is_taken_up(hosts: tuple[Daemon, Daemon]) -> None:
    one, two = hosts
    for name in ("kept", "gone"):
        one.request("PUT", f"/v1/schemas/{name}", NUMBER)
        wait_until(lambda name=name: schema_of(two, name) == NUMBER)
    two.stop()
    one.request("DELETE", "/v1/schemas/gone")
    one.request("PUT", "/v1/schemas/new", TEXT)
    two.start()
    wait_until(lambda: schema_of(two, "new") == TEXT)
    wait_until(lambda: schema_of(two, "gone") is None)
    assert schema_of(two, "kept") == NUMBER


def test_what_was_set_before_hosts_shared_anything_stays(etcd: Cluster) -> None:
    host = etcd.host()
    shared, host.env = host.env, {}
    try:
        host.start()
        host.request("PUT", "/v1/schemas/own", NUMBER)
        host.stop()
        host.env = shared
        host.start()
        host.request("PUT", "/v1/schemas/mark", TEXT)
        assert schema_of(host, "own") == NUMBER
        assert host.request("DELETE", "/v1/schemas/own").status == 200
    finally:
        host.remove()


def test_without_etcd_the_copy_is_in_force_and_nothing_is_set(
    hosts: tuple[Daemon, Daemon], etcd: Cluster
) -> None:
    one, two = hosts
    one.request("PUT", "/v1/schemas/away", NUMBER)
    wait_until(lambda: schema_of(two, "away") == NUMBER)
    etcd.nodes[0].signal(signal.SIGSTOP)
    try:
        two.kill()
        two.env["BUCKETD_STORE_ETCD_TIMEOUT_SECONDS"] = "1"
        two.start()
        assert schema_of(two, "away") == NUMBER
        answer = two.request("PUT", "/v1/schemas/refused", NUMBER)
        assert (answer.status, answer.json["code"]) == (503, "overloaded")
        assert schema_of(two, "refused") is None
    finally:
        etcd.nodes[0].signal(signal.SIGCONT)


class Killed(BaseException):
    """In the place of SIGKILL: nothing that follows is done."""


@pytest.mark.parametrize("writes", range(3))
def test_a_copy_is_known_as_one_whenever_its_host_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    """Else what is removed meanwhile would stay in force there, as if an operator had set it."""
    root = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    write, done = files.write, []

    def until_killed(*words: Any, **named: Any) -> Any:
        if len(done) == writes:
            raise Killed
        done.append(words)
        return write(*words, **named)

    def host() -> tuple[Registry, ReplicatedSchemas]:
        registry = Registry(root, str(tmp_path), str(tmp_path / "etc"))
        return registry, ReplicatedSchemas(registry, None)  # type: ignore[arg-type]

    _, shared = host()
    monkeypatch.setattr(files, "write", until_killed)
    try:
        asyncio.run(shared._put_copy("gone", NUMBER))
    except Killed:
        assert writes < 2
    monkeypatch.setattr(files, "write", write)
    registry, shared = host()
    asyncio.run(shared._remove_copy("gone"))
    assert not registry.entries()
    assert not shared._copied()
    os.close(root)


class Relay(socketserver.ThreadingTCPServer):
    """Of one node: a change reaches it ``before`` it is answered ``after``, once those are set.

    Once ``deaf``, nothing more comes of the ``watches`` there are.
    """

    daemon_threads = True

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", 0), _Passing)
        self.port, self.url = port, f"http://127.0.0.1:{self.server_address[1]}"
        self.before, self.after, self.done = (threading.Event() for _ in range(3))
        self.before.set()
        self.after.set()
        self.deaf, self.watches = False, 0


class _Passing(socketserver.BaseRequestHandler):
    server: Relay

    def handle(self) -> None:
        with socket.create_connection(("127.0.0.1", self.server.port)) as there:
            other, watches = {self.request: there, there: self.request}, False
            while True:
                for source in select.select(list(other), [], [])[0]:
                    text = source.recv(65536)
                    if not text:
                        return
                    if b"POST /v3/watch" in text:
                        watches, self.server.watches = True, self.server.watches + 1
                    if watches and self.server.deaf:
                        continue
                    if any(way in text for way in (b"kv/txn", b"kv/put", b"kv/deleterange")):
                        self._change(text, there)
                    else:
                        other[source].sendall(text)

    def _change(self, text: bytes, there: socket.socket) -> None:
        self.server.before.wait(20)
        there.sendall(text)
        answer = there.recv(65536)
        self.server.done.set()
        self.server.after.wait(20)
        with contextlib.suppress(OSError):  # nobody waits any more
            self.request.sendall(answer)


@pytest.fixture
def relay(etcd: Cluster) -> Iterator[Relay]:
    relay = Relay(int(etcd.nodes[0].url.rpartition(":")[2]))
    serving = threading.Thread(target=relay.serve_forever)
    serving.start()
    try:
        yield relay
    finally:
        relay.before.set()
        relay.after.set()
        relay.shutdown()
        serving.join()
        relay.server_close()


@pytest.fixture
def relayed(etcd: Cluster, relay: Relay) -> Iterator[tuple[Relay, Host, Host]]:
    """A host that asks through it first, and one that does not; neither has a schema of mail."""
    host, other = etcd.host(BUCKETD_STORE_ETCD_TIMEOUT_SECONDS="6"), etcd.host()
    # It is asked again after a third of the time, directly.
    host.env["BUCKETD_STORE_ETCD_ENDPOINTS"] = f"{relay.url},{etcd.endpoints}"
    try:
        other.start().request("DELETE", "/v1/schemas/mail")
        host.start()
        meet(other, host)
        relay.done.clear()
        yield relay, host, other
    finally:
        host.remove()
        other.remove()


def meet(*hosts: Host) -> None:
    """All that the first has heard of the others hear of, too."""
    hosts[0].request("DELETE", "/v1/schemas/meeting")
    for host in hosts[1:]:
        wait_until(lambda host=host: schema_of(host, "meeting") is None)
    assert hosts[0].request("PUT", "/v1/schemas/meeting", NUMBER).status == 200
    for host in hosts:
        wait_until(lambda host=host: schema_of(host, "meeting") == NUMBER)


def beside(call: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    """Under way, and what it will have returned."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(call()))
    thread.start()
    return thread, found


@pytest.mark.parametrize("then", ["replaced", "removed", "set again"])
def test_what_a_node_does_late_undoes_nothing(then: str, relayed: tuple[Relay, Host, Host]) -> None:
    relay, host, other = relayed
    if then == "set again":
        assert host.request("PUT", "/v1/schemas/mail", TEXT).status == 200
        relay.done.clear()
    relay.before.clear()
    verb, body = ("DELETE", None) if then == "set again" else ("PUT", NUMBER)
    assert host.request(verb, "/v1/schemas/mail", body).status == 200
    want = None if then == "removed" else TEXT
    verb = "DELETE" if want is None else "PUT"
    assert other.request(verb, "/v1/schemas/mail", want).status == 200
    relay.before.set()
    assert relay.done.wait(20)
    meet(other, host)
    assert (schema_of(other, "mail"), schema_of(host, "mail")) == (want, want)


@pytest.mark.parametrize("verb", ["PUT", "DELETE"])
def test_a_change_whose_answer_is_lost_is_made_once(
    verb: str, relayed: tuple[Relay, Host, Host]
) -> None:
    relay, host, other = relayed
    if verb == "DELETE":
        host.request("PUT", "/v1/schemas/mail", NUMBER)
    relay.after.clear()
    assert host.request(verb, "/v1/schemas/mail", TEXT if verb == "PUT" else None).status == 200
    want = TEXT if verb == "PUT" else None
    assert schema_of(host, "mail") == want
    meet(other, host)
    assert (schema_of(other, "mail"), schema_of(host, "mail")) == (want, want)


def test_where_it_was_changed_since_nobody_knows(relayed: tuple[Relay, Host, Host]) -> None:
    relay, host, other = relayed
    relay.after.clear()
    putting, answers = beside(lambda: host.request("PUT", "/v1/schemas/mail", NUMBER))
    assert relay.done.wait(20)
    assert other.request("PUT", "/v1/schemas/mail", TEXT).status == 200
    putting.join(20)
    assert (answers[0].status, answers[0].json["code"]) == (500, "internal")
    assert "the outcome is unknown" in answers[0].json["error"]
    meet(other, host)
    assert (schema_of(other, "mail"), schema_of(host, "mail")) == (TEXT, TEXT)


@pytest.mark.parametrize("then", ["replaced", "removed"])
def test_who_hears_late_of_his_own_change_keeps_the_newer_one(
    then: str, relayed: tuple[Relay, Host, Host]
) -> None:
    relay, host, other = relayed
    relay.after.clear()
    putting, answers = beside(lambda: host.request("PUT", "/v1/schemas/mail", NUMBER))
    assert relay.done.wait(20)
    want = TEXT
    assert other.request("PUT", "/v1/schemas/mail", TEXT).status == 200
    wait_until(lambda: schema_of(host, "mail") == TEXT)
    if then == "removed":
        want = None
        assert other.request("DELETE", "/v1/schemas/mail").status == 200
        wait_until(lambda: schema_of(host, "mail") is None)
    relay.after.set()
    putting.join(20)
    assert answers[0].status == 200
    assert (schema_of(other, "mail"), schema_of(host, "mail")) == (want, want)


def test_what_a_cluster_that_begins_anew_has_is_taken_up() -> None:
    with cluster(1) as one:
        host, node = one.host(), one.nodes[0]
        try:
            host.start()
            for number in range(9):
                host.request("PUT", "/v1/schemas/mail", {"const": number})
            node.kill()
            shutil.rmtree(node.data)
            node.start()
            one.wait()
            wait_until(lambda: schema_of(host, "mail") is None)
            assert host.request("PUT", "/v1/schemas/mail", TEXT).status == 200
            assert schema_of(host, "mail") == TEXT
        finally:
            host.remove()


def test_what_this_host_cannot_store_is_no_success_and_taken_up_later(
    hosts: tuple[Daemon, Daemon],
) -> None:
    one, two = hosts
    for daemon in hosts:
        daemon.request("PUT", "/v1/schemas/gone", NUMBER)
    place, aside = one.state_dir / "schemas", one.state_dir / "aside"
    wait_until(lambda: schema_of(two, "gone") == NUMBER)
    place.rename(aside)
    place.write_text("in the way of what is stored")
    for verb, name, done in (("PUT", "new", "set"), ("DELETE", "gone", "removed")):
        answer = one.request(verb, f"/v1/schemas/{name}", NUMBER if verb == "PUT" else None)
        assert (answer.status, answer.json["code"]) == (500, "internal")
        assert f"on all other hosts it is {done}" in answer.json["error"]
        assert "nothing was changed" not in answer.json["error"]
    wait_until(lambda: schema_of(two, "new") == NUMBER)
    wait_until(lambda: schema_of(two, "gone") is None)
    place.unlink()
    aside.rename(place)
    wait_until(lambda: schema_of(one, "new") == NUMBER, 10)
    wait_until(lambda: schema_of(one, "gone") is None, 10)


def test_a_watch_that_hangs_is_made_anew_and_a_quiet_one_is_not(
    etcd: Cluster, relay: Relay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    registry = Registry(root, str(tmp_path), str(tmp_path / "etc"))
    monkeypatch.setattr(replication, "RECHECK_SECONDS", 0.3)
    monkeypatch.setattr(replication, "RETRY_SECONDS", 0.3)

    async def until_in_force(automation: str) -> None:
        async with asyncio.timeout(10):
            while registry.find(automation) is None:
                await asyncio.sleep(0.05)

    async def follow() -> None:
        watching = EtcdClient(EtcdOptions((relay.url, etcd.nodes[0].url), "/hangs/", 3.0))
        other = EtcdClient(EtcdOptions((etcd.nodes[0].url,), "/hangs/", 3.0))
        setting, stop = EtcdSchemas(other), asyncio.Event()
        shared = ReplicatedSchemas(registry, EtcdSchemas(watching))
        await setting.put("read", NUMBER)
        following = asyncio.create_task(shared.keep_current(stop))
        await until_in_force("read")
        await asyncio.sleep(1.5)
        assert relay.watches == 1
        relay.deaf = True
        await setting.put("looked", NUMBER)
        await until_in_force("looked")
        monkeypatch.setattr(replication, "RECHECK_SECONDS", 3600)
        await asyncio.sleep(1.5)
        await setting.put("told", NUMBER)
        await until_in_force("told")
        stop.set()
        await asyncio.gather(following, watching.close(), other.close())

    try:
        asyncio.run(follow())
    finally:
        os.close(root)


# --- schemas that tolerate what stood before a write

OWNED = {"properties": {"n": {"type": "number"}}, "required": ["owner"]}


def mode_of(daemon: Daemon, automation: str) -> object:
    return daemon.request("GET", f"/v1/schemas/{automation}").json.get("existing")


def test_the_mode_is_in_force_on_all_hosts(hosts: tuple[Daemon, Daemon]) -> None:
    one, two = hosts
    target = f"{pair('d', 'mode')}?automation=mode"
    stored = {"n": "text", "b": 1}
    assert one.request("PUT", f"{target}&revision=1", stored).status == 200
    assert one.request("PUT", "/v1/schemas/mode", OWNED).status == 409
    assert one.request("PUT", "/v1/schemas/mode?existing=tolerate", OWNED).status == 200
    wait_until(lambda: mode_of(two, "mode") == "tolerate")
    for host, value in ((two, 2), (one, 3), (one, 3)):
        answer = host.request("PATCH", target, {"b": value})
        found = sorted((each["path"], each["keyword"]) for each in answer.json["warnings"])
        assert (answer.status, found) == (200, [("", "required"), ("/n", "type")])
    # No host remembers the warnings with the bucket.
    assert "warnings" not in one.request("GET", target).json
    refused = two.request("PATCH", target, {"n": "other"})
    assert (refused.status, [each["path"] for each in refused.json["details"]]) == (422, ["/n"])
    # The mode alone changes, and while a host is away.
    two.stop()
    assert one.request("PUT", "/v1/schemas/mode?force=true", OWNED).status == 200
    assert mode_of(one, "mode") == "refuse"
    two.start()
    wait_until(lambda: mode_of(two, "mode") == "refuse")
    assert two.request("PATCH", target, {"b": 4}).status == 422
    assert two.request("PUT", "/v1/schemas/mode?existing=tolerate", OWNED).status == 200
    wait_until(lambda: mode_of(one, "mode") == "tolerate")
    for host in hosts:
        host.restart()
        assert mode_of(host, "mode") == "tolerate"


def test_what_an_older_host_stores_refuses_and_it_can_read_what_a_newer_one_stores(
    etcd: Cluster,
) -> None:
    """The value of an older host has no mode; it ignores members that it does not know."""

    async def values() -> tuple[Any, Any]:
        client = EtcdClient(EtcdOptions((etcd.nodes[0].url,), "/modes/", 3.0))
        schemas = EtcdSchemas(client)
        try:
            await schemas.put("refusing", OWNED)
            await schemas.put("tolerating", OWNED, tolerates=True)
            raw = {}
            for name in ("refusing", "tolerating"):
                key = base64.b64encode(f"/modes/schema/{name}".encode()).decode()
                answer = await client.call("/v3/kv/range", {"key": key}, client.deadline())
                raw[name] = json.loads(base64.b64decode(answer["kvs"][0]["value"]))
            found = {each.automation: each.tolerates for each in (await schemas.read_all()).schemas}
            return raw, found
        finally:
            await client.close()

    raw, found = asyncio.run(values())
    assert raw["refusing"] == {"automation": "refusing", "schema": OWNED}
    assert raw["tolerating"] == {
        "automation": "tolerating",
        "schema": OWNED,
        "existing": "tolerate",
    }
    assert found == {"refusing": False, "tolerating": True}
