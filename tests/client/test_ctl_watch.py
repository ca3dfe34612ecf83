"""``bucketctl watch``: as it happens, for people and for programs, and to a clean end."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from ctl_shell import CTL, Shell, read_terminal
from harness import Daemon, pair

ONE = ("--device", "d", "--job", "j")


@pytest.fixture
def shell(daemon: Daemon) -> Shell:
    return Shell(daemon)


def hear_interrupts() -> None:
    """A shell lets what it starts in the background ignore them, tests too."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Watch:
    """A running ``bucketctl watch`` whose output goes into a pipe."""

    def __init__(self, shell: Shell, *words: str, **env: str) -> None:
        self.process = subprocess.Popen(
            [*CTL, "watch", *words],
            env={**shell.environ, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=hear_interrupts,  # noqa: PLW1509
        )

    def next(self) -> Any:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def end(self, signal_: int | None = signal.SIGINT) -> tuple[int, str]:
        if signal_ is not None:
            self.process.send_signal(signal_)
        out, error = self.process.communicate(timeout=10)
        assert out == ""
        return self.process.returncode, error


@contextlib.contextmanager
def watch(shell: Shell, *words: str, **env: str) -> Iterator[Watch]:
    found = Watch(shell, *words, **env)
    try:
        yield found
    finally:
        found.process.kill()
        found.process.communicate()


def data(revision: int, set_: dict[str, Any], removed: list[str] | None = None) -> dict[str, Any]:
    return {"device": "d", "job": "j", "revision": revision, "set": set_, "removed": removed or []}


def test_a_line_for_each_change_across_a_restart(shell: Shell, daemon: Daemon) -> None:
    daemon.request("PUT", pair("d", "j"), {"a": 1})
    with watch(shell, *ONE, "--snapshot") as watching:
        assert watching.next() == data(1, {"a": 1})
        daemon.request("PATCH", pair("d", "j"), {"b": {"ü": None}})
        assert watching.next() == data(2, {"b": {"ü": None}})
        daemon.restart()
        daemon.request("PUT", pair("d", "j"), {"c": 1})
        assert watching.next() == data(3, {"c": 1}, ["a", "b"])
        daemon.request("DELETE", pair("d", "j"))
        assert watching.next() == data(0, {}, ["c"])
        assert watching.end() == (130, "")


def test_only_some_keys_of_the_context_and_since(shell: Shell, daemon: Daemon) -> None:
    token = daemon.mint("d", "j")
    daemon.request("PUT", "/v1/bucket", {"a": 0}, token=token)
    with watch(shell, "a", "--json", "--snapshot", BUCKETD_TOKEN=token) as watching:
        first = watching.next()
    assert (first["event"], first["data"]) == ("bucket", data(1, {"a": 0}))
    daemon.request("PATCH", "/v1/bucket", {"b": 1}, token=token)
    daemon.request("PATCH", "/v1/bucket", {"a": 2, "b": 2}, token=token)
    with watch(shell, "a", "--since", first["id"], BUCKETD_TOKEN=token) as watching:
        assert watching.next() == data(3, {"a": 2})
    with watch(shell, "--since", "of nobody", BUCKETD_TOKEN=token) as watching:
        assert watching.next() == {**data(3, {"a": 2, "b": 2}), "gap": True}


def test_all_that_fit_and_their_contexts(shell: Shell, daemon: Daemon) -> None:
    with watch(shell, "--all", "--device", "phone-*", "--job", "j") as watching:
        # No snapshot says when it has begun; so it is asked until it answers.
        begun = watch_until_told(watching, daemon)
        daemon.request("PUT", pair("tablet", "j"), {"n": 1})
        daemon.request("PUT", pair("phone-2", "other"), {"n": 1})
        daemon.mint("tablet", "j")
        daemon.request("PUT", pair("phone-2", "j"), {"n": 2})
        while (told := watching.next())["device"] == begun:
            pass
        assert (told["device"], told["job"], told["set"]) == ("phone-2", "j", {"n": 2})
        daemon.mint("phone-3", "j")
        told = watching.next()
        assert (told["state"], told["device"]) == ("created", "phone-3")
        assert watching.end() == (130, "")


def watch_until_told(watching: Watch, daemon: Daemon) -> str:
    assert watching.process.stdout is not None
    for number in range(1000):
        daemon.request("PUT", pair("phone-0", "j"), {"n": number})
        if select.select([watching.process.stdout], [], [], 0.02)[0]:
            return "phone-0"
    raise AssertionError("it never began")


def test_people_see_what_was_and_what_is(shell: Shell, daemon: Daemon) -> None:
    daemon.request("PUT", pair("d", "j"), {"a": 1, "gone": True})
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*CTL, "watch", *ONE, "--snapshot"],
        env={**shell.environ, "TERM": "xterm"},
        stdin=theirs, stdout=theirs, stderr=theirs,
        preexec_fn=hear_interrupts,  # noqa: PLW1509
    )  # fmt: skip
    os.close(theirs)
    first = read_terminal(ours, "gone: true\x1b[0m")
    assert "d, j, revision 1" in first
    assert "\x1b[32m+ /a: 1\x1b[0m\n" in first
    daemon.request("PUT", pair("d", "j"), {"a": {"b": "x\x1b"}})
    second = read_terminal(ours, "- /gone: true\x1b[0m")
    assert "revision 2" in second
    assert "\x1b[31m- /a: 1\x1b[0m\n" in second
    assert '\x1b[32m+ /a: {"b": "x\\u001b"}\x1b[0m\n' in second
    daemon.request("DELETE", pair("d", "j"))
    assert "d, j, no bucket" in read_terminal(ours, "- /a: {")
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 130
    os.close(ours)


