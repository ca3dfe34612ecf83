"""What a node was asked counts once, whenever it does that, and whether or not it could say so."""

from __future__ import annotations

import os
import select
import signal
import socket
import socketserver
import threading
import time
from collections.abc import Iterator

import pytest
from fleet import Cluster, Host, cluster, wait_until
from harness import pair


@pytest.mark.parametrize("number", range(2))
def test_a_bucket_that_was_removed_meanwhile_is_not_made_again(number: int) -> None:
    with cluster(3) as three:
        asked = next(node for node in three.nodes if node is not three.leader())
        others = [node for node in three.nodes if node is not asked]
        host = three.host(BUCKETD_STORE_ETCD_TIMEOUT_SECONDS="2")
        urls = [node.url for node in (asked, *others)]
        host.env["BUCKETD_STORE_ETCD_ENDPOINTS"] = ",".join(urls)
        try:
            host.start()
            path = pair("late", f"{number}")
            host.request("PUT", path, {"n": 0})
            host.request("DELETE", path)  # so what it knows is that there is none
            asked.signal(signal.SIGSTOP)
            os.waitid(os.P_PID, asked.process.pid, os.WSTOPPED)
            assert host.request("PUT", path, {"n": 1}).status == 200
            assert host.request("DELETE", path).status == 200
            asked.signal(signal.SIGCONT)
            until = time.monotonic() + 1
            while time.monotonic() < until:
                assert host.request("GET", path).bucket == {}
                time.sleep(0.02)
        finally:
            host.remove()


class Relay(socketserver.ThreadingTCPServer):
    """Of one node: once ``silent``, what is asked reaches it, and no answer comes back."""

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", 0), _Passing)
        self.port, self.silent = port, False
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class _Passing(socketserver.BaseRequestHandler):
    server: Relay

    def handle(self) -> None:
        with socket.create_connection(("127.0.0.1", self.server.port)) as there:
            other = {self.request: there, there: self.request}
            while True:
                for source in select.select(list(other), [], [])[0]:
                    text = source.recv(65536)
                    if not text:
                        return
                    if source is self.request or not self.server.silent:
                        other[source].sendall(text)


@pytest.fixture
def relayed() -> Iterator[tuple[Cluster, Relay, Host]]:
    with cluster(1) as one:
        relay = Relay(int(one.nodes[0].url.rpartition(":")[2]))
        serving = threading.Thread(target=relay.serve_forever)
        serving.start()
        host = one.host(BUCKETD_STORE_ETCD_TIMEOUT_SECONDS="6")
        # It is asked again after a share of the time, directly.
        host.env["BUCKETD_STORE_ETCD_ENDPOINTS"] = f"{relay.url},{one.nodes[0].url}"
        try:
            host.start()
            yield one, relay, host
        finally:
            host.remove()
            relay.shutdown()
            serving.join()
            relay.server_close()


@pytest.mark.parametrize("meanwhile", ["nothing", "removed", "changed"])
def test_a_bucket_whose_maker_heard_no_answer_is_made_once(
    relayed: tuple[Cluster, Relay, Host], meanwhile: str
) -> None:
    one, relay, host = relayed
    path, other = pair("once", "job"), one.host()
    host.request("PUT", path, {"n": 0})
    host.request("DELETE", path)  # so what it knows is that there is none
    try:
        other.start()
        relay.silent = True
        answers = []
        putting = threading.Thread(
            target=lambda: answers.append(host.request("PUT", path, {"n": 1}))
        )
        putting.start()
        wait_until(lambda: bool(one.kept("/bucketd/")))  # and its maker has not heard of that
        left = {"n": 1}
        if meanwhile == "removed":
            assert other.request("DELETE", path).status == 200
            left = {}
        elif meanwhile == "changed":
            left = other.request("PATCH", path, {"more": 2}).bucket
        putting.join(20)
        assert (answers[0].status, answers[0].bucket) == (200, {"n": 1})
        assert other.request("GET", path).bucket == left
        # And whoever makes one after that is not kept from it.
        relay.silent = False
        assert host.request("DELETE", path).status == 200
        assert host.request("PUT", path, {"n": 2}).bucket == {"n": 2}
    finally:
        other.remove()


def end_leases(one: Cluster) -> None:
    """What hangs on them is gone, as when their hosts had stood still for long."""
    for lease in one.nodes[0].ask("/v3/lease/leases", {})["leases"]:
        one.nodes[0].ask("/v3/lease/revoke", {"ID": lease["ID"]})


def test_buckets_are_made_after_a_lease_has_ended(relayed: tuple[Cluster, Relay, Host]) -> None:
    one, _, host = relayed
    for number in range(3):
        assert host.request("PUT", pair("again", f"{number}"), {}).status == 200
        end_leases(one)


def test_where_the_lease_has_ended_nobody_knows(relayed: tuple[Cluster, Relay, Host]) -> None:
    one, relay, host = relayed
    path, answers = pair("unknown", "job"), []
    host.request("PUT", path, {})
    host.request("DELETE", path)  # so what it knows is that there is none
    relay.silent = True
    putting = threading.Thread(target=lambda: answers.append(host.request("PUT", path, {})))
    putting.start()
    wait_until(lambda: bool(one.kept("/bucketd/")))
    end_leases(one)
    putting.join(20)
    assert (answers[0].status, answers[0].json["code"]) == (500, "internal")
    assert "the outcome is unknown" in answers[0].json["error"]
    relay.silent = False
    assert host.request("PUT", pair("next", "job"), {}).status == 200
