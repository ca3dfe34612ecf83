"""Schemas set through the API of one host are in force on all, and stay so when etcd is away."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fleet import Cluster, wait_until
from harness import Daemon, pair

from bucketd.schemas.registry import Registry
from bucketd.schemas.sharing import Shared
from bucketd.store import disk

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
    write, done = disk.write, []

    def until_killed(*words: Any, **named: Any) -> Any:
        if len(done) == writes:
            raise Killed
        done.append(words)
        return write(*words, **named)

    def host() -> tuple[Registry, Shared]:
        registry = Registry(root, str(tmp_path), str(tmp_path / "etc"))
        return registry, Shared(registry, None, "/bucketd/", 1.0)  # type: ignore[arg-type]

    _, shared = host()
    monkeypatch.setattr(disk, "write", until_killed)
    try:
        asyncio.run(shared._take({"gone": NUMBER}))
    except Killed:
        assert writes < 2
    monkeypatch.setattr(disk, "write", write)
    registry, shared = host()
    asyncio.run(shared._drop(shared._copied()))
    assert not registry.entries()
    assert not shared._copied()
    os.close(root)
