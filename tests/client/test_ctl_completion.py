"""Completion: the words offered, and real shells on a terminal that put them in."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from bucketd_client.ctl.table.all import every
from ctl_shell import CTL, Shell
from harness import Daemon, pair

DEVICES = ("phone-1", "phone 2", "emulator:5554", "it's", "ünï")


@pytest.fixture(scope="module")
def ctl(shared_daemon: Daemon) -> Shell:
    for device in DEVICES:
        assert shared_daemon.request("PUT", pair(device, "login"), {}).status == 200
    key = {"sessionToken": "x", "two words": 1}
    shared_daemon.request("PUT", pair("phone-1", "daily run"), key)
    shared_daemon.request("PUT", "/v1/schemas/login-auto", {"fields": []})
    kept = shared_daemon.state_dir / "quarantine" / "20200101T000000Z-00000000-kept"
    kept.parent.mkdir(exist_ok=True)
    kept.touch()
    return Shell(shared_daemon)


def offered(ctl: Shell, *words: str) -> list[str]:
    done = ctl("completion", "words", "--", *words)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_every_command_is_offered(ctl: Shell) -> None:
    names = {name.split()[0] for name in (command.name for command in every())}
    assert names <= set(offered(ctl, ""))
    for command in every():
        *before, last = command.name.split()
        assert last in offered(ctl, *before, last[:2])


def test_every_option_is_offered_until_it_is_given(ctl: Shell) -> None:
    for command in every():
        wanted = {f"--{option.name}" for option in command.options} | {"--help"}
        assert set(offered(ctl, *command.name.split(), "--")) == wanted
    assert "--device" not in offered(ctl, "get", "--device", "phone-1", "--d")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["get", "--device", ""], sorted(DEVICES)),
        (["get", "--device", "pho"], ["phone 2", "phone-1"]),
        (["get", "--device", "phone-1", "--job", ""], ["daily run", "login"]),
        (["get", "--device", "phone-1", "--job", "daily run", "s"], ["sessionToken"]),
        (["diff", "--to-device", "phone-1", "--to-job", "d"], ["daily run"]),
        (["set", "--device", "x", "--job", "y", "--automation", "lo"], ["login-auto"]),
        (["device", "forget", "phone-"], ["phone-1"]),
        (["schema", "get", ""], ["login-auto"]),
        (["completion", ""], ["bash", "zsh", "fish"]),
        (["export", "--format", ""], ["ndjson", "tar"]),
        (["types", "login-auto", "--lang", "py"], ["python"]),
        (["help", "dev"], ["device"]),
        (["run", "--device", "d", "--job", "j", "--", "pho"], []),
        (["import", ""], []),
        (["get", "phone-1/", "s"], []),
        (["get", "phone-1/d"], ["phone-1/daily run"]),
        (["get", "phone-1/daily run", "s"], ["sessionToken"]),
        (["get", "-d", "phone-1", "-j", "daily run", "s"], ["sessionToken"]),
        (["undo", "phone-1/daily run", ""], ["1"]),
        (["list", "-o", "t"], ["table", "tsv"]),
        (["quarantine", "show", ""], ["20200101T000000Z-00000000-kept"]),
        (["list", "--sort", "upd"], ["updated"]),
        (["nonsense", ""], []),
        (["get", "--device", "--socket", "/nope", ""], []),
    ],
)
def test_what_fits(ctl: Shell, words: list[str], expected: list[str]) -> None:
    assert sorted(offered(ctl, *words)) == sorted(expected)


def test_without_a_daemon_there_are_no_names_and_no_errors(ctl: Shell) -> None:
    began = time.monotonic()
    done = ctl("completion", "words", "--", "get", "--device", "", env={"BUCKETD_SOCKET": "/nope"})
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert time.monotonic() - began < 5


# --- real shells


class Terminal:
    """A shell on a pseudo-terminal, typed into."""

    def __init__(self, words: list[str], env: dict[str, str]) -> None:
        pid, self.fd = pty.fork()
        if pid == 0:
            os.execvpe(words[0], words, env)  # noqa: S606
        self.pid, self.seen = pid, ""

    def type(self, text: str, until: str, seconds: float = 10.0) -> str:
        """What appears, up to ``until``; something does in any case."""
        begin = len(self.seen)
        os.write(self.fd, text.encode())
        deadline = time.monotonic() + seconds
        while not self._said(until, begin) and time.monotonic() < deadline:
            if select.select([self.fd], [], [], 0.1)[0]:
                with contextlib.suppress(OSError):
                    self.seen += os.read(self.fd, 65536).decode(errors="replace")
        assert self._said(until, begin), self.seen[begin:]
        return self.seen[begin:]

    def _said(self, text: str, begin: int) -> bool:
        return len(self.seen) > begin and text in self.seen[begin:]

    def close(self) -> None:
        os.close(self.fd)  # which hangs it up
        os.waitpid(self.pid, 0)


@pytest.fixture
def bin_dir(tmp_path: Path) -> Path:
    """``bucketctl`` as a command that tells its arguments instead of calling, if they end in //."""
    script = tmp_path / "bucketctl"
    script.write_text(
        f"#!/bin/sh\nfor last; do :; done\n"
        f'[ "$last" = // ] && {{ printf "got:"; printf "<%s>" "$@"; echo :end; exit; }}\n'
        f'exec {CTL[0]} -m {CTL[2]} "$@"\n'
    )
    script.chmod(0o755)
    return tmp_path


