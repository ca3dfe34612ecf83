"""Which hosts are there: told by each, and counted out by etcd when one dies."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

from fleet import Cluster, Host, b64, cluster, wait_until
from harness import pair
from sse import Stream

from bucketd import __version__
from bucketd.store.etcd.session import LEASE_SECONDS


@contextlib.contextmanager
def running(etcd: Cluster, count: int) -> Iterator[list[Host]]:
    with contextlib.ExitStack() as stack:
        found = [etcd.host() for _ in range(count)]
        for host in found:
            stack.callback(host.remove)
            host.start()
        yield found


def there(host: Host) -> list[str]:
    hosts = host.request("GET", "/v1/status").json["store"]["hosts"]
    assert {one["host"] for one in hosts} <= {socket.gethostname()}
    assert {one["version"] for one in hosts} <= {__version__}
    return [one["started_at"] for one in hosts]


def leases(etcd: Cluster, what: bytes = b"host") -> list[str]:
    """Those that such keys hang on."""
    body = {"key": b64(b"/bucketd/%b/" % what), "range_end": b64(b"/bucketd/%b0" % what)}
    found = etcd.nodes[0].ask("/v3/kv/range", body).get("kvs", ())
    return [kv.get("lease", "none") for kv in found]


def test_a_host_is_told_while_it_is_there(etcd: Cluster) -> None:
    with running(etcd, 2) as (one, other):
        wait_until(lambda: len(there(one)) == len(there(other)) == 2)
        other.stop()
        assert len(there(one)) == 1
        one.stop()
        assert leases(etcd) == []


def test_one_that_dies_is_counted_out_and_leaves_nothing(etcd: Cluster, fault_scale: float) -> None:
    with running(etcd, 2) as (one, other):
        wait_until(lambda: len(there(one)) == 2)
        with Stream(other, f"{pair('d', 'j')}/events"):
            wait_until(lambda: len(leases(etcd, b"beat")) == 1 and len(there(one)) == 2)
            (lost,) = leases(etcd, b"beat")
            other.kill()
        if fault_scale < 1:  # what etcd does by itself after 10 s
            etcd.nodes[0].ask("/v3/lease/revoke", {"ID": lost})
        wait_until(lambda: len(there(one)) == 1, LEASE_SECONDS + 10)
        assert leases(etcd, b"beat") == []
        one.stop()


def test_a_lease_that_ended_is_taken_anew(etcd: Cluster) -> None:
    """As after a pause that was longer than the lease; streams go on meanwhile."""
    with running(etcd, 1) as (host,):
        path = pair("paused", "job")
        with Stream(host, f"{path}/events") as stream:
            host.request("PUT", path, {"n": 0})
            since = stream.next().id
            wait_until(lambda: len(there(host)) == 1)
            for lease in leases(etcd):
                etcd.nodes[0].ask("/v3/lease/revoke", {"ID": lease})
            assert there(host) == []
            with Stream(host, f"{path}/events", since=since) as another:
                host.request("PUT", path, {"n": 1})
                assert another.next().data["set"] == stream.next().data["set"] == {"n": 1}
            wait_until(lambda: len(there(host)) == 1)
            assert host.log == ""


def test_an_etcd_that_is_away_is_told_in_the_log_once_and_when_it_is_back() -> None:
    with cluster(1) as one:
        url = one.nodes[0].url
        one.nodes[0].kill()
        host = one.host(BUCKETD_STORE_ETCD_TIMEOUT_SECONDS="0.5").start()
        try:
            wait_until(lambda: f"cannot use etcd ({url}): connection refused" in host.log)
            said = host.request("GET", "/v1/status").json["store"]["problem"]
            assert f"({url}): connection refused" in said
            answer = host.request("GET", pair("d", "j"))
            assert (answer.status, url in answer.json["error"]) == (503, False)
            one.nodes[0].start()
            wait_until(lambda: f"etcd is back ({url})" in host.log)
            assert host.log.count("cannot use etcd") == 1
        finally:
            host.remove()
