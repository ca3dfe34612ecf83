"""bucketctl migrate: from files to etcd and back, under writers; killed, and run again."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ctl_shell import CTL, Shell
from fleet import Cluster, Host, b64
from harness import Daemon, new_daemon, pair

BUCKETS: dict[tuple[str, str | None], dict[str, Any]] = {
    ("phone 1 📱", None): {"shared": [1, None]},
    ("phone 1 📱", "a/b"): {},
    ("phone-2", "login"): {"token": "sécret 😀", "n": 2**63, "f": 1e-7, "z": -0.0},
    ("../x", "x" * 128): {"": {"__proto__": 1}},
}
SCHEMA = {"fields": [{"name": "n", "type": "number"}]}


_prefixes = iter(range(1000))


@pytest.fixture
def host(etcd: Cluster) -> Iterator[Host]:
    host = etcd.host(BUCKETD_STORE_ETCD_PREFIX=f"/move-{next(_prefixes)}/")
    try:
        host.start()
        yield host
    finally:
        host.remove()


@pytest.fixture
def files(daemon: Daemon) -> Daemon:
    """A daemon that keeps files, beside the ``host`` on etcd."""
    return daemon


def path_of(key: tuple[str, str | None]) -> str:
    return pair(key[0], key[1]) if key[1] is not None else pair(key[0])


def fill(daemon: Daemon) -> None:
    for key, bucket in BUCKETS.items():
        assert daemon.request("PUT", path_of(key), {"first": 1}).status == 200
        assert daemon.request("PUT", path_of(key), bucket).status == 200


def words(source: Daemon, target: Daemon, *more: str) -> list[str]:
    engines = ["etcd" if isinstance(daemon, Host) else "file" for daemon in (source, target)]
    named = ["--from", engines[0], "--to", engines[1], "--to-socket", target.socket]
    return ["migrate", *named, *more]


def migrate(source: Daemon, target: Daemon, *more: str) -> tuple[int, dict[str, Any], str]:
    """Exit status, the summary, and what was warned of."""
    done = Shell(source)(*words(source, target, *more))
    return done.returncode, json.loads(done.stdout.splitlines()[-1]), done.stderr


def held(daemon: Daemon) -> dict[tuple[str, str | None], dict[str, Any]]:
    """All that it exports, by names."""
    text = Shell(daemon)("export").stdout
    return {(row["device"], row["job"]): row for row in map(json.loads, text.splitlines())}


def test_there_and_back_all_is_as_it_was(files: Daemon, host: Host) -> None:
    fill(files)
    checked = f"{pair('phone-3', 'j')}?automation=mail"
    assert files.request("PUT", checked, {"n": "text"}).status == 200
    forced = files.request("PUT", "/v1/schemas/mail?force=true", SCHEMA)
    assert forced.json["count"] == 1
    time.sleep(0.01)  # times of a later moment would show
    before = held(files)
    status, told, warned = migrate(files, host)
    assert (status, warned) == (0, "")
    assert (told["carried"], told["verified"], told["schemas"]) == (5, 5, 1)
    assert told["checksum"] == told["checksum_there"] != "0" * 64
    assert held(host) == before
    assert host.request("GET", "/v1/schemas/mail").json["schema"] == SCHEMA
    assert migrate(files, host)[1]["carried"] == 0
    other = new_daemon()
    try:
        other.start()
        assert migrate(host, other)[0] == 0
        assert held(other) == before
        assert other.request("PATCH", checked, {"n": "more"}).status == 422
        other.restart()
        assert held(other) == before
    finally:
        other.remove()


def test_a_bucket_that_violates_its_schema_is_carried_as_it_is(files: Daemon, host: Host) -> None:
    assert host.request("PUT", "/v1/schemas/mail", SCHEMA).status == 200
    path = f"{pair('d', 'j')}?automation=mail"
    assert files.request("PUT", path, {"n": "text"}).status == 200
    assert files.request("PUT", "/v1/schemas/mail?force=true", SCHEMA).status == 200
    assert migrate(files, host)[0] == 0
    assert host.request("GET", path).bucket == {"n": "text"}
    assert host.request("PATCH", path, {"m": 1}).status == 422


def test_what_is_written_meanwhile_is_carried_again(
    files: Daemon, host: Host, tmp_path: Path
) -> None:
    """Writers until their daemon ends; its files, read by another, give the rest."""
    acknowledged: dict[str, int] = {}
    note = ("--note", str(tmp_path / "note"))
    stop = threading.Event()

    def write(name: str) -> None:
        for n in range(1, 10**6):
            if stop.is_set():
                return
            if files.request("PATCH", pair(name, "j"), {"n": n}).status != 200:
                return
            acknowledged[name] = n

    fill(files)
    assert files.request("PUT", pair("goes", "j"), {"n": 1}).status == 200
    threads = [threading.Thread(target=write, args=(f"w{i}",)) for i in range(4)]
    for thread in threads:
        thread.start()
    try:
        first = migrate(files, host, *note)[1]
        files.request("DELETE", pair("goes", "j"))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert first["again"] > 0
    files.restart()
    for n in range(3):
        assert files.request("PATCH", pair("late", "j"), {"n": n}).status == 200
    status, told, warned = migrate(files, host, *note, "--quick")
    assert (status, warned) == (0, "")
    assert (told["removed"], told["pending"]) == (1, 0)
    assert held(host) == held(files)
    assert {name: row["bucket"]["n"] for (name, _), row in held(host).items()
            if name in acknowledged} == acknowledged  # fmt: skip
    assert (acknowledged.keys() | {"late"}) <= {key[0] for key in held(host)}


@pytest.mark.parametrize("kills", [3])
def test_killed_it_goes_on(files: Daemon, host: Host, tmp_path: Path, kills: int) -> None:
    for n in range(120):
        assert files.request("PUT", pair(f"d{n % 40}", f"j{n}"), {"n": n}).status == 200
    note = tmp_path / "note"
    for _ in range(kills):
        before = noted(note)
        process = subprocess.Popen(
            [*CTL, *words(files, host, "--note", str(note))], env=Shell(files).environ
        )
        while noted(note) < before + 20 and process.poll() is None:
            time.sleep(0.001)
        process.kill()
        process.wait()
    assert 0 < len(held(host)) < 120
    # What is removed between two runs was carried by the first: the note knows.
    gone = next(iter(held(host)))
    assert files.request("DELETE", path_of(gone)).status == 200
    status, told, _ = migrate(files, host, "--note", str(note))
    assert status == 0
    assert (told["removed"], told["verified"]) == (1, 119)
    assert told["carried"] < 119
    assert held(host) == held(files)


def noted(path: Path) -> int:
    return path.read_text().count("]") if path.exists() else 0


def test_a_checksum_that_differs_is_told(files: Daemon, host: Host) -> None:
    fill(files)
    assert migrate(files, host)[0] == 0
    name, value = next((k, v) for k, v in host.files().items() if "phone-2" in k)
    bad = json.loads(value)
    bad["bucket"]["n"] -= 1  # as long as it was
    assert host.cluster is not None
    text = json.dumps(bad).encode()
    host.cluster.nodes[0].ask("/v3/kv/put", {"key": b64(name.encode()), "value": b64(text)})
    status, told, warned = migrate(files, host)
    assert (status, told["differing"]) == (1, 1)
    assert told["checksum"] != told["checksum_there"]
    assert "phone-2, login: its checksum on the target is not" in warned


def test_what_cannot_be_carried_is_named(files: Daemon, host: Host) -> None:
    fill(files)
    files.restart()
    files.bucket_path("phone-2", "login").write_text("{the journal has it")
    files.bucket_path("phone-2", "unknown").write_text("{nobody has it")
    status, told, warned = migrate(files, host)
    assert (status, told["verified"]) == (1, 4)
    assert "cannot be read" in warned
    host.env["BUCKETD_LIMITS_MAX_BUCKET_BYTES"] = "4096"
    host.restart()
    assert files.request("PUT", pair("large", "j"), {"x": "x" * 5000}).status == 200
    status, told, warned = migrate(files, host)
    assert (status, told["refused"], told["verified"]) == (1, 1, 4)
    assert "large, j: cannot" in warned


def test_what_cannot_be_read_any_more_keeps_its_copy(
    files: Daemon, host: Host, tmp_path: Path
) -> None:
    """It is missing in the source's list like one that was removed there, and the copy is good."""
    fill(files)
    note = ("--note", str(tmp_path / "note"))
    assert migrate(files, host, *note)[0] == 0
    files.stop()
    shutil.rmtree(files.state_dir / "journal")
    path = files.bucket_path("phone-2", "login")
    good = path.read_bytes()
    path.write_text("{nobody has it")
    files.start()
    status, told, _ = migrate(files, host, "--dry-run", *note)
    assert (status, told["removed"]) == (1, 0)
    status, told, warned = migrate(files, host, *note)
    assert (status, told["removed"]) == (1, 0)
    assert "phone-2/jobs/login.json" in warned
    assert host.request("GET", pair("phone-2", "login")).bucket == BUCKETS["phone-2", "login"]
    path.write_bytes(good)
    files.restart()
    assert files.request("DELETE", pair("phone-2", "login")).status == 200
    assert migrate(files, host, *note)[1]["removed"] == 1


