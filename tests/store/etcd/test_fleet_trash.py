"""The trash of a fleet: one for all hosts, under leases, and never in a deletion's way."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from fleet import Cluster, Host, b64, cluster, wait_until
from harness import pair

PATH = pair("phone", "login")


@pytest.fixture(scope="module")
def one() -> Iterator[Cluster]:
    with cluster(1) as found:
        yield found


@pytest.fixture
def hosts(one: Cluster, request: pytest.FixtureRequest) -> Iterator[list[Host]]:
    hosts = [one.host(), one.host()]
    try:
        for host in hosts:
            host.env["BUCKETD_STORE_ETCD_PREFIX"] = f"/{request.node.name}/"
            host.start()
        yield hosts
    finally:
        for host in hosts:
            host.remove()


def listed(host: Host) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = host.request("GET", "/v1/trash").json["trash"]
    return rows


def keys_in_trash(one: Cluster, host: Host) -> list[dict[str, Any]]:
    begin = f"{host.prefix}trash/"
    request = {"key": b64(begin.encode()), "range_end": b64(f"{begin}~".encode())}
    found: list[dict[str, Any]] = one.nodes[0].ask("/v3/kv/range", request).get("kvs", [])
    return found


def deleted(host: Host, **bucket: Any) -> str:
    host.request("PUT", PATH, bucket)
    trash_id: str = host.request("DELETE", PATH).json["trash"]
    return trash_id


def test_what_one_host_deletes_another_restores(hosts: list[Host]) -> None:
    first, second = hosts
    trash_id = deleted(first, n=1)
    assert [row["id"] for row in listed(second)] == [trash_id]
    back = second.request("POST", f"/v1/trash/{trash_id}/restore")
    assert (back.bucket, back.json["revision"]) == ({"n": 1}, 2)
    assert first.request("GET", PATH).etag == back.etag
    assert listed(first) == listed(second) == []


def test_two_hosts_restore_it_once(hosts: list[Host]) -> None:
    for number in range(5):
        trash_id = deleted(hosts[0], n=number)
        path = f"/v1/trash/{trash_id}/restore"
        with ThreadPoolExecutor(8) as pool:
            tries = [pool.submit(hosts[n % 2].request, "POST", path) for n in range(8)]
        answers = [one.result().status for one in tries]
        assert answers.count(200) == 1, answers
        assert set(answers) <= {200, 404, 409}
        assert listed(hosts[0]) == []


def test_two_hosts_delete_it_once(hosts: list[Host]) -> None:
    for number in range(5):
        hosts[0].request("PUT", PATH, {"n": number})
        with ThreadPoolExecutor(8) as pool:
            tries = [pool.submit(hosts[n % 2].request, "DELETE", PATH) for n in range(8)]
        answers = [one.result() for one in tries]
        assert {answer.status for answer in answers} == {200}
        assert sum("trash" in answer.json for answer in answers) == 1
        assert len(listed(hosts[0])) == number + 1


def test_a_key_hangs_on_a_lease_of_so_many_days(one: Cluster, hosts: list[Host]) -> None:
    deleted(hosts[0], n=1)
    deleted(hosts[0], n=2)
    leases = {kv["lease"] for kv in keys_in_trash(one, hosts[0])}
    assert len(leases) == 1
    asked = one.nodes[0].ask("/v3/lease/timetolive", {"ID": leases.pop()})
    days = 30 * 86400
    assert days <= int(asked["grantedTTL"]) <= days + 3600


def test_etcd_ends_it(one: Cluster) -> None:
    host = one.host()
    host.env |= {"BUCKETD_STORE_ETCD_PREFIX": "/short/", "BUCKETD_TRASH_DAYS": str(3 / 86400)}
    try:
        host.start()
        trash_id = deleted(host, n=1)
        assert [row["id"] for row in listed(host)] == [trash_id]
        wait_until(lambda: listed(host) == [], 30)
        assert host.request("POST", f"/v1/trash/{trash_id}/restore").status == 404
    finally:
        host.remove()


def test_a_revoked_lease_is_replaced(one: Cluster, hosts: list[Host]) -> None:
    deleted(hosts[0], n=1)
    (kv,) = keys_in_trash(one, hosts[0])
    one.nodes[0].ask("/v3/lease/revoke", {"ID": kv["lease"]})
    assert listed(hosts[0]) == []
    trash_id = deleted(hosts[0], n=2)
    assert [row["id"] for row in listed(hosts[1])] == [trash_id]


def test_what_is_no_bucket_is_told_and_harms_nothing(one: Cluster, hosts: list[Host]) -> None:
    trash_id = deleted(hosts[0], n=1)
    for name, value in (("x", b"{}"), (trash_id[:-4] + "ffff", b"not JSON")):
        key = f"{hosts[0].prefix}trash/{name}".encode()
        one.nodes[0].ask("/v3/kv/put", {"key": b64(key), "value": b64(value)})
    answer = hosts[0].request("GET", "/v1/trash").json
    assert [row["id"] for row in answer["trash"]] == [trash_id]
    assert len(answer["unreadable"]) == 2
    refused = hosts[0].request("POST", f"/v1/trash/{trash_id[:-4]}ffff/restore")
    assert refused.json["code"] == "bucket_corrupt"


def test_values_are_where_the_prefix_says(one: Cluster, hosts: list[Host]) -> None:
    trash_id = deleted(hosts[0], n=1)
    (kv,) = keys_in_trash(one, hosts[0])
    assert base64.b64decode(kv["key"]).decode() == f"{hosts[0].prefix}trash/{trash_id}"
    value = json.loads(base64.b64decode(kv["value"]))
    assert (value["device"], value["job"], value["bucket"]) == ("phone", "login", {"n": 1})
    assert value["by"]["user"]


def test_a_cluster_at_its_space_limit_still_deletes() -> None:
    with cluster(1, "--quota-backend-bytes", "2000000") as small:
        host = small.host()
        try:
            host.start()
            host.request("PUT", PATH, {"n": 1})
            for number in range(200):
                answer = host.request("PUT", pair("filler", str(number)), {"p": "x" * 60_000})
                if answer.status == 507:
                    break
            else:
                raise AssertionError("the cluster was never full")
            gone = host.request("DELETE", PATH)
            assert (gone.status, gone.bucket) == (200, {})
            assert "trash" not in gone.json
            assert host.request("GET", PATH).json["revision"] == 0
            assert listed(host) == []
            assert host.log.count("deleted for good") == 1
        finally:
            host.remove()


def test_without_a_majority_nothing_is_deleted() -> None:
    with cluster(1) as alone:
        host = alone.host(BUCKETD_STORE_ETCD_TIMEOUT_SECONDS="1")
        try:
            host.start()
            host.request("PUT", PATH, {"n": 1})
            alone.nodes[0].kill()
            answer = host.request("DELETE", PATH)
            assert answer.status == 503
            alone.nodes[0].start()
            alone.wait()
            time.sleep(0.5)
            assert host.request("GET", PATH).bucket == {"n": 1}
            assert host.request("DELETE", PATH).json["trash"]
        finally:
            host.remove()


def test_shards_have_one_trash() -> None:
    with cluster(1) as a, cluster(1) as b:
        host = a.host()
        del host.env["BUCKETD_STORE_ETCD_ENDPOINTS"]
        host.env["BUCKETD_STORE_ETCD_SHARDS"] = f"a={a.endpoints},b={b.endpoints}"
        try:
            host.start()
            ids = []
            for number in range(10):
                path = pair(f"device-{number}", "j")
                host.request("PUT", path, {"n": number})
                ids.append(host.request("DELETE", path).json["trash"])
            found, cursor = [], ""
            while cursor is not None:
                query = f"?limit=3{f'&cursor={cursor}' if cursor else ''}"
                page = host.request("GET", f"/v1/trash{query}").json
                found += [row["id"] for row in page["trash"]]
                cursor = page["next_cursor"]
            assert found == ids[::-1]
            for number, trash_id in enumerate(ids[:5]):
                back = host.request("POST", f"/v1/trash/{trash_id}/restore")
                assert back.bucket == {"n": number}
            for trash_id in ids[5:]:
                assert host.request("DELETE", f"/v1/trash/{trash_id}").status == 200
            assert listed(host) == []
        finally:
            host.remove()
