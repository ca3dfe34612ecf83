"""Holds of a fleet: one at a time on all hosts, and no write of a host that was cut off."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest
from fleet import Cluster, Host, b64, cluster, wait_until
from harness import pair
from holders import Holder, hold_path, refused
from sse import Stream

from bucketd.store.etcd.session import LEASE_SECONDS

PHONE, JOB = hold_path("phone"), hold_path("phone", "login")
BUCKET = pair("phone", "login")


@contextlib.contextmanager
def running(etcd: Cluster, count: int = 2, **settings: str) -> Iterator[list[Host]]:
    with contextlib.ExitStack() as stack:
        found = [etcd.host(**settings) for _ in range(count)]
        for host in found:
            stack.callback(host.remove)
            # Each test has keys of its own.
            host.env["BUCKETD_STORE_ETCD_PREFIX"] = f"{found[0].home}/"
            host.start()
        yield found


def write(host: Host, fence: str | None = None) -> Any:
    headers = None if fence is None else {"Bucketd-Fence": fence}
    return host.request("PATCH", BUCKET, {"at": time.time()}, headers)


def listed(host: Host) -> tuple[list[str], list[str]]:
    found = host.request("GET", "/v1/holds").json
    return [row["id"] for row in found["holds"]], [row["id"] for row in found["waiting"]]


def can_hold(host: Host) -> bool:
    with Holder(host, JOB, {"wait_seconds": 5}) as holder:
        return holder.response().status == 200


def keys(etcd: Cluster, host: Host, kind: str) -> list[Any]:
    begin = f"{host.prefix}{kind}/".encode()
    body = {"key": b64(begin), "range_end": b64(begin[:-1] + b"0")}
    return list(etcd.nodes[0].ask("/v3/kv/range", body).get("kvs", ()))


def test_one_at_a_time_on_all_hosts(etcd: Cluster) -> None:
    with running(etcd) as (one, other):
        holder = Holder(one, JOB, {"label": "run 7"}).taken()
        for path in (JOB, PHONE):
            with Holder(other, path) as second:
                (row,) = refused(second.response(), 423, "held")["details"]
                assert (row["id"], row["label"]) == (holder.id, "run 7")
        waiting = []
        for number in range(6):
            host = (one, other)[number % 2]
            waiting.append(Holder(host, JOB, {"wait_seconds": 20}))
            wait_until(lambda n=number: len(listed(one)[1]) == n + 1)
        assert listed(one) == listed(other)
        order = []
        for next_ in waiting:
            holder.release()
            holder = next_.taken()
            order.append(holder.id)
            assert listed(one)[0] == listed(other)[0] == [holder.id]
        holder.release()
        assert keys(etcd, one, "hold/phone") == []


def test_a_fence_is_good_on_all_hosts_and_bad_on_all(etcd: Cluster) -> None:
    with running(etcd) as (one, other):
        holder = Holder(one, JOB).taken()
        fence = holder.hold["fence"]
        # The other host has not asked for holds yet, so it does not know this one.
        assert write(other, fence).status == 200
        holder.release()
        for host in (one, other):
            refused(write(host, fence), 412, "hold_lost")
        with Holder(other, JOB).taken() as second:
            refused(write(one, fence), 412, "hold_lost")
            assert write(one, second.hold["fence"]).status == 200


def test_an_exclusive_hold_refuses_writes_on_all_hosts(etcd: Cluster) -> None:
    with running(etcd) as (one, other):
        assert write(other).status == 200
        holder = Holder(one, PHONE, {"exclusive": True}).taken()
        for host in (one, other):
            (row,) = refused(write(host), 423, "held")["details"]
            assert row["id"] == holder.id
            assert write(host, holder.hold["fence"]).status == 200
        refused(other.request("DELETE", BUCKET), 423, "held")
        holder.release()
        assert write(other).status == 200
        assert keys(etcd, one, "exclusive") == []


def test_any_host_ends_a_hold_and_a_wait(etcd: Cluster) -> None:
    with running(etcd) as (one, other):
        holder = Holder(one, JOB).taken()
        with Holder(one, JOB, {"wait_seconds": 20}) as waiter:
            wait_until(lambda: len(listed(other)[1]) == 1)
            (waiting,) = listed(other)[1]
            assert other.request("DELETE", f"/v1/holds/{waiting}").status == 200
            refused(waiter.response(), 423, "held")
        assert other.request("DELETE", f"/v1/holds/{holder.id}").status == 200
        assert holder.lost() == "broken"
        refused(write(one, holder.hold["fence"]), 412, "hold_lost")


def test_streams_of_another_host_tell_holds(etcd: Cluster) -> None:
    with running(etcd) as (one, other), Stream(other, f"{BUCKET}/events?holds=true") as stream:
        holder = Holder(one, JOB).taken()
        event = stream.next()
        assert (event.kind, event.data["change"], event.data["id"]) == ("hold", "taken", holder.id)
        holder.release()
        assert stream.next().data["change"] == "released"


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_holder_comes_back_after_a_restart(etcd: Cluster, end: str) -> None:
    with running(etcd) as (one, other):
        holder = Holder(one, JOB, {"exclusive": True}).taken()
        with Holder(other, JOB, {"wait_seconds": 40}) as waiter:
            wait_until(lambda: len(listed(other)[1]) == 1)
            getattr(one, end)()
            holder.close()
            one.start()
            assert write(other, holder.hold["fence"]).status == 200
            again = Holder(one, JOB, {"fence": holder.hold["fence"]}).taken()
            assert again.hold == holder.hold
            time.sleep(LEASE_SECONDS + 3)
            assert listed(other)[0] == [holder.id]
            refused(write(other), 423, "held")
            assert write(one, holder.hold["fence"]).status == 200
            again.release()
            waiter.taken()


def test_a_holder_that_does_not_come_back_loses_its_hold(etcd: Cluster) -> None:
    with running(etcd) as (one, other):
        holder = Holder(one, JOB).taken()
        one.kill()
        holder.close()
        one.start()
        with Holder(other, JOB, {"wait_seconds": 40}) as waiter:
            waiter.taken()
            refused(write(one, holder.hold["fence"]), 412, "hold_lost")


def test_a_host_that_dies_frees_its_holds(etcd: Cluster) -> None:
    with running(etcd) as (one, other):
        holder = Holder(one, JOB, {"exclusive": True}).taken()
        with Holder(other, JOB, {"wait_seconds": 40}) as waiter:
            wait_until(lambda: len(listed(other)[1]) == 1)
            one.kill()
            began = time.monotonic()
            waiter.taken()
            assert time.monotonic() - began < LEASE_SECONDS + 5
            refused(write(other, holder.hold["fence"]), 412, "hold_lost")
            assert write(other, waiter.hold["fence"]).status == 200
        holder.close()


def test_a_host_that_was_stopped_cannot_write_with_its_old_fence(etcd: Cluster) -> None:
    with running(etcd) as (one, other):
        holder = Holder(one, JOB).taken()
        with Holder(other, JOB, {"wait_seconds": 40}) as waiter, one.connect() as sock:
            wait_until(lambda: len(listed(other)[1]) == 1)
            one.process.send_signal(signal.SIGSTOP)  # type: ignore[union-attr]
            try:
                waiter.taken()
                assert write(other, waiter.hold["fence"]).status == 200
            finally:
                one.process.send_signal(signal.SIGCONT)  # type: ignore[union-attr]
            late = one.request("PATCH", BUCKET, {"late": 1}, holder.fence, sock=sock)
            refused(late, 412, "hold_lost")
            assert holder.lost() in ("unreachable", "broken")
            assert "late" not in other.request("GET", BUCKET).bucket


def test_a_holder_is_told_before_the_lease_of_its_host_may_expire() -> None:
    with cluster(1) as etcd, running(etcd, 1) as (host,):
        holder = Holder(host, JOB).taken()
        (node,) = etcd.nodes
        node.kill()
        began = time.monotonic()
        assert holder.lost() == "unreachable"
        assert time.monotonic() - began <= LEASE_SECONDS + 0.5
        node.start()
        etcd.wait()
        wait_until(lambda: keys(etcd, host, "hold/phone") == [], 30)
        wait_until(lambda: can_hold(host))
        refused(write(host, holder.hold["fence"]), 412, "hold_lost")


def test_holds_outlive_the_leader() -> None:
    with cluster(3) as etcd, running(etcd) as (one, other):
        holder = Holder(one, JOB).taken()
        with Holder(other, JOB, {"wait_seconds": 60}) as waiter:
            wait_until(lambda: len(listed(other)[1]) == 1)
            leader = etcd.leader()
            leader.kill()
            wait_until(lambda: write(one, holder.hold["fence"]).status == 200)
            time.sleep(1.0)
            leader.start()
            etcd.wait()
            assert write(one, holder.hold["fence"]).status == 200
            assert listed(other)[0] == [holder.id]
            holder.release()
            waiter.taken()


def test_what_is_no_hold_is_ignored(etcd: Cluster) -> None:
    with running(etcd, 1) as (host,):
        for name in ("hold/phone/x", "hold/x", "hold/.beat/x"):
            key = b64(f"{host.prefix}{name}".encode())
            etcd.nodes[0].ask("/v3/kv/put", {"key": key, "value": b64(b"{")})
        with Holder(host, JOB).taken() as holder:
            assert listed(host)[0] == [holder.id]
        refused(write(host, "x.5"), 412, "hold_lost")


def test_holds_of_two_shards(etcd: Cluster) -> None:
    with cluster(1) as second:
        shards = f"a={etcd.nodes[0].url},b={second.nodes[0].url}"
        settings = {"BUCKETD_STORE_ETCD_SHARDS": shards, "BUCKETD_STORE_ETCD_ENDPOINTS": ""}
        with running(etcd, **settings) as (one, other), contextlib.ExitStack() as stack:
            devices = [f"phone-{number}" for number in range(8)]
            held = [
                stack.enter_context(Holder(one, hold_path(device)).taken()) for device in devices
            ]
            assert sorted(listed(other)[0]) == sorted(holder.id for holder in held)
            assert keys(etcd, one, "hold")
            assert keys(second, one, "hold")
            for device in devices:
                with Holder(other, hold_path(device)) as late:
                    refused(late.response(), 423, "held")
