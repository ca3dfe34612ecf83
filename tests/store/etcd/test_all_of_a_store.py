"""What else a store has to do, on etcd: history, retention, bounds, export and import."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

from ctl_shell import Shell
from fleet import Cluster, Host, b64, wait_until
from harness import new_daemon, pair

NUMBER = {"fields": [{"name": "n", "type": "number"}]}


@contextlib.contextmanager
def running(etcd: Cluster, prefix: str, count: int = 2, **settings: str) -> Iterator[list[Host]]:
    with contextlib.ExitStack() as stack:
        found = [etcd.host(BUCKETD_STORE_ETCD_PREFIX=prefix, **settings) for _ in range(count)]
        for host in found:
            stack.callback(host.remove)
            host.start()
        yield found


def test_revisions_count_on_and_etags_never_repeat_over_both_hosts(etcd: Cluster) -> None:
    with running(etcd, "/history/") as hosts:
        path, etags, revision = pair("d", "j"), set(), 0
        for number in range(12):
            host = hosts[number % 2]
            if number % 5 == 4:
                assert host.request("DELETE", path).json["revision"] == 0
                revision = 0
                continue
            answer = host.request("PATCH", path, {"n": number})
            revision += 1
            assert answer.json["revision"] == revision
            assert answer.etag not in etags
            etags.add(answer.etag)
            again = hosts[1 - number % 2].request("PATCH", path, {"n": number})
            assert (again.etag, again.json["revision"]) == (answer.etag, revision)
            same = {"If-None-Match": str(answer.etag)}
            assert hosts[1 - number % 2].request("GET", path, headers=same).status == 304


def write_as_of(etcd: Cluster, prefix: str, job: str, updated_at: str) -> None:
    """What was written then, as etcd has it."""
    key = f"{prefix}job/d/{job}"
    value = json.loads(etcd.stored_values(prefix)[key])
    value["updated_at"] = updated_at
    body = {"key": b64(key.encode()), "value": b64(json.dumps(value).encode())}
    etcd.nodes[0].ask("/v3/kv/put", body)


def test_every_host_removes_what_is_old_and_nothing_twice(etcd: Cluster) -> None:
    settings = {"BUCKETD_RETENTION_DAYS": "30", "BUCKETD_RETENTION_INTERVAL_SECONDS": "0.05"}
    with running(etcd, "/old/", **settings) as hosts:
        for job in ("new", "old 1", "old 2"):
            hosts[0].request("PUT", pair("d", job), {"n": 1})
        for job in ("old%201", "old%202"):
            write_as_of(etcd, "/old/", job, "2020-01-01T00:00:00.000Z")
        wait_until(lambda: len(etcd.stored_values("/old/")) == 1)
        assert hosts[1].request("GET", pair("d", "new")).bucket == {"n": 1}
        swept = [host.request("GET", "/v1/status").json["counts"]["swept"] for host in hosts]
        assert sum(swept) == 2


def test_the_bound_of_a_device_counts_what_other_hosts_wrote(etcd: Cluster) -> None:
    with running(etcd, "/bound/", BUCKETD_LIMITS_MAX_DEVICE_BYTES="10000") as (one, other):
        assert one.request("PUT", pair("d", "a"), {"text": "x" * 6000}).status == 200
        refused = other.request("PUT", pair("d", "b"), {"text": "x" * 6000})
        assert (refused.status, refused.json["code"]) == (413, "too_large")
        assert other.request("PUT", pair("d", "b"), {"text": "x" * 3000}).status == 200
        assert other.request("PUT", pair("another", "b"), {"text": "x" * 6000}).status == 200


def test_out_to_files_and_back(etcd: Cluster) -> None:
    names = [("a/b", ".."), ("phone 📱", "login"), ("x" * 128, "é" * 128)]
    files = new_daemon()
    try:
        with running(etcd, "/moved/", 1) as (host,), running(etcd, "/back/", 1) as (back,):
            for number, (device, job) in enumerate(names):
                host.request("PUT", pair(device, job), {"n": number, "none": None})
                host.request("PUT", pair(device), {"n": number})
            first = Shell(host)("export").stdout
            assert Shell(files.start())("import", stdin=first).returncode == 0
            second = Shell(files)("export").stdout
            assert Shell(back)("import", stdin=second).returncode == 0
            found = [buckets_of(text) for text in (first, second, Shell(back)("export").stdout)]
            assert found[0] == found[1] == found[2]
            assert len(found[0]) == 6
    finally:
        files.remove()


def buckets_of(text: str) -> dict[tuple[str, str | None], Any]:
    rows = [json.loads(line) for line in text.splitlines()]
    return {(row["device"], row["job"]): row["bucket"] for row in rows}


def test_each_host_gets_its_turn_under_contention(etcd: Cluster) -> None:
    """Neither starves: of those who compete for one bucket each makes all its changes."""
    with running(etcd, "/turns/") as hosts:
        path, longest = pair("d", "contended"), [0.0, 0.0]

        def work(number: int, name: str) -> None:
            for i in range(25):
                began = time.monotonic()
                answer = hosts[number].request("PATCH", path, {f"{name}{i}": i})
                assert answer.status == 200, answer
                longest[number] = max(longest[number], time.monotonic() - began)

        names = [(n, f"{n}.{t}.") for n in (0, 1) for t in range(4)]
        threads = [threading.Thread(target=work, args=one) for one in names]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        now = hosts[0].request("GET", path)
        assert len(now.bucket) == now.json["revision"] == 8 * 25
        assert max(longest) < 4


def test_a_watch_of_schemas_goes_on_when_its_history_was_compacted(etcd: Cluster) -> None:
    with running(etcd, "/compacted/") as (one, other):
        one.request("PUT", "/v1/schemas/gone", NUMBER)
        wait_until(lambda: automations(other) == {"gone"})
        other.kill()
        one.request("DELETE", "/v1/schemas/gone")
        one.request("PUT", "/v1/schemas/kept", NUMBER)
        revision = etcd.nodes[0].ask("/v3/kv/range", {"key": "YQ=="})["header"]["revision"]
        etcd.nodes[0].ask("/v3/kv/compaction", {"revision": revision})
        other.start()
        wait_until(lambda: automations(other) == {"kept"})
        one.request("PUT", "/v1/schemas/later", NUMBER)
        wait_until(lambda: automations(other) == {"kept", "later"})


def automations(host: Host) -> set[str]:
    return {row["automation"] for row in host.request("GET", "/v1/schemas").json["schemas"]}


def test_a_bucket_over_etcds_limit_is_refused_and_leaves_the_old_one(etcd: Cluster) -> None:
    with running(etcd, "/large/", 1, BUCKETD_LIMITS_MAX_BUCKET_BYTES="4000000") as (host,):
        path = pair("d", "large")
        host.request("PUT", path, {"n": 1})
        answer = host.request("PUT", path, {"text": "x" * 1_700_000})
        assert (answer.status, answer.json["code"]) == (413, "too_large")
        assert "etcd's limit for one request" in answer.json["error"]
        assert host.request("GET", path).bucket == {"n": 1}