@pytest.fixture(params=["bash", "zsh"])
def shell(ctl: Shell, bin_dir: Path, request: pytest.FixtureRequest) -> Iterator[Terminal]:
    name = request.param
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")
    env = {**ctl.environ, "PATH": f"{bin_dir}:{os.environ['PATH']}", "TERM": "dumb"}
    env |= {"HOME": str(bin_dir), "LC_ALL": "C.UTF-8"}
    if name == "bash":
        terminal = Terminal(["bash", "--norc", "--noprofile", "-i"], env)
        terminal.type("PS1='ready''> '; bind 'set enable-bracketed-paste off'\n", "ready> ")
        terminal.type('eval "$(bucketctl completion bash)"\n', "ready> ")
    else:
        terminal = Terminal(["zsh", "-f", "-i"], {**env, "TERM": "xterm"})
        terminal.type("PS1='ready''> '; unsetopt zle_bracketed_paste PROMPT_SP\n", "ready> ")
        setup = f'autoload -Uz compinit && compinit -u -d "{bin_dir}/dump"; '
        terminal.type(setup + 'eval "$(bucketctl completion zsh)"; echo do""ne\n', "done")
    yield terminal
    terminal.close()


@pytest.mark.parametrize(
    ("typed", "arguments"),
    [
        ("bucketctl stat\t//", ["status", "//"]),
        ("bucketctl dev\tren\t//", ["device", "rename", "//"]),
        ("bucketctl get --dev\t", None),
        ("bucketctl get --device phone-\t//", ["get", "--device", "phone-1", "//"]),
        ("bucketctl get --device phone\\ \t//", ["get", "--device", "phone 2", "//"]),
        ("bucketctl get --device emul\t//", ["get", "--device", "emulator:5554", "//"]),
        ("bucketctl get --device emulator:55\t//", ["get", "--device", "emulator:5554", "//"]),
        ("bucketctl get --device it\t//", ["get", "--device", "it's", "//"]),
        ('bucketctl get --device "phone \t//', ["get", "--device", "phone 2", "//"]),
        ("bucketctl get --device phone-1 --job dai\t//",
         ["get", "--device", "phone-1", "--job", "daily run", "//"]),
        ("bucketctl get --device phone-1 --job daily\\ run tw\t//",
         ["get", "--device", "phone-1", "--job", "daily run", "two words", "//"]),
    ],
)  # fmt: skip
def test_in_a_shell(shell: Terminal, typed: str, arguments: list[str] | None) -> None:
    if arguments is None:
        shell.type(typed + "\t\t", "--device-bucket")
        return
    *begun, end = typed.split("\t")
    for text in begun:
        shell.type(text, text[-3:])
        shell.type("\t", "")  # the rest of a word is said when it is in the line
    said = shell.type(f"{end}\n", ":end").rpartition("got:")[2]
    assert said.partition(":end")[0] == "".join(f"<{word}>" for word in arguments)


@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
def test_the_script_is_one_of_that_shell(ctl: Shell, name: str, tmp_path: Path) -> None:
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")
    script = tmp_path / "script"
    script.write_text(ctl("completion", name).stdout)
    done = subprocess.run([name, "-n", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_fish_offers_the_same(ctl: Shell, bin_dir: Path) -> None:
    if shutil.which("fish") is None:
        pytest.skip("fish is not installed")
    env = {**ctl.environ, "PATH": f"{bin_dir}:{os.environ['PATH']}", "HOME": str(bin_dir)}
    line = "bucketctl completion fish | source; complete -C 'bucketctl get --device pho'"
    done = subprocess.run(["fish", "-c", line], env=env, capture_output=True, text=True)
    assert sorted(done.stdout.split("\n")) == ["", "phone 2", "phone-1"], done
