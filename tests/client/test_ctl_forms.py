"""The forms of output: tables, JSON, lines and tabs, with and without a terminal and colours."""

from __future__ import annotations

import json
import socket
import time
import zlib

import pytest
from bucketd_client.ctl import output
from ctl_shell import Shell
from fake import Seen, answer, fake
from harness import Daemon

BOLD, BLUE, GREEN, RED, OFF = "\x1b[1m", "\x1b[34m", "\x1b[32m", "\x1b[31m", "\x1b[0m"
COLOURS = {"NO_COLOR": "", "TERM": "xterm"}


@pytest.fixture
def ctl(shared_daemon: Daemon) -> Shell:
    return Shell(shared_daemon)


@pytest.fixture
def device(request: pytest.FixtureRequest, ctl: Shell) -> str:
    """A device of this test alone, with its bucket and those of two jobs."""
    name = f"phone-{zlib.crc32(request.node.name.encode())}"
    ctl.json("set", f"{name}/", "n:=1")
    ctl("set", f"{name}/login", "text=a\tb\\", "-q", "--data", '{"big": [1, {"a": null}]}')
    ctl.json("set", f"{name}/zoom", "--data", json.dumps({"long": "x" * 2000}))
    return name


def test_a_table_goes_through_a_pipe_when_asked(ctl: Shell, device: str) -> None:
    head, *rows = ctl("list", "-d", device, "-o", "table").stdout.splitlines()
    assert head.split() == ["DEVICE", "JOB", "AUTOMATION", "REVISION", "SIZE", "UPDATED"]
    assert [row.split()[:2] for row in rows] == [
        [device, "(device)"],
        [device, "login"],
        [device, "zoom"],
    ]


def test_numbers_end_below_each_other_and_a_device_is_shown_once(ctl: Shell, device: str) -> None:
    head, *rows = ctl.on_terminal("list", "-d", device).splitlines()
    assert rows[0].startswith(f"{device} ")
    assert [row[: len(device)].strip() for row in rows[1:]] == ["", ""]
    sizes = [output.size(row["size"]) for row in ctl.json("list", "-d", device)]
    for size, row in zip(sizes, rows, strict=True):
        assert row[: head.index("SIZE") + len("SIZE")].endswith(f"  {size}"), (head, row)


def test_the_other_forms_of_a_list(ctl: Shell, device: str) -> None:
    rows = ctl.json("list", "-d", device)
    lines = ctl("list", "-d", device, "-o", "ndjson").stdout.splitlines()
    assert [json.loads(line) for line in lines] == rows
    assert ctl.json("list", "-d", device, "-o", "json") == rows
    assert json.loads(ctl.on_terminal("list", "-d", device, "-o", "json")) == rows
    tabbed = [
        line.split("\t") for line in ctl("list", "-d", device, "-o", "tsv").stdout.split("\n")
    ]
    assert tabbed == [
        *(
            [r["device"], r["job"] or "", "", str(r["revision"]), str(r["size"]), r["updated_at"]]
            for r in rows
        ),
        [""],
    ]
    assert ctl("list", "-d", "nobody", "-o", "tsv").stdout == ""
    assert ctl("list", "-d", "nobody", "-o", "table").stdout == "no buckets\n"


def test_the_forms_of_a_bucket(ctl: Shell, device: str) -> None:
    place = f"{device}/login"
    assert ctl("get", place, "-o", "tsv").stdout == 'big\t[1, {"a": null}]\ntext\ta\\tb\\\\\n'
    assert ctl("get", place, "-o", "table").stdout.splitlines() == [
        "KEY   VALUE",
        'big   [1, {"a": null}]',
        "text  a\\u0009b\\",
    ]
    line = ctl.on_terminal("get", place, "-o", "ndjson")
    assert (line.count("\n"), json.loads(line)["big"]) == (1, [1, {"a": None}])


COMMANDS = ["status", "context list", "hold list", "schema list", "usage", "doctor", "list"]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("form", ["table", "json", "ndjson", "tsv"])
def test_each_form_of_each_command(ctl: Shell, command: str, form: str) -> None:
    """A form is the same on a terminal and in a pipe, but for how JSON is laid out."""
    ctl.json("set", "of-all-forms/j", "a=1")
    ctl.json("context", "create", "-d", "of-all-forms", "--ttl", "9")
    words = command.split()
    piped = ctl(*words, "-o", form)
    assert (piped.returncode, piped.stderr) == (0, "")
    is_json = piped.stdout.startswith(("[", "{"))
    assert is_json == (form in ("json", "ndjson") and bool(piped.stdout))
    if form == "ndjson":
        for line in piped.stdout.splitlines():
            json.loads(line)
    seen = ctl.on_terminal(*words, "-o", form)
    assert bool(seen.strip()) == bool(piped.stdout.strip())
    assert seen.startswith(("[", "{")) == is_json


