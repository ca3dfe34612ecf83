"""bucketctl export and import, and patterns in filters: from one daemon to another."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import socket
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bucketd_client.ctl import bucket_paths as ours
from ctl_shell import CTL, Shell
from fake import Seen, answer, fake
from harness import Daemon, new_daemon, pair

from bucketd.store.file import paths as theirs

NAMES = ["..", "a/b", "🎉 x", ".hidden.", "é" * 60, "x" * 128, "%" * 100, "~", "a.b", "A_-9"]
BUCKETS: dict[tuple[str, str | None], dict[str, Any]] = {
    ("phone-1", None): {"shared": [1, None]},
    ("phone-1", "login"): {"token": "sécret 😀", "n": 2**63, "f": 1e-7},
    ("phone-1", "a/b"): {},
    ("phone-2", "login"): {"": {"__proto__": 1}},
    ("tablet [1]", "logout"): {"n": -0.0},
}


@pytest.fixture
def full(daemon: Daemon) -> Shell:
    for (device, job), bucket in BUCKETS.items():
        path = pair(device, job) if job is not None else pair(device)
        assert daemon.request("PUT", path, bucket).status == 200
    return Shell(daemon)


@pytest.fixture
def empty() -> Iterator[Shell]:
    daemon = new_daemon()
    try:
        yield Shell(daemon.start())
    finally:
        daemon.remove()


def lines(text: str) -> dict[tuple[str, str | None], Any]:
    found = [json.loads(line) for line in text.splitlines()]
    return {(row["device"], row["job"]): row["bucket"] for row in found}


def test_an_export_is_one_envelope_a_line(full: Shell) -> None:
    done = full("export")
    assert (done.returncode, done.stderr) == (0, "")
    assert lines(done.stdout) == BUCKETS
    first = json.loads(done.stdout.splitlines()[0])
    members = "format device job automation revision created_at updated_at bucket"
    assert list(first) == members.split()
    assert (first["format"], first["revision"]) == ("bucketd/1", 1)


def test_an_export_disturbs_no_terminal_and_changes_nothing_elsewhere(empty: Shell) -> None:
    text = "\x9b31m \u202e \x7f ümläut 😀"
    empty.json("set", "--device", "d", "--job", "j", "--data", "-", stdin=json.dumps({"k": text}))
    seen = empty.on_terminal("export", env={"TERM": "dumb"})  # without a progress bar
    assert lines(seen) == {("d", "j"): {"k": text}}
    assert not set(seen) & set("\x9b\u202e\x7f")
    assert "ümläut 😀" in seen
    assert text in empty("export").stdout


@pytest.mark.parametrize("counts", [{}, {"counts": {}}, {"counts": {"buckets": None}}])
def test_a_daemon_that_has_not_counted_is_exported(empty: Shell, counts: dict[str, Any]) -> None:
    pages = {"/v1/status": counts, "/v1/export": {"envelopes": [], "next_cursor": None}}

    def script(connection: socket.socket, seen: Seen, _number: int) -> bool:
        answer(connection, 200, {"success": True, **pages[seen.target.partition("?")[0]]})
        return True

    with fake(script) as server:
        done = empty("export", "--socket", server.path)
    assert (done.returncode, done.stderr) == (0, "")


def test_import_is_idempotent(full: Shell, empty: Shell, tmp_path: Path) -> None:
    file = tmp_path / "all.ndjson"
    assert full.json("export", "--output", str(file)) == {"exported": 5, "left_out": 0}
    assert file.stat().st_mode & 0o777 == 0o600
    outcome = {"created": 5, "changed": 0, "unchanged": 0, "refused": 0}
    assert empty.json("import", str(file)) == outcome
    assert lines(empty("export").stdout) == BUCKETS
    etag = empty.json("get", "--device", "phone-2", "--job", "login", "--json")["etag"]
    empty.json("set", "--device", "phone-1", "--job", "login", "n=changed", "more=1")
    outcome.update(created=0, changed=1, unchanged=4)
    assert empty.json("import", "-", stdin=file.read_text()) == outcome
    assert lines(empty("export").stdout) == BUCKETS
    assert empty.json("get", "--device", "phone-2", "--job", "login", "--json")["etag"] == etag


def test_import_dry_run_tells_places_but_no_values(full: Shell, empty: Shell) -> None:
    text = full("export", "--device", "phone-1").stdout
    empty.json("set", "--device", "phone-1", "--job", "login", "token=old")
    done = empty("import", "--dry-run", stdin=text)
    *rows, counts = map(json.loads, done.stdout.splitlines())
    assert counts == {"created": 2, "changed": 1, "unchanged": 0, "refused": 0}
    login = {"device": "phone-1", "job": "login", "change": "changed"}
    assert {**login, "places": ["/token", "/n", "/f"]} in rows
    assert "cret" not in done.stdout
    assert lines(empty("export").stdout) == {("phone-1", "login"): {"token": "old"}}


def test_a_tar_has_the_files_and_comes_back(full: Shell, empty: Shell, tmp_path: Path) -> None:
    full.json("list")  # which waits for the files
    tar = subprocess.run(
        [*CTL, "export", "--format", "tar"], env=full.environ, capture_output=True, check=True
    ).stdout
    with tarfile.open(fileobj=io.BytesIO(tar)) as opened:
        assert {m.mode for m in opened.getmembers()} == {0o600}
        names = opened.getnames()
        told = [json.load(opened.extractfile(n) or io.BytesIO()) for n in names]
    files = sorted(full.daemon.state_dir.glob("devices/**/*.json"))
    assert sorted(names) == [str(f.relative_to(full.daemon.state_dir)) for f in files]
    stored = [json.loads((full.daemon.state_dir / n).read_text()) for n in names]
    assert told == [{k: v for k, v in file.items() if k != "seal"} for file in stored]
    path = tmp_path / "all.tar"
    path.write_bytes(tar)
    assert empty.json("import", str(path))["created"] == 5
    assert lines(empty("export").stdout) == BUCKETS
    # The operator's own tar of the state directory will do as well.
    own = tmp_path / "own.tar"
    subprocess.run(["tar", "-C", full.daemon.state_dir, "-cf", own, "."], check=True)
    assert empty.json("import", str(own))["unchanged"] == 5


@pytest.mark.parametrize("name", NAMES)
def test_names_of_files_are_the_daemons(name: str) -> None:
    assert ours.encode(name) == theirs.encode(name)


def test_import_goes_on_after_what_is_refused(empty: Shell) -> None:
    schema = {"fields": [{"name": "n", "type": "number", "max": 9}]}
    empty("schema", "set", "strict", "-", stdin=json.dumps(schema))
    strict = {"device": "d", "job": "bad", "automation": "strict", "bucket": {"n": 10}}
    good = {"device": "d", "job": "good", "bucket": {"n": 10}}
    done = empty("import", stdin="\n".join(map(json.dumps, (strict, good))) + "\n")
    assert done.returncode == 5
    assert "line 1 (d, bad)" in done.stderr
    assert json.loads(done.stdout)["refused"] == 1
    broken = empty("import", stdin='{"format": "other"}\n\nnonsense\n{"device": 1}\n')
    assert broken.returncode == 2
    for said in ("line 1", "line 3", "line 4"):
        assert said in broken.stderr
    assert lines(empty("export").stdout) == {("d", "good"): {"n": 10}}


def test_import_without_a_daemon_is_status_4(full: Shell) -> None:
    text = full("export").stdout
    done = full("import", "--socket", "/nope/b.sock", "--timeout", "0.1", stdin=text)
    assert (done.returncode, done.stdout) == (4, "")


def test_a_bucket_that_cannot_be_read_is_named_and_left_out(full: Shell) -> None:
    full.json("list")
    full.daemon.stop()
    # The journal has the one, and nobody has the other.
    for job in ("login", "unknown"):
        full.daemon.bucket_path("phone-2", job).write_text("garbage")
    full.daemon.start()
    done = full("export")
    assert done.returncode == 1
    assert "devices/phone-2/jobs/unknown.json" in done.stderr
    assert "login.json" not in done.stderr
    assert set(lines(done.stdout)) == set(BUCKETS)


@pytest.mark.files
def test_an_import_mends_what_cannot_be_read(daemon: Daemon, tmp_path: Path) -> None:
    ctl = Shell(daemon)
    file = daemon.state_dir / "devices" / "d" / "jobs" / "j.json"
    file.parent.mkdir(parents=True)
    file.write_text("rot")
    mended = tmp_path / "mended.json"
    envelope = {"format": "bucketd/1", "device": "d", "job": "j", "bucket": {"n": 1}}
    mended.write_text(json.dumps(envelope, indent=2))
    outcome = {"created": 0, "changed": 1, "unchanged": 0, "refused": 0}
    tried = ctl("import", "--dry-run", str(mended))
    assert (tried.returncode, json.loads(tried.stdout.splitlines()[-1])) == (0, outcome)
    assert ctl("get", "--device", "d", "--job", "j").returncode == 1
    assert ctl.json("import", str(mended)) == outcome
    assert ctl.json("get", "--device", "d", "--job", "j") == {"n": 1}
    assert [kept.read_text() for kept in (daemon.state_dir / "quarantine").iterdir()] == ["rot"]
    assert ctl.json("import", str(mended))["unchanged"] == 1


def test_patterns(full: Shell) -> None:
    def listed(*words: str) -> set[tuple[str, str | None]]:
        return {(row["device"], row["job"]) for row in full.json("list", *words)}

    assert listed("--device", "phone-*", "--job", "log*") == {
        ("phone-1", "login"),
        ("phone-2", "login"),
    }
    assert listed("--job", "log??") == listed("--job", "login")
    assert listed("--device", "tablet [[]1]") == {("tablet [1]", "logout")}
    assert listed("--device", "phone-[!1]") == {("phone-2", "login")}
    assert listed("--automation", "*") == set()
    assert set(lines(full("export", "--job", "*o*").stdout)) == listed("--job", "*o*")


def test_a_limit_counts_what_fits(full: Shell) -> None:
    first = full.json("list", "--job", "log*", "--limit", "2", "--json")
    assert [row["job"] for row in first["buckets"]] == ["login", "login"]
    rest = full.daemon.request("GET", f"/v1/buckets?cursor={first['next_cursor']}").json["buckets"]
    assert [row["job"] for row in rest] == ["logout"]


def test_pages_are_bounded_in_bytes(daemon: Daemon) -> None:
    for number in range(9):
        daemon.request("PUT", pair("d", f"j{number}"), {"big": "x" * 900_000})
    whole, cursor, sizes = [], "", []
    while cursor is not None:
        answer = daemon.request("GET", f"/v1/export?limit=9{cursor and '&cursor=' + cursor}")
        sizes.append(len(answer.body))
        whole += [row["job"] for row in answer.json["envelopes"]]
        cursor = answer.json["next_cursor"]
    assert whole == [f"j{number}" for number in range(9)]
    assert max(sizes) < 5_000_000


def test_progress_is_for_terminals(full: Shell, tmp_path: Path) -> None:
    seen = full.on_terminal("export", "--output", str(tmp_path / "x"), env={"TERM": "xterm"})
    assert "\r\x1b[Kexport [##############################] 100%  5 buckets" in seen
    assert "\r" not in full.on_terminal("export", "--output", str(tmp_path / "x"), env={"TERM": ""})


def test_a_refusal_does_not_run_into_the_progress(empty: Shell, tmp_path: Path) -> None:
    file = tmp_path / "all.ndjson"
    file.write_text('{"device": "d", "job": null, "bucket": {}}\n' * 200 + "[]\n" * 200)
    seen = empty.on_terminal("import", str(file), env={"TERM": "xterm"})
    assert "/s" in seen
    assert re.search(r"[^\n]*/s[^\r\n]*bucketctl:", seen) is None
    assert seen.count("\r\x1b[Kbucketctl: ") >= 1


def test_how_many_in_words_for_people(full: Shell, tmp_path: Path) -> None:
    words = ["export", "--output", str(tmp_path / "x")]
    assert full.on_terminal(*words, env={"TERM": ""}) == "5 exported, 0 left out\n"
    seen = full.on_terminal(*words, "--json", env={"TERM": ""})
    assert json.loads(seen) == {"exported": 5, "left_out": 0}


def test_an_export_that_breaks_off_leaves_no_file(full: Shell, tmp_path: Path) -> None:
    words = ["export", "--output", str(tmp_path / "x"), "--socket", "/nope", "--timeout", "0.1"]
    assert full(*words).returncode == 4
    assert list(tmp_path.iterdir()) == []
    done = full("export", "--output", "/nope/x")
    assert (done.returncode, "/nope/x" in done.stderr) == (1, True)


def test_what_is_exported_is_acknowledged(daemon: Daemon) -> None:
    """Each bucket whole and no older than the answer before, while it is being written."""
    ctl = Shell(daemon)
    filler = hashlib.sha256(os.urandom(8)).hexdigest() * 100
    for number in range(30):
        daemon.request("PUT", pair("d", "j"), {"n": number, "m": number, "filler": filler})
        (bucket,) = lines(ctl("export").stdout).values() if number % 10 == 0 else ({},)
        assert not bucket or (bucket["n"], bucket["m"]) == (number, number)


def test_on_a_terminal_json_is_what_was_asked_for(full: Shell, tmp_path: Path) -> None:
    file = tmp_path / "all.ndjson"
    full.json("export", "--output", str(file))
    full.json("set", "--device", "phone-1", "new=1")
    words = ["import", str(file), "--dry-run"]
    assert "\n~ phone-1 (device): /new\n" in "\n" + full.on_terminal(*words, env={"TERM": "dumb"})
    seen = full.on_terminal(*words, "--json", env={"TERM": "dumb"})
    row, counts = map(json.loads, seen.splitlines())
    assert (row["places"], counts["unchanged"]) == (["/new"], 4)
