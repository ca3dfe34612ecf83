"""Commands of operators: quarantine, grep, and the contexts of a device."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from ctl_shell import Shell
from harness import Daemon, pair

SCHEMA = {"fields": [{"name": "password", "type": "string", "secret": True}]}
SECRET = "hunter2-and-more"


# --- the quarantine


@pytest.fixture
def damaged(daemon: Daemon) -> Shell:
    """A daemon that keeps a damaged file, bytes that are no text, and a directory."""
    daemon.request("PUT", pair("phone-1", "login"), {"n": 1})
    daemon.request("GET", "/v1/status")  # which waits until all files are written
    path = daemon.bucket_path("phone-1", "login")
    path.write_text(f'{{"bucket": {{"password": "{SECRET}", \x1b[31m\n')
    assert daemon.request("PUT", pair("phone-1", "login"), {"n": 2}).status == 200
    daemon.request("GET", "/v1/status")
    kept = daemon.state_dir / "quarantine"
    (kept / "20200101T000000Z-00000000-binary").write_bytes(b"\xff\x00")
    (kept / "20190101T000000Z-00000000-directory").mkdir()
    (kept / "20190101T000000Z-00000000-directory" / "inside").write_text("x")
    (kept / "by hand").symlink_to("/etc/passwd")
    return Shell(daemon)


def kept(shell: Shell) -> set[str]:
    return set(os.listdir(shell.daemon.state_dir / "quarantine"))


def test_the_quarantine_is_listed_the_newest_first(damaged: Shell) -> None:
    rows = {row["id"]: row for row in damaged.json("quarantine", "list")}
    assert set(rows) == kept(damaged)
    stamped = [row["kept_at"] for row in rows.values() if row["kept_at"]]
    assert stamped == sorted(stamped, reverse=True)
    assert stamped[1:] == ["2020-01-01T00:00:00.000Z", "2019-01-01T00:00:00.000Z"]
    kinds = {name.rpartition("-")[2]: row["kind"] for name, row in rows.items()}
    assert kinds["by hand"] == "other"
    assert (kinds["directory"], kinds["binary"], kinds["login.json"]) == (
        "directory",
        "file",
        "file",
    )
    seen = damaged.on_terminal("quarantine", "list")
    assert re.search(r"by hand +other +\d+ B +-", seen)


def test_a_file_is_shown_as_it_is_but_not_on_a_terminal(damaged: Shell) -> None:
    (name,) = (name for name in kept(damaged) if name.endswith("phone-1-login.json"))
    text = (damaged.daemon.state_dir / "quarantine" / name).read_text()
    assert SECRET in text
    assert damaged("quarantine", "show", name).stdout == text
    for more in ([], ["--json"]):
        assert SECRET not in damaged.on_terminal("quarantine", "show", name, *more)
    seen = damaged.on_terminal("quarantine", "show", name, "--reveal")
    assert SECRET in seen
    assert "\x1b[31m" not in seen
    binary = "20200101T000000Z-00000000-binary"
    assert damaged.line(f"bucketctl quarantine show {binary} | od -An -tx1").stdout == " ff 00\n"
    for name in ("20190101T000000Z-00000000-directory", "by hand"):
        done = damaged("quarantine", "show", name)
        assert (done.returncode, "it is no file" in done.stderr) == (2, True)


def test_what_is_dropped_is_gone_and_nothing_else(damaged: Shell) -> None:
    before = kept(damaged)
    wanted = {"20190101T000000Z-00000000-directory", "by hand"}
    done = damaged("quarantine", "drop", *wanted)  # nobody is there to be asked
    assert (done.returncode, "--yes" in done.stderr) == (2, True)
    assert {row["id"] for row in damaged.json("quarantine", "drop", *wanted, "--dry-run")} == wanted
    assert kept(damaged) == before
    assert damaged.json("quarantine", "drop", *wanted, "--yes") == {"dropped": 2}
    assert kept(damaged) == before - wanted
    assert Path("/etc/passwd").exists()
    assert damaged.json("get", "--device", "phone-1", "--job", "login") == {"n": 2}
    assert damaged.json("quarantine", "drop", "--all", "--yes") == {"dropped": 2}
    assert kept(damaged) == set()
    assert damaged.json("status")["counts"]["quarantined_files"] == 0


@pytest.mark.parametrize("words", [[], ["--all", "by hand"], ["no such file"], ["../devices"]])
def test_a_drop_of_what_is_not_named_right_drops_nothing(damaged: Shell, words: list[str]) -> None:
    before = kept(damaged)
    assert damaged("quarantine", "drop", "--yes", *words).returncode == 2
    assert kept(damaged) == before


@pytest.mark.parametrize("name", ["..", "../devices", "..%2Fdevices", "%2e%2e", "by hand/x"])
def test_no_name_leads_out_of_the_quarantine(damaged: Shell, name: str) -> None:
    before = kept(damaged)
    escaped = name if "%" in name else name.replace("/", "%2F").replace(" ", "%20")
    for method in ("GET", "DELETE"):
        answer = damaged.daemon.request(method, f"/v1/quarantine/{escaped}")
        assert (answer.status, answer.json["code"]) == (404, "not_found")
    assert kept(damaged) == before
    assert damaged.json("get", "--device", "phone-1", "--job", "login") == {"n": 2}


# --- grep


@pytest.fixture
def searched(daemon: Daemon) -> Shell:
    assert daemon.request("PUT", "/v1/schemas/login", SCHEMA).status == 200
    bucket = {"user": "Ada", "tags": ["x", {"user/id": 42}], "password": SECRET, "empty": {}}
    daemon.request("PUT", pair("phone-1", "login") + "?automation=login", bucket)
    daemon.request("PUT", pair("phone-2", "daily"), {"ok": True, "user": None, "n": 1.5})
    daemon.request("PUT", "/v1/devices/phone-2/bucket", {"note": "ada\x1b[31m", "🎉": "x" * 300})
    return Shell(daemon)


def places(shell: Shell, *words: str) -> set[str]:
    done = shell("grep", *words)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == (0 if rows else 1), done
    return {f"{row['device']} {row['job']} {row['path']}" for row in rows}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["Ada"], {"phone-1 login /user"}),
        (["-i", "ada"], {"phone-1 login /user", "phone-2 None /note"}),
        (["--keys", "user"], {
            "phone-1 login /user", "phone-1 login /tags/1/user~1id", "phone-2 daily /user",
        }),
        (["^42$"], {"phone-1 login /tags/1/user~1id"}),
        (["^true$"], {"phone-2 daily /ok"}),
        (["^null$"], {"phone-2 daily /user"}),
        (["^x$"], {"phone-1 login /tags/0"}),
        (["^tags$"], {"phone-1 login /tags"}),
        (["1.5", "--fixed-strings"], {"phone-2 daily /n"}),
        (["x", "--device", "phone-2"], {"phone-2 None /🎉"}),
        (["[", "-F"], {"phone-2 None /note"}),
        (["nowhere"], set()),
    ],
)  # fmt: skip
def test_keys_and_values_are_found(searched: Shell, words: list[str], expected: set[str]) -> None:
    assert places(searched, *words) == expected


def test_secrets_are_not_found_by_their_values(searched: Shell) -> None:
    assert places(searched, "hunter") == set()
    assert places(searched, "masked") == set()
    done = searched("grep", "password")
    assert json.loads(done.stdout)["value"] == {"$masked": True}
    seen = searched.on_terminal("grep", "password")
    assert seen == "phone-1, login: /password: ••••\n"
    assert places(searched, "hunter", "--reveal") == {"phone-1 login /password"}


def test_a_terminal_is_not_disturbed(searched: Shell) -> None:
    seen = searched.on_terminal("grep", "ada|x")
    assert "phone-2, (device): /note: " in seen
    assert "\x1b[31m" not in seen
    assert max(map(len, seen.splitlines())) < 250


def test_a_pattern_that_is_none_is_refused(searched: Shell) -> None:
    done = searched("grep", "[")
    assert (done.returncode, "--fixed-strings" in done.stderr) == (2, True)


# --- contexts of a device


def live(shell: Shell) -> set[tuple[str, str | None]]:
    return {(row["device"], row["job"]) for row in shell.json("context", "list")}


@pytest.mark.parametrize(
    ("words", "left"),
    [
        (["--device", "phone-1"], {("phone-2", "a")}),
        (["--device", "phone-1", "--job", "a"], {
            ("phone-1", "b"), ("phone-1", None), ("phone-2", "a"),
        }),
        (["--device", "phone-*", "--job", "a"], {("phone-1", "b"), ("phone-1", None)}),
        (["--device", "none"], {
            ("phone-1", "a"), ("phone-1", "b"), ("phone-1", None), ("phone-2", "a"),
        }),
    ],
)  # fmt: skip
def test_the_contexts_of_a_device_are_revoked(
    daemon: Daemon, words: list[str], left: set[tuple[str, str | None]]
) -> None:
    shell = Shell(daemon)
    tokens = {
        key: daemon.mint(*key) for key in [("phone-1", "a"), ("phone-1", "b"), ("phone-2", "a")]
    }
    daemon.mint("phone-1")
    before = live(shell)
    shell("context", "revoke", *words, "--dry-run")
    done = shell("context", "revoke", *words)
    assert done.returncode == (0 if left == before else 2)  # nobody is there to be asked
    assert live(shell) == before
    assert shell.json("context", "revoke", *words, "--yes") == {"revoked": len(before - left)}
    assert live(shell) == left
    for key, token in tokens.items():
        status = daemon.request("GET", "/v1/bucket", token=token).status
        assert status == (200 if key in left else 401)


@pytest.mark.parametrize(
    "words", [[], ["--job", "a"], ["0123456789abcdef", "--device", "d"], ["--dry-run", "x"]]
)
def test_contexts_are_named_in_one_way(shared_daemon: Daemon, words: list[str]) -> None:
    done = Shell(shared_daemon)("context", "revoke", *words)
    assert (done.returncode, "cannot revoke" in done.stderr) == (2, True)
