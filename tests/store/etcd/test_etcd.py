"""Buckets in etcd: two hosts see one truth, and a failing cluster loses nothing acknowledged."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import pytest
from fleet import Cluster, cluster
from harness import Daemon, pair


@pytest.fixture(scope="module")
def hosts(etcd: Cluster) -> Iterator[tuple[Daemon, Daemon]]:
    with contextlib.ExitStack() as stack:
        found = etcd.host(), etcd.host()
        for host in found:
            stack.callback(host.remove)
            host.start()
        yield found


def test_another_host_sees_each_change_at_once(hosts: tuple[Daemon, Daemon]) -> None:
    one, other = hosts
    path = pair("../phone 1 📱", "a/b")
    made = one.request("PATCH", path, {"token": "x", "none": None})
    seen = other.request("GET", path)
    assert seen.bucket == {"token": "x", "none": None}
    assert (seen.etag, seen.json["revision"]) == (made.etag, 1)
    other.request("PATCH", path, {"n": 1})
    # What the first host remembers is old now; it must not be what it answers from.
    changed = one.request("PATCH", path, {"m": 2})
    assert changed.bucket == {"token": "x", "none": None, "n": 1, "m": 2}
    assert changed.json["revision"] == 3
    assert one.request("PATCH", path, {"m": 2}).etag == changed.etag
    other.request("PATCH", path, {"m": 3})
    assert one.request("PATCH", path, {"m": 2}).json["revision"] == 5


def test_guards_hold_across_hosts_and_a_new_life(hosts: tuple[Daemon, Daemon]) -> None:
    one, other = hosts
    path = pair("guarded", "j")
    first = one.request("PUT", path, {"a": 1}).etag
    other.request("PATCH", path, {"a": 2})
    refused = one.request("PATCH", path, {"a": 3}, {"If-Match": str(first)})
    assert (refused.status, refused.json["revision"]) == (412, 2)
    assert other.request("DELETE", path).bucket == {}
    again = one.request("PUT", path, {"a": 1})
    assert again.json["revision"] == 1
    assert again.etag != first
    assert other.request("PUT", path, {}, {"If-None-Match": "*"}).status == 412


def test_no_merge_of_two_hosts_is_lost(hosts: tuple[Daemon, Daemon]) -> None:
    path, count = pair("contended", "j"), 40

    def work(host: Daemon, name: str) -> None:
        for i in range(count):
            assert host.request("PATCH", path, {f"{name}{i}": i}).status == 200

    threads = [
        threading.Thread(target=work, args=(host, f"{h}{t}-"))
        for h, host in enumerate(hosts)
        for t in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    now = hosts[0].request("GET", path)
    assert len(now.bucket) == now.json["revision"] == 6 * count


def test_lists_are_the_same_on_both_hosts(hosts: tuple[Daemon, Daemon]) -> None:
    one, other = hosts
    one.request("PUT", pair("listed"), {})
    for i in range(5):
        one.request("PUT", f"{pair('listed', f'j{i}')}?automation=a{i % 2}", {"i": i})
    found, cursor = [], ""
    while cursor is not None:
        page = other.request("GET", f"/v1/buckets?device=listed&limit=2{cursor}").json
        found += [row["job"] for row in page["buckets"]]
        cursor = f"&cursor={page['next_cursor']}" if page.get("next_cursor") else None
    assert found == [None, "j0", "j1", "j2", "j3", "j4"]
    bound = other.request("GET", "/v1/buckets?automation=a1").json["buckets"]
    assert [row["job"] for row in bound] == ["j1", "j3"]
    assert other.request("GET", "/v1/buckets?cursor=%25").status == 400


def test_a_cluster_that_is_away_is_told(hosts: tuple[Daemon, Daemon], etcd: Cluster) -> None:
    assert hosts[0].request("GET", "/v1/status").json["store"]["engine"] == "etcd"
    gone = etcd.host(BUCKETD_STORE_ETCD_TIMEOUT_SECONDS="0.5")
    gone.env["BUCKETD_STORE_ETCD_ENDPOINTS"] = "http://127.0.0.1:9"
    try:
        gone.start()
        for method, body in (("GET", None), ("PATCH", {"a": 1})):
            answer = gone.request(method, pair("p", "j"), body)
            assert (answer.status, answer.json["code"]) == (503, "overloaded")
            assert answer.headers["retry-after"]
    finally:
        gone.remove()


def test_a_password_lets_in_and_a_wrong_one_is_told() -> None:
    with cluster(1) as closed:
        node = closed.nodes[0]
        node.ask("/v3/auth/user/add", {"name": "root", "password": "secret"})
        node.ask("/v3/auth/role/add", {"name": "root"})
        node.ask("/v3/auth/user/grant", {"user": "root", "role": "root"})
        node.ask("/v3/auth/enable", {})
        host = closed.host(BUCKETD_STORE_ETCD_USER="root")
        try:
            host.env["BUCKETD_STORE_ETCD_PASSWORD_FILE"] = str(host.home / "password")
            for password, status in (("secret", 200), ("wrong", 500)):
                (host.home / "password").write_text(password + "\n")
                host.start()
                answer = host.request("PATCH", pair("p", "j"), {"a": 1})
                assert answer.status == status, answer
                assert password.encode() not in answer.body or status == 200
                host.stop()
            assert "etcd: it refuses this daemon" in answer.json["error"]
            del host.env["BUCKETD_STORE_ETCD_USER"]
            host.start()
            refused = host.request("GET", pair("p", "j"))
            assert "etcd: it refuses this daemon" in refused.json["error"]
        finally:
            host.remove()
