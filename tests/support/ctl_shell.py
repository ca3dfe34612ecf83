"""Run bucketctl as a process: arguments in, output and exit status out."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import termios
from dataclasses import dataclass
from typing import Any

from harness import Daemon

CTL = [sys.executable, "-m", "bucketd_client.ctl"]


@dataclass(frozen=True)
class Shell:
    """Run bucketctl in a clean environment with the daemon's socket."""

    daemon: Daemon

    @property
    def environ(self) -> dict[str, str]:
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("BUCKETD_", "PYTEST_"))}
        return {**clean, "BUCKETD_SOCKET": self.daemon.socket}

    def __call__(
        self, *words: str, stdin: str = "", env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*CTL, *words],
            input=stdin,
            env={**self.environ, **(env or {})},
            capture_output=True,
            encoding="utf-8",
            timeout=30,
        )

    def json(self, *words: str, stdin: str = "", env: dict[str, str] | None = None) -> Any:
        """Run a command that must succeed, and return its output as JSON."""
        done = self(*words, stdin=stdin, env=env)
        assert (done.returncode, done.stderr) == (0, "")
        return json.loads(done.stdout)

    def line(
        self, line: str, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a line of a shell, in which ``bucketctl`` is that of the checkout."""
        function = f'bucketctl() {{ {CTL[0]} -m {CTL[2]} "$@"; }}\n'
        return subprocess.run(
            ["sh", "-c", function + line],
            env={**self.environ, **(env or {})},
            capture_output=True,
            encoding="utf-8",
            timeout=30,
        )

    def on_terminal(self, *words: str, env: dict[str, str] | None = None, columns: int = 0) -> str:
        """Run a command on a pseudo-terminal; return what a person sees, without colours.

        Nothing is known of its width if ``columns`` is 0.
        """
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, columns, 0, 0))
        process = subprocess.Popen(
            [*CTL, *words],
            env={**self.environ, "NO_COLOR": "1", **(env or {})},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)
        text = read_terminal(ours)
        process.wait(10)
        os.close(ours)
        return text

    def contexts_of(self, device: str) -> list[Any]:
        return [row for row in self.json("context", "list") if row["device"] == device]


def read_terminal(ours: int, until: str | None = None) -> str:
    """Return the output of a terminal, to its end or until a text appears."""
    text = b""
    with contextlib.suppress(OSError):  # EIO: the other end is closed
        while (until is None or until.encode() not in text) and (chunk := os.read(ours, 65536)):
            text += chunk
    return text.decode().replace("\r\n", "\n")


def session_leader(
    words: list[str], environ: dict[str, str]
) -> tuple[int, subprocess.Popen[bytes]]:
    """Start a process with its own terminal, as after a login; return the other end and it."""
    ours, theirs = pty.openpty()

    def take_terminal() -> None:
        fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)

    process = subprocess.Popen(
        words,
        env=environ,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=take_terminal,  # noqa: PLW1509
    )
    os.close(theirs)
    return ours, process