def test_no_colour_and_nothing_before_the_first_change(shell: Shell, daemon: Daemon) -> None:
    daemon.request("PUT", pair("d", "j"), {"a": 1})
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*CTL, "watch", *ONE], env={**shell.environ, "NO_COLOR": "1", "TERM": "xterm"},
        stdin=theirs, stdout=theirs, stderr=theirs,
    )  # fmt: skip
    os.close(theirs)
    number, seen = 1, ""
    while "+ /a" not in seen:
        number += 1
        daemon.request("PUT", pair("d", "j"), {"a": number})
        seen += read_some(ours)
    assert "\x1b" not in seen
    assert "+ /a: 1\n" not in seen
    process.terminate()
    process.wait(10)
    os.close(ours)


def read_some(ours: int) -> str:
    ready = select.select([ours], [], [], 0.05)[0]
    return os.read(ours, 65536).decode().replace("\r\n", "\n") if ready else ""


def test_how_it_ends(shell: Shell, daemon: Daemon) -> None:
    context = daemon.request("POST", "/v1/contexts", {"device": "d", "job": "j"}).json
    with watch(shell, "--snapshot", BUCKETD_TOKEN=context["token"]) as watching:
        watching.next()
        daemon.request("DELETE", f"/v1/contexts/{context['id']}")
        status, said = watching.end(signal_=None)
    assert status == 3
    assert "revoked" in said
    done = shell("watch", *ONE, "--timeout", "0.1", "--socket", "/nonexistent/s")
    assert (done.returncode, done.stdout) == (4, "")
    assert shell("watch").returncode == 3


@pytest.mark.parametrize(
    "words",
    [("--all", "--snapshot"), ("--since", "1", "--snapshot", *ONE), ("--all", "--automation", "x*"),
     ("--all", "--device-bucket")],
)  # fmt: skip
def test_what_does_not_go_together(shell: Shell, words: tuple[str, ...]) -> None:
    done = shell("watch", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert "cannot" in done.stderr


def test_the_same_with_curl(shell: Shell, daemon: Daemon) -> None:
    line = shell("watch", *ONE, "a b", "--snapshot", "--curl").stdout
    assert "/events?key=a%20b&snapshot=true" in line
    daemon.request("PUT", pair("d", "j"), {"a b": 1})
    done = subprocess.run(
        ["sh", "-c", f"{line.strip()} --max-time 1"], capture_output=True, text=True
    )
    assert 'data: {"device":"d","job":"j","revision":1,"set":{"a b":1},"removed":[]}' in done.stdout
    line = shell("watch", "--all", "--job", "j", "--since", "7", "--curl").stdout
    assert "/v1/events?job=j" in line
    assert "'Last-Event-ID: 7'" in line
