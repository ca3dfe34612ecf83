"""The log: its forms, what operators change, request ids, slow requests; settings in force."""

from __future__ import annotations

import json
import os
import pwd
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from harness import REPO, Daemon, pair
from sse import Stream

LOGGING = """
import logging, os, sys
from bucketd import logs
from bucketd.settings.sections import Log
format, stream, logs.JOURNAL_SOCKET = sys.argv[1:]
status = os.fstat(2)
read = f"{status.st_dev}:{status.st_ino}" if stream == "journal" else "1:1"
logs.configure(Log(format=format), {"JOURNAL_STREAM": read})
logging.getLogger("x").debug("unseen")
try:
    raise ValueError("two\\nlines")
except ValueError:
    logging.getLogger("x").exception("failed: %s", "\u00e4")
about = {"fields": {"device": "phone-1", "job": "log\\nin"}}
logging.getLogger("x").warning("careful", extra=about)
"""


def lines(kind: str, stream: str, journal: str = "/nowhere") -> list[str]:
    command = [sys.executable, "-c", LOGGING, kind, stream, journal]
    outcome = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=True)
    return outcome.stderr.splitlines()


@pytest.mark.parametrize(("stream", "prefix"), [("journal", "<{}>"), ("terminal", "")])
def test_one_json_object_a_line_if_asked_for(stream: str, prefix: str) -> None:
    """Behind its priority where journald reads it."""
    failed, careful = lines("json", stream)
    assert failed.startswith(prefix.format(3) + "{")
    said = json.loads(failed.removeprefix(prefix.format(3)))
    assert (said["level"], said["logger"], said["message"]) == ("error", "x", "failed: \u00e4")
    assert said["traceback"].startswith("Traceback")
    said = json.loads(careful.removeprefix(prefix.format(4)))
    assert (said["message"], said["device"], said["job"]) == ("careful", "phone-1", "log\nin")


@pytest.mark.parametrize(("kind", "stream"), [("auto", "terminal"), ("text", "terminal")])
def test_words_for_people(kind: str, stream: str) -> None:
    first, *rest = lines(kind, stream)
    assert re.fullmatch(r"[-\d]+ [\d:,]+ ERROR x: failed: \u00e4", first)
    assert rest[-1].endswith("WARNING x: careful")


@pytest.mark.parametrize("kind", ["text", "auto"])
def test_words_for_journald_behind_their_priority(kind: str) -> None:
    """Also where its own socket does not answer, as there is none at /nowhere."""
    first, *rest = lines(kind, "journal")
    assert first == "<3>failed: \u00e4"
    assert [line for line in rest[:-1] if not line.startswith("<3>")] == []
    assert rest[-1] == "<4>careful"


def entry(datagram: bytes) -> dict[str, str]:
    """The fields of an entry, by systemd's description of its protocol."""
    fields = {}
    while datagram:
        name, equals, _ = datagram.partition(b"\n")[0].partition(b"=")
        if equals:
            value, _, datagram = datagram.partition(b"=")[2].partition(b"\n")
        else:
            datagram = datagram[len(name) + 1 :]
            size = int.from_bytes(datagram[:8], "little")
            value, datagram = datagram[8 : 8 + size], datagram[8 + size :]
            assert datagram[:1] == b"\n"
            datagram = datagram[1:]
        fields[name.decode()] = value.decode()
    return fields


