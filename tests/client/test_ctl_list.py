"""bucketctl list by content and age, in other orders and columns."""

from __future__ import annotations

import re
import subprocess
from typing import Any

import pytest
from ctl_shell import CTL, Shell
from harness import Daemon, new_daemon, pair

BUCKETS: dict[tuple[str, str | None], dict[str, Any]] = {
    ("a", "login"): {
        "loggedIn": False,
        "n": 3,
        "user": "ada",
        "last": {"id": "x7", "at": "2026-01"},
    },
    ("a", None): {"loggedIn": "false", "n": 20, "big": "x" * 500},
    ("b", "login"): {"loggedIn": True, "n": 3.0, "user": "bob", "/odd": 1, "tags": [1, {"k": 0}]},
    ("c", "daily"): {"n": "20", "user": None},
}
SCHEMA = {"fields": [{"name": "pin", "type": "string", "secret": True}]}


@pytest.fixture(scope="module")
def stored() -> Any:
    daemon = new_daemon()
    try:
        daemon.start()
        for (device, job), bucket in BUCKETS.items():
            path = pair(device, job) if job is not None else pair(device)
            assert daemon.request("PUT", path, bucket).status == 200
        yield Shell(daemon)
    finally:
        daemon.remove()


def names(rows: list[dict[str, Any]]) -> list[str]:
    return [f"{row['device']}/{row['job'] or ''}" for row in rows]


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        (["loggedIn=false"], ["a/", "a/login"]),
        (['loggedIn="false"'], ["a/"]),
        (["loggedIn!=true"], ["a/", "a/login", "c/daily"]),
        (["loggedIn"], ["a/", "a/login", "b/login"]),
        (["n=3"], ["a/login", "b/login"]),
        (["n=20"], ["a/", "c/daily"]),
        (["n>3"], ["a/"]),
        (["n>=3", "n<20", "user!=bob"], ["a/login"]),
        (["n>100"], ["c/daily"]),  # a string is compared as one
        (["user=null"], ["c/daily"]),
        (["user<b"], ["a/login"]),
        (["/last/id=x7"], ["a/login"]),
        (["/last/at<2026-02"], ["a/login"]),
        (["/odd=1"], ["b/login"]),
        (["/tags/1/k=0"], ["b/login"]),
        (["/tags/01/k"], []),
        (['/last={"at": "2026-01", "id": "x7"}'], ["a/login"]),
        (["loggedIn=1"], []),
        (["nowhere=1"], []),
    ],
)
def test_conditions(stored: Shell, conditions: list[str], expected: list[str]) -> None:
    words = [word for condition in conditions for word in ("--where", condition)]
    assert sorted(names(stored.json("list", *words))) == expected


def test_conditions_and_names_go_together(stored: Shell) -> None:
    assert names(stored.json("list", "--device", "a", "--where", "n=3")) == ["a/login"]
    assert names(stored.json("list", "--device", "[ab]", "--job", "l*", "--where", "n")) == [
        *("a/login", "b/login")
    ]


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ("size", ["a/", "a/login", "b/login", "c/daily"]),
        ("-size", ["c/daily", "b/login", "a/login", "a/"]),
        ("-job", ["a/login", "b/login", "c/daily", "a/"]),
        ("/user", ["a/login", "b/login", "a/", "c/daily"]),
        ("-/user", ["b/login", "a/login", "a/", "c/daily"]),
    ],
)
def test_orders(stored: Shell, column: str, expected: list[str]) -> None:
    """Equal ones stay as they are listed, and what has no such value comes last."""
    assert names(stored.json("list", "--sort", column)) == expected


def test_the_limit_counts_what_is_selected(stored: Shell) -> None:
    assert len(stored.json("list", "--where", "n", "--limit", "2")) == 2
    assert names(stored.json("list", "--sort", "size", "--limit", "1")) == ["a/"]