def test_what_another_host_wrote_later_stays(files: Daemon, host: Host) -> None:
    """Of a device that was moved by hand there are two states; the later one is the truth."""
    old, new = pair("moved", "a"), pair("moved", "b")
    assert host.request("PUT", old, {"at": "etcd"}).status == 200
    assert files.request("PUT", new, {"at": "files"}).status == 200
    time.sleep(0.01)
    assert files.request("PUT", old, {"at": "files"}).status == 200
    assert host.request("PUT", new, {"at": "etcd"}).status == 200
    assert host.request("PUT", pair("theirs", "j"), {"at": "etcd"}).status == 200
    status, told, warned = migrate(files, host)
    assert (status, told["carried"], told["newer"]) == (0, 1, 1)
    assert "moved, b: the target's bucket was written later" in warned
    assert host.request("GET", old).bucket == {"at": "files"}
    assert host.request("GET", new).bucket == {"at": "etcd"}
    assert host.request("GET", pair("theirs", "j")).bucket == {"at": "etcd"}
    assert migrate(files, host)[1]["carried"] == 0


def test_only_some_devices(files: Daemon, host: Host) -> None:
    for device in ("a-1", "a-2", "b-1"):
        assert host.request("PUT", pair(device, "j"), {"n": 1}).status == 200
    status, told, _ = migrate(host, files, "--device", "a-*")
    assert (status, told["verified"]) == (0, 2)
    assert {key[0] for key in held(files)} == {"a-1", "a-2"}