def test_entries_of_journald_have_fields(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journald:
        journald.bind(str(tmp_path / "journal"))
        assert lines("auto", "journal", str(tmp_path / "journal")) == []
        failed, careful = (entry(journald.recv(65536)) for _ in range(2))
    text = failed.pop("MESSAGE")
    assert text.startswith("failed: \u00e4\nTraceback")
    assert text.endswith("ValueError: two\nlines")
    common = {"SYSLOG_IDENTIFIER": "bucketd", "LOGGER": "x"}
    assert failed == {**common, "PRIORITY": "3"}
    about = {"DEVICE": "phone-1", "JOB": "log\nin"}
    assert careful == {**common, **about, "MESSAGE": "careful", "PRIORITY": "4"}


# --- what operators change


def changes(daemon: Daemon) -> list[dict[str, str]]:
    """The lines about changes by operators, as JSON."""
    told = [json.loads(line) for line in daemon.log.splitlines() if line.startswith("{")]
    return [line for line in told if line["logger"] == "bucketd.api.audit"]


@pytest.fixture
def audited(stopped_daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> Daemon:
    stopped_daemon.config.write_text('[log]\nlevel = "info"\nformat = "json"\n')
    words = stopped_daemon.options()
    level = words.index("--log-level")
    monkeypatch.setattr(stopped_daemon, "options", lambda: words[:level] + words[level + 2 :])
    return stopped_daemon.start()


def test_what_an_operator_changes_is_one_line_without_values(audited: Daemon) -> None:
    headers = {"User-Agent": "bucketctl/0.1.0 (set)\u202e"}
    audited.request("PATCH", pair("phone/1", "j"), {"key": "SECRET"}, {"User-Agent": "x" * 500})
    audited.request("PATCH", pair("phone/1", "j"), {"key": "SECRET"}, headers)
    audited.request("DELETE", pair("phone/1", "j") + "?key=key")
    first, second, third = changes(audited)
    assert first["operator_command"] == "x" * 80
    user = pwd.getpwuid(os.geteuid()).pw_name
    who = f"{user}, uid {os.geteuid()} (pid {os.getpid()}, bucketctl/0.1.0 (set)?)"
    assert second["message"] == (f"{who}: PATCH /v1/devices/phone%2F1/jobs/j/bucket, revision 1")
    assert second["device"] == "phone/1"
    assert second["job"] == "j"
    assert second["revision"] == "1"
    assert second["operator_uid"] == str(os.geteuid())
    assert second["operator_pid"] == str(os.getpid())
    # Without User-Agent the kernel's name of the process.
    assert third["operator_command"] == Path("/proc/self/comm").read_text().strip()
    assert third["message"].endswith(
        "DELETE /v1/devices/phone%2F1/jobs/j/bucket?key=key, revision 2"
    )
    assert "SECRET" not in audited.log


LARGE = {"text": "x" * 300_000}
PATCH_JSON = {"Content-Type": "application/json-patch+json"}


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "device"),
    [
        ("PUT", pair("d", "large"), LARGE, {}, "d"),
        ("PATCH", pair("d", "j"), [{"op": "add", "path": "/a", "value": 1}], PATCH_JSON, "d"),
        ("PUT", "/v1/devices/d/bucket", {"a": 1}, {"Prefer": "return=minimal"}, "d"),
        ("PATCH", "/v1/devices/d/bucket?mask=secrets", {"a": 1}, {}, "d"),
        ("POST", "/v1/contexts", {"device": "d", "job": "j"}, {}, "d"),
        ("PUT", "/v1/schemas/a", {"type": "object"}, {}, None),
    ],
)
def test_every_way_of_a_change_is_told(
    audited: Daemon, method: str, path: str, body: Any, headers: dict[str, str], device: str | None
) -> None:
    """Now or later, on the event loop or off it, of a bucket or of something else."""
    assert audited.request(method, path, body, headers).status < 300
    (told,) = changes(audited)
    assert f": {method} {path}" in told["message"]
    assert told.get("device") == device
    assert told.get("revision") == ("1" if path.partition("?")[0].endswith("/bucket") else None)


def test_what_changes_nothing_or_is_no_operators_is_not_told(audited: Daemon) -> None:
    token = audited.mint("d", "j")
    assert len(changes(audited)) == 1
    assert audited.request("PATCH", "/v1/bucket", {"a": 1}, token=token).status == 200
    assert audited.request("GET", pair("d", "j")).status == 200
    refused = audited.request("PATCH", pair("d", "j"), {"a": 2}, {"If-Match": '"other"'})
    assert refused.status == 412
    schema = {"type": "object"}
    assert audited.request("PUT", "/v1/schemas/a?dry_run=true", schema).status == 200
    checked = audited.request("POST", "/v1/schemas/a/check", {"bucket": {}, "schema": schema})
    assert checked.status == 200
    assert len(changes(audited)) == 1


def test_bucketctl_says_which_command_it_is(audited: Daemon) -> None:
    program = Path(sys.executable).with_name("bucketctl")
    environ = {**os.environ, "BUCKETD_SOCKET": audited.socket}
    for words in (["set", "n=1"], ["api", "DELETE", pair("d", "j")]):
        where = ["--device", "d", "--job", "j"] if words[0] == "set" else []
        subprocess.run([program, *words, *where], env=environ, check=True, capture_output=True)
    commands = [line["operator_command"].partition("/")[::2] for line in changes(audited)]
    assert [name for name, _ in commands] == ["bucketctl", "bucketctl"]
    assert [rest.partition(" ")[2] for _, rest in commands] == ["(set)", "(api)"]


def test_the_format_changes_with_a_reload(audited: Daemon) -> None:
    reload(audited, '[log]\nlevel = "info"\nformat = "text"\n')
    audited.request("PUT", pair("d", "j"), {"n": 1})
    assert changes(audited) == []
    assert "INFO bucketd.api.audit: " in audited.log.splitlines()[-1]


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