def test_columns_are_members_and_heads(stored: Shell) -> None:
    words = ("list", "--where", "user", "--columns", "job,size,/last/id,/user,updated")
    first, second, third = stored.json(*words)
    assert list(first) == ["job", "size", "/last/id", "/user", "updated_at"]
    assert first["/last/id"] == "x7"
    assert "/last/id" not in second
    assert third["/user"] is None
    seen = stored.on_terminal(*words).splitlines()
    plain = [re.sub(r"\x1b\[\d*m", "", line) for line in seen]
    assert plain[0].split() == ["JOB", "SIZE", "/LAST/ID", "/USER", "UPDATED"]
    assert re.fullmatch(r"login +\d+ B +x7 +ada +\d s ago", plain[1])
    assert re.fullmatch(r"login +\d+ B +- +bob +\d s ago", plain[2])
    rows = stored(*words, "-o", "tsv").stdout.splitlines()
    assert rows[0].split("\t")[0::2] == ["login", "x7", first["updated_at"]]


def test_the_whole_answer_has_the_form_of_a_list(stored: Shell) -> None:
    found = stored.json("list", "--json", "--where", "n=3")
    assert {**found, "buckets": []} == {"success": True, "buckets": [], "next_cursor": None}
    assert "values" not in found["buckets"][0]


def test_who_holds_is_a_column(daemon: Daemon) -> None:
    daemon.request("PUT", pair("d", "j"), {"n": 1})
    shell = Shell(daemon)
    assert shell.json("list", "--columns", "held") == [{"held_by": "-"}]
    run = [*CTL, "run", "-d", "d", "-j", "j", "--hold", "job", "--", "sleep", "30"]
    with subprocess.Popen(run, env=shell.environ) as holder:
        while not shell.json("hold", "list"):
            assert holder.poll() is None
        (row,) = shell.json("list", "--columns", "device,held")
        holder.terminate()
    assert row["device"] == "d"
    assert f"process {holder.pid}" in row["held_by"]


def test_what_was_not_written_for_long(daemon: Daemon) -> None:
    kept = "?revision=1&created_at={0}&updated_at={0}".format("2026-01-01T00:00:00.000Z")
    daemon.request("PUT", pair("d", "old") + kept, {"n": 1})
    daemon.request("PUT", pair("d", "new"), {"n": 1})
    shell = Shell(daemon)
    assert names(shell.json("list", "--stale", "2d")) == ["d/old"]
    assert names(shell.json("list", "--stale", "2d", "--where", "n=2")) == []
    assert names(shell.json("list", "--stale", "3000d")) == []
    assert names(shell.json("list", "--sort", "updated")) == ["d/new", "d/old"]


def test_secrets_are_masked_on_a_terminal(daemon: Daemon) -> None:
    daemon.request("PUT", "/v1/schemas/bank", SCHEMA)
    daemon.request("PUT", pair("d", "j") + "?automation=bank", {"pin": "4711"})
    shell, words = Shell(daemon), ("list", "--where", "pin", "--columns", "device,/pin")
    assert shell.json(*words) == [{"device": "d", "/pin": "4711"}]
    seen = shell.on_terminal(*words)
    assert "••••" in seen
    assert "4711" not in seen
    assert "4711" in shell.on_terminal(*words, "--reveal")
    assert "no buckets" in shell.on_terminal("list", "--where", "pin=4711")
    assert "no buckets" not in shell.on_terminal("list", "--where", "pin=4711", "--reveal")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--columns", "device,colour"], "/KEY for a value"),
        (["--sort", "colour"], "/KEY for a value"),
        (["--sort", "held"], "hold list"),
        (["--stale", "soon"], "--stale"),
        (["--where", ""], "without a key"),
        (["--where", "n=1", "--curl"], "curl"),
    ],
)
def test_what_is_not_valid_is_refused(stored: Shell, words: list[str], said: str) -> None:
    done = stored("list", *words)
    assert (done.returncode, done.stdout, said in done.stderr) == (2, "", True), done.stderr
