"""The log: its two forms, request ids, slow requests, a level that changes; settings in force."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from harness import REPO, Daemon, pair
from sse import Stream

JOURNAL = """
import logging, os, sys
from bucketd import logs
status = os.fstat(2)
stream = f"{status.st_dev}:{status.st_ino}" if sys.argv[1] == "journal" else "1:1"
logs.to_stderr("info", {"JOURNAL_STREAM": stream})
logging.getLogger("x").debug("unseen")
try:
    raise ValueError("two\\nlines")
except ValueError:
    logging.getLogger("x").exception("failed: %s", "\u00e4")
logging.getLogger("x").warning("careful")
"""


def lines(kind: str) -> list[str]:
    command = [sys.executable, "-c", JOURNAL, kind]
    outcome = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=True)
    return outcome.stderr.splitlines()


def test_one_json_object_a_line_for_journald() -> None:
    failed, careful = lines("journal")
    assert (failed[:3], careful[:3]) == ("<3>", "<4>")
    said = json.loads(failed[3:])
    assert (said["level"], said["logger"], said["message"]) == ("error", "x", "failed: \u00e4")
    assert said["traceback"].startswith("Traceback")
    assert json.loads(careful[3:])["message"] == "careful"


def test_words_for_people() -> None:
    first, *rest = lines("terminal")
    assert re.fullmatch(r"[-\d]+ [\d:,]+ ERROR x: failed: \u00e4", first)
    assert rest[-1].endswith("WARNING x: careful")


def test_a_failure_is_one_line_with_the_id_of_its_answer(daemon: Daemon) -> None:
    path = daemon.bucket_path("d", "j")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"{")
    answer = daemon.request("GET", pair("d", "j"))
    assert answer.json["code"] == "bucket_corrupt"
    found = [line for line in daemon.log.splitlines() if answer.headers["x-request-id"] in line]
    assert len(found) == 1
    assert "bucket_corrupt" in found[0]


def test_errors_of_clients_are_for_debugging(daemon: Daemon) -> None:
    one, two = (daemon.request("GET", "/nowhere").headers["x-request-id"] for _ in range(2))
    assert one != two
    assert one not in daemon.log
    assert "x-request-id" not in daemon.request("GET", "/healthz").headers


def reload(daemon: Daemon, text: str) -> None:
    daemon.config.write_text(text)
    os.kill(daemon.pid, signal.SIGHUP)
    time.sleep(0.5)


@pytest.fixture
def configured(stopped_daemon: Daemon) -> Daemon:
    stopped_daemon.env["BUCKETD_LIMITS_MAX_CONNECTIONS"] = "99"
    stopped_daemon.config.write_text("[log]\nslow_request_seconds = 0.000001\n")
    return stopped_daemon.start()


@pytest.fixture
def by_its_file(stopped_daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> Daemon:
    """One whose level no flag decides."""
    stopped_daemon.config.write_text('[log]\nlevel = "info"\n')
    words = stopped_daemon.options()
    level = words.index("--log-level")
    monkeypatch.setattr(stopped_daemon, "options", lambda: words[:level] + words[level + 2 :])
    return stopped_daemon.start()


def test_the_level_changes_with_a_reload(by_its_file: Daemon) -> None:
    quiet = by_its_file.request("GET", "/nowhere").headers["x-request-id"]
    reload(by_its_file, '[log]\nlevel = "debug"\n')
    told = by_its_file.request("GET", "/nowhere").headers["x-request-id"]
    assert f"request {told}: not_found" in by_its_file.log
    assert quiet not in by_its_file.log


def test_edits_by_hand_are_no_lines(by_its_file: Daemon) -> None:
    by_its_file.request("PUT", pair("d", "j"), {"n": 1})
    by_its_file.request("GET", "/v1/status")
    path = by_its_file.bucket_path("d", "j")
    with Stream(by_its_file, "/v1/events") as stream:
        for n in (2, 3):  # the first may be found when the watch of files begins
            change = ["sed", "-i", f's/"n": {n - 1}/"n": {n}/', str(path)]
            subprocess.run(
                ["flock", str(by_its_file.state_dir / "write.lock"), *change], check=True
            )
            assert stream.next().data["set"] == {"n": n}
    assert "serving" in by_its_file.log
    assert "watchfiles" not in by_its_file.log


def test_slow_requests_are_logged_until_they_are_not(configured: Daemon) -> None:
    configured.request("GET", pair("secret", "j"))
    # The next request of the same connection or another is handled after that line.
    configured.request("GET", "/healthz")
    slow = [line for line in configured.log.splitlines() if " slow: GET /v1/devices/" in line]
    assert slow
    assert "secret" not in slow[0]
    reload(configured, "[log]\nslow_request_seconds = 60\n")
    before = configured.log.count(" slow: ")
    configured.request("GET", pair("d", "j"))
    assert configured.log.count(" slow: ") == before


def test_the_settings_in_force_and_where_they_came_from(configured: Daemon) -> None:
    reload(configured, "[limits]\nmax_bucket_bytes = 5000\n[store]\ncache_bytes = 5\n")
    settings = configured.request("GET", "/v1/status").json["settings"]
    assert settings["limits.max_bucket_bytes"] == {"value": 5000, "origin": str(configured.config)}
    assert settings["limits.max_connections"] == {
        "value": 99,
        "origin": "environment, BUCKETD_LIMITS_MAX_CONNECTIONS",
    }
    assert settings["paths.state_dir"]["origin"] == "command line"
    assert settings["log.slow_request_seconds"] == {"value": 1.0, "origin": "default"}
    assert settings["store.cache_bytes"]["origin"] == "default"  # until the next start


def test_bucketctl_shows_them(configured: Daemon) -> None:
    program = Path(sys.executable).with_name("bucketctl")
    environ = {**os.environ, "BUCKETD_SOCKET": configured.socket}
    outcome = subprocess.run([program, "status", "--settings"], env=environ, capture_output=True)
    assert json.loads(outcome.stdout)["limits.max_connections"]["value"] == 99
