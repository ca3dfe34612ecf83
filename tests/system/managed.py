"""A daemon whose service manager is the test: it hears the notices and owns the socket."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from harness import REPO, Daemon

STARTED = str(Path(__file__).parent / "started.py")


class Notices:
    """The datagrams that arrive at ``$NOTIFY_SOCKET``, as dicts in their order."""

    def __init__(self, address: str) -> None:
        self.variable = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)

    def next(self, timeout: float = 15.0) -> dict[str, str]:
        self._socket.settimeout(timeout)
        lines = self._socket.recv(65536).decode().split("\n")
        return dict(line.split("=", 1) for line in lines)

    def until(self, name: str, timeout: float = 15.0) -> dict[str, str]:
        """The next one that says ``name``; what comes before it is dropped."""
        deadline = time.monotonic() + timeout
        while True:
            notice = self.next(max(0.01, deadline - time.monotonic()))
            if name in notice:
                return notice

    def drop(self) -> list[dict[str, str]]:
        """What waits now, taken away."""
        seen = []
        with contextlib.suppress(TimeoutError, BlockingIOError):
            while True:
                seen.append(self.next(0.01))
        return seen

    def close(self) -> None:
        self._socket.close()


class Managed(Daemon):
    """``bucketd`` with the variables and descriptors that systemd would give it."""

    notices: Notices
    given: list[socket.socket]

    def spawn(self, *args: str, env: dict[str, str] | None = None) -> None:
        fds = [sock.fileno() for sock in self.given]
        descriptors = ",".join(map(str, fds))
        command = [sys.executable, STARTED, descriptors, str(self.slow), str(self.defect)]
        variables = self.environ({"NOTIFY_SOCKET": self.notices.variable, **(env or {})})
        with (self.home / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "serve", *self.options(), *args],
                cwd=REPO,
                stderr=log,
                stdout=log,
                env=variables,
                pass_fds=fds,
            )

    @property
    def slow(self) -> Path:
        """While it exists, the committer stands still at its next write."""
        return self.home / "slow"

    @property
    def defect(self) -> Path:
        """While it exists, a background task dies: of an ``error``, or by its ``end``."""
        return self.home / "defect"

    def listen(self) -> None:
        """Make the socket that is handed over at each start from now on."""
        self.runtime_dir.mkdir(exist_ok=True)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.bind(self.socket)
        sock.listen(64)
        self.given.append(sock)

    def remove(self) -> None:
        super().remove()
        for sock in self.given:
            sock.close()
        self.notices.close()


def new_managed(address: str = "") -> Managed:
    """Not started yet; its notices go to a socket in its home, or to ``address``."""
    home = Path(tempfile.mkdtemp(prefix="bd-"))
    try:
        managed = Managed(home)
        managed.given = []
        managed.notices = Notices(address or str(home / "notify"))
    except BaseException:
        shutil.rmtree(home)
        raise
    return managed