def test_a_table_fits_a_terminal_of_80_columns(ctl: Shell, device: str) -> None:
    """Columns that say nothing go first, then texts are cut; names are never cut."""
    label = "a run with a long label, as it comes from a scheduler of jobs"
    made = ctl.json("context", "create", "-d", device, "--ttl", "60", "--label", label)
    words = ("context", "list")
    head, *rows = ctl.on_terminal(*words, columns=80).splitlines()
    row = next(row for row in rows if made["id"] in row)
    assert max(map(len, [head, *rows])) <= 80
    assert label[:8] in row
    assert label not in row
    assert f"  {device}  " in row
    assert "AUTOMATION" not in head
    for shown in (ctl(*words, "-o", "table").stdout, ctl.on_terminal(*words)):
        assert label in shown
        assert "AUTOMATION" in shown
    long = "d" * 128
    ctl.json("set", "-d", long, "a=1")
    assert long in ctl.on_terminal("list", "-d", long, columns=80)


def test_colours(ctl: Shell, device: str) -> None:
    place = f"{device}/"
    assert (
        ctl.on_terminal("get", place, env=COLOURS) == f'{{\n  {BLUE}"n"{OFF}: \x1b[33m1{OFF}\n}}\n'
    )
    assert ctl.on_terminal("list", "-d", device, env=COLOURS).startswith(BOLD)
    forced = {"CLICOLOR_FORCE": "1"}
    for environ in ({}, {"CLICOLOR_FORCE": "0"}, {**forced, "NO_COLOR": "1"}):
        env = {"NO_COLOR": "", **environ}
        assert "\x1b" not in ctl("list", "-d", device, "-o", "table", env=env).stdout
        assert "\x1b" not in ctl("get", place, env=env).stdout
    env = {"NO_COLOR": "", **forced}
    assert ctl("list", "-d", device, "-o", "table", env=env).stdout.startswith(BOLD)
    # A program that reads JSON gets no colours, whatever the environment of a person says.
    assert ctl.json("get", place, env=env) == {"n": 1}
    assert "\x1b" not in ctl.on_terminal("get", place, env={**COLOURS, "TERM": "dumb"})


def test_a_bad_form_is_refused(ctl: Shell) -> None:
    refused = ctl("list", "-o", "yaml")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "-o is one of table, json, ndjson, tsv" in refused.stderr
    assert ctl("get", "d/j", "--json", "-o", "table").returncode == 2


def test_status_is_five_lines_and_all_with_verbose(ctl: Shell, device: str) -> None:
    shown = ctl.on_terminal("status").splitlines()
    assert [line.split()[0] for line in shown] == ["bucketd", "socket", "store", "stored", "in"]
    assert max(map(len, shown)) <= 80 or len(ctl.daemon.socket) > 60
    assert "healthy" in shown[0]
    assert len(ctl.on_terminal("status", "-v").splitlines()) > 30
    assert ctl("status", "-o", "table").stdout.splitlines()[1:4] == shown[1:4]


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (102400, "100 KiB"), (1048576, "1.0 MiB"),
     (82563776512, "76.9 GiB"), (1048575, "1.0 MiB"), (2**50, "1024 TiB")],
)  # fmt: skip
def test_sizes_as_people_read_them(count: int, text: str) -> None:
    assert output.size(count) == text
    assert output.size(count).raw == count


def test_unreadable_entries_are_red(daemon: Daemon) -> None:
    ctl = Shell(daemon)
    ctl.json("set", "d/j", "a=1")
    daemon.restart()
    (daemon.state_dir / "devices" / "d" / "jobs" / "x.json").write_text("{")
    said = ctl.on_terminal("list", env=COLOURS)
    assert f"{RED}bucketctl: left out, because it cannot be read: devices/d/jobs/x.json" in said
    plain = ctl("list", env=COLOURS)
    assert (plain.returncode, "\x1b" in plain.stderr) == (1, False)


def test_a_bucket_not_written_for_long_is_yellow(ctl: Shell) -> None:
    row = {"device": "d", "job": None, "automation": None, "revision": 1, "size": 1}
    times = ["2020-01-01T00:00:00.000Z", time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())]

    def script(connection: socket.socket, _seen: Seen, _number: int) -> bool:
        rows = [{**row, "updated_at": at} for at in times]
        answer(connection, 200, {"success": True, "buckets": rows, "next_cursor": None})
        return True

    with fake(script) as server:
        shown = ctl.on_terminal("list", "--socket", server.path, env=COLOURS).splitlines()
    assert "\x1b[33m" in shown[1]
    assert "\x1b" not in shown[2]
