"""What a node was asked counts once, whenever it does that, and whether or not it could say so."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fleet import Authority, Cluster, Host, cluster, wait_until
from harness import pair

from bucketd.errors import StorageFull
from bucketd.model import changes
from bucketd.model.bucket import BucketKey
from bucketd.model.preconditions import Preconditions
from bucketd.store.etcd import EtcdOptions, EtcdStore
from bucketd.store.etcd.keys import StoredValue


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
        # The host that created the bucket has received no answer.
        wait_until(lambda: bool(one.stored_values("/bucketd/")))
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
    wait_until(lambda: bool(one.stored_values("/bucketd/")))
    end_leases(one)
    putting.join(20)
    assert (answers[0].status, answers[0].json["code"]) == (500, "internal")
    assert "the outcome is unknown" in answers[0].json["error"]
    relay.silent = False
    assert host.request("PUT", pair("next", "job"), {}).status == 200


@pytest.mark.parametrize("stored", [True, False])
def test_a_refusal_after_a_lost_answer_says_that_nobody_knows(
    relayed: tuple[Cluster, Relay, Host], tmp_path: Path, stored: bool
) -> None:
    """The first try was made; the second found that the user was shut out meanwhile."""
    one, relay, _ = relayed
    authority = Authority(one)
    (tmp_path / "password").write_text("farm secret")
    host = one.host(
        BUCKETD_STORE_ETCD_TIMEOUT_SECONDS="6",
        BUCKETD_STORE_ETCD_PREFIX="/farm/",
        BUCKETD_STORE_ETCD_USER="farm",
        BUCKETD_STORE_ETCD_PASSWORD_FILE=str(tmp_path / "password"),
        BUCKETD_STORE_ETCD_ENDPOINTS=f"{relay.url},{one.nodes[0].url}",
    )
    path, answers = pair("refused", "job"), []
    try:
        host.start().request("PUT", path, {"n": 0})
        if not stored:
            host.request("DELETE", path)
        relay.silent = True
        putting = threading.Thread(
            target=lambda: answers.append(host.request("PUT", path, {"n": 1}))
        )
        putting.start()
        wait_until(
            lambda: any(b'{"n":1}' in value for value in one.stored_values("/farm/").values())
        )
        authority.shut_out()
        putting.join(20)
        assert (answers[0].status, answers[0].json["code"]) == (500, "internal")
        assert "the outcome is unknown" in answers[0].json["error"]
        authority.let_in()
        relay.silent = False
        assert host.request("GET", path).bucket == {"n": 1}
    finally:
        host.remove()


def test_what_a_full_etcd_made_all_the_same_is_told_as_made() -> None:
    """It makes the swap that crosses its limit, and refuses it; another host then removes it."""
    with cluster(1, "--quota-backend-bytes", "2000000") as one:
        seen, refused = asyncio.run(_fill(one.nodes[0].url))
    assert refused
    assert not seen & refused


async def _fill(url: str) -> tuple[set[BucketKey], set[BucketKey]]:
    """Until it is full: the buckets that another host has read, and those said not to be made."""
    ours, other = (EtcdStore(EtcdOptions((url,), "/bucketd/", 5.0)) for _ in range(2))
    look, seen, refused = ours._reader.read, set(), set()

    async def removed_before(key: BucketKey, deadline: float) -> StoredValue:
        if (await other._reader.read(key, deadline)).snapshot.bucket.values():
            seen.add(key)
            await other.commit(key, changes.clear(), Preconditions())
        return await look(key, deadline)

    ours._reader.read = removed_before  # type: ignore[method-assign]
    for number in range(200):
        keys = [BucketKey(f"{number}", f"{at}") for at in range(20)]
        filled = changes.replace({"pad": "x" * 20_000})
        makes = (ours.commit(key, filled, Preconditions()) for key in keys)
        found = await asyncio.gather(*makes, return_exceptions=True)
        refused |= {k for k, e in zip(keys, found, strict=True) if isinstance(e, StorageFull)}
        if refused:
            break
    await ours.close()
    await other.close()
    return seen, refused