def test_a_schema_that_tolerates_does_so_there(files: Daemon, host: Host) -> None:
    path = f"{pair('d', 'j')}?automation=mail"
    assert files.request("PUT", path, {"n": "text"}).status == 200
    assert files.request("PUT", "/v1/schemas/mail?existing=tolerate", SCHEMA).status == 200
    assert migrate(files, host)[1]["schemas"] == 1
    assert host.request("GET", "/v1/schemas/mail").json["existing"] == "tolerate"
    answer = host.request("PATCH", path, {"m": 1})
    assert (answer.status, [each["path"] for each in answer.json["warnings"]]) == (200, ["/n"])
    # The mode of the target's schema stays, as the schema does.
    assert host.request("PUT", "/v1/schemas/mail?force=true", SCHEMA).status == 200
    assert "the target has another schema of mail" in migrate(files, host)[2]
    assert host.request("GET", "/v1/schemas/mail").json["existing"] == "refuse"


def test_another_schema_there_stays(files: Daemon, host: Host) -> None:
    assert files.request("PUT", "/v1/schemas/mail", SCHEMA).status == 200
    assert host.request("PUT", "/v1/schemas/mail", {"fields": []}).status == 200
    status, told, warned = migrate(files, host)
    assert (status, told["schemas"]) == (0, 0)
    assert "the target has another schema of mail" in warned
    assert host.request("GET", "/v1/schemas/mail").json["schema"] == {"fields": []}


def test_a_dry_run_names_and_changes_nothing(files: Daemon, host: Host, tmp_path: Path) -> None:
    fill(files)
    note = tmp_path / "note"
    status, told, _ = migrate(files, host, "--dry-run", "--note", str(note))
    assert (status, told["created"], told["unchanged"]) == (0, 4, 0)
    assert (held(host), note.exists()) == ({}, False)
    shown = Shell(files).on_terminal(*words(files, host, "--dry-run"))
    assert "+ phone-2, login\n" in shown
    assert "sécret" not in shown


def test_a_terminal_shows_how_far_it_is(files: Daemon, host: Host) -> None:
    fill(files)
    shown = Shell(files).on_terminal(*words(files, host), env={"TERM": "xterm"})
    assert "migrate [" in shown
    assert "verify " in shown
    assert "4 carried" in shown


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--from", "file", "--to", "etcd"], "--to-socket"),
        (["--from", "file", "--to", "file"], "--from etcd --to file"),
        (["--from", "etcd", "--to", "file", "--to-socket", "/x"], "is on file, not on etcd"),
        (["--from", "file", "--to", "etcd", "--to-socket", "SAME"], "is on file, not on etcd"),
    ],
)
def test_says_which_side_is_wrong(files: Daemon, given: list[str], told: str) -> None:
    shell = Shell(files)
    done = shell("migrate", *[files.socket if word == "SAME" else word for word in given])
    assert done.returncode == 2
    assert told in done.stderr


def test_revision_and_times_are_kept_where_given(files: Daemon, host: Host) -> None:
    at = "2026-01-02T03:04:05.006Z"
    for daemon in (files, host):
        path = f"{pair('d', 'j')}?created_at={at}&updated_at={at}"
        assert daemon.request("PUT", f"{path}&revision=0", {"n": 1}).status == 400
        assert daemon.request("PUT", f"{path}.", {"n": 1}).status == 400
        assert daemon.request("PUT", f"{path}&revision=7", {"n": 1}).json["revision"] == 7
        assert daemon.request("PUT", f"{path}&revision=7", {"n": 2}).json["revision"] == 8
        assert daemon.request("PATCH", pair("d", "j"), {"n": 3}).json["revision"] == 9
        row = held(daemon)["d", "j"]
        assert (row["created_at"], row["updated_at"] > at) == (at, True)
        assert daemon.request("PUT", f"{pair('e', 'j')}?revision=5", {}).json["revision"] == 5
