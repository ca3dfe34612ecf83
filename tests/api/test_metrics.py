"""GET /metrics: what was done shows in figures; alerts and dashboard use what is there."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from typing import Any

import pytest
from harness import REPO, Daemon, pair
from prometheus_client.parser import text_string_to_metric_families

MONITORING = REPO / "config" / "monitoring"
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scrape(daemon: Daemon, **headers: str) -> Samples:
    answer = daemon.request("GET", "/metrics", headers=headers)
    assert answer.status == 200, answer
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.body.decode())
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples.get((name, frozenset(labels.items())), 0.0)


def test_requests_are_counted_by_route_method_and_status(daemon: Daemon) -> None:
    """Those that aiohttp parses, repeated ones on a kept connection, and refused ones."""
    bucket = pair("d", "j")
    with daemon.connect() as sock:
        for n in range(5):
            daemon.request("PATCH", bucket, {"n": n}, sock=sock)
            daemon.request("GET", bucket, sock=sock)
    daemon.request("PATCH", bucket, b"[]")
    daemon.request("GET", "/nowhere")
    daemon.raw(b"nonsense\r\n\r\n")
    now = scrape(daemon)
    route = "/v1/devices/{device}/jobs/{job}/bucket"
    requests = "bucketd_requests_total"
    assert value(now, requests, route=route, method="GET", status="200") == 5
    assert value(now, requests, route=route, method="PATCH", status="200") == 5
    assert value(now, requests, route=route, method="PATCH", status="400") == 1
    assert value(now, requests, route="none", method="none", status="404") == 1
    assert value(now, requests, route="none", method="none", status="400") == 1
    seconds = "bucketd_request_seconds"
    assert value(now, f"{seconds}_count", route=route, method="PATCH") == 6
    assert 0 < value(now, f"{seconds}_sum", route=route, method="PATCH") < 60
    assert value(now, f"{seconds}_bucket", route=route, method="PATCH", le="+Inf") == 6


def test_names_of_clients_are_no_labels(daemon: Daemon) -> None:
    for n in range(20):
        daemon.request("PUT", pair(f"phone-{n}", f"job-{n}"), {"n": n})
        daemon.request("GET", f"/path-{n}")
        daemon.request(f"VERB{n}", "/v1/status")
    text = daemon.request("GET", "/metrics").body.decode()
    assert not re.search(r"phone-|job-|path-|VERB", text)


@pytest.mark.files
def test_the_store_tells_its_figures(daemon: Daemon) -> None:
    bucket = pair("d", "j")
    for n in range(10):
        daemon.request("PUT", bucket, {"n": n})
        daemon.request("GET", bucket)
    daemon.mint("d", "j")
    now = scrape(daemon)
    assert value(now, "bucketd_commits_total") == 10
    for name in ("bucketd_commit_seconds", "bucketd_fsync_seconds", "bucketd_commit_batch_size"):
        assert value(now, f"{name}_count") >= 10, name
        assert value(now, f"{name}_bucket", le="+Inf") == value(now, f"{name}_count")
    assert value(now, "bucketd_commit_batch_size_sum") == 10
    assert value(now, "bucketd_journal_bytes_total") > 1000
    assert value(now, "bucketd_file_writes_total") >= 1
    assert value(now, "bucketd_contexts") == 1
    assert value(now, "bucketd_buckets") == 1
    assert value(now, "bucketd_store_healthy") == 1
    assert value(now, "bucketd_quarantined_files") == 0


@pytest.mark.files
def test_the_cache_counts_what_it_answers(daemon: Daemon) -> None:
    bucket = pair("d", "j")
    daemon.request("PUT", bucket, {"n": 1})
    daemon.restart()
    for _ in range(4):
        daemon.request("GET", bucket)
    now = scrape(daemon)
    assert value(now, "bucketd_cache_misses_total") == 1
    assert value(now, "bucketd_cache_hits_total") == 3


@pytest.mark.files
def test_what_is_in_quarantine_is_counted(daemon: Daemon) -> None:
    bucket = pair("d", "j")
    daemon.request("PUT", bucket, {"n": 1})
    assert daemon.stop() == 0
    (daemon.state_dir / "devices" / "d" / "jobs" / "j.json").write_bytes(b"{")
    daemon.start()
    daemon.request("PUT", bucket, {"n": 2})
    assert value(scrape(daemon), "bucketd_quarantined_files") == 1


@pytest.mark.parametrize("accept", ["text/plain", "application/openmetrics-text", "*/*;q=0.1"])
def test_whatever_a_scraper_accepts(shared_daemon: Daemon, accept: str) -> None:
    assert scrape(shared_daemon, Accept=accept)


def test_a_start_does_not_pay_for_it() -> None:
    program = (
        "import sys, bucketd.__main__, bucketd.daemon; print('prometheus_client' in sys.modules)"
    )
    outcome = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert outcome.stdout.strip() == "False", outcome


def expressions() -> list[str]:
    rules = (MONITORING / "alerts.yml").read_text()
    document: Any = json.loads((MONITORING / "grafana.json").read_text())
    shown = [target["expr"] for panel in document["panels"] for target in panel["targets"]]
    return [rules, *shown]


@pytest.mark.files
def test_alerts_and_dashboard_use_metrics_that_are_there(daemon: Daemon) -> None:
    daemon.request("PUT", pair("d", "j"), {"n": 1})
    daemon.request("PUT", "/v1/backup", {"buckets": 1, "schemas": 0, "bytes": 9})
    there = {name for name, _ in scrape(daemon)}
    for text in expressions():
        for name in re.findall(r"\bbucketd_[a-z_]+", text):
            assert name in there, name


def test_each_metric_stands_on_the_dashboard(daemon: Daemon) -> None:
    daemon.request("PUT", pair("d", "j"), {"n": 1})
    shown = " ".join(expressions())
    unused = {"bucketd_info", "bucketd_schemas", "bucketd_cached_buckets", "bucketd_replayed_files"}
    for name, _ in scrape(daemon):
        base = re.sub(r"_(bucket|sum|count|total)$", "", name)
        assert base in unused or base in shown, name


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_takes_the_alerts() -> None:
    subprocess.run(["promtool", "check", "rules", str(MONITORING / "alerts.yml")], check=True)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_takes_the_metrics(daemon: Daemon) -> None:
    daemon.request("PUT", pair("d", "j"), {"n": 1})
    text = daemon.request("GET", "/metrics").body
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@pytest.mark.files
def test_devices_are_counted_that_have_something(daemon: Daemon) -> None:
    daemon.request("PUT", pair("empty", "job"), {"n": 1})
    daemon.request("PUT", pair("full"), {"n": 1})
    daemon.request("DELETE", pair("empty", "job"))
    counts = daemon.request("GET", "/v1/status").json["counts"]
    assert (counts["devices"], counts["buckets"], counts["device_buckets"]) == (1, 0, 1)
