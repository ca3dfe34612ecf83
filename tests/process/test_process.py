"""The daemon as a process: its socket, its locks, its signals."""

from __future__ import annotations

import os
import re
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fleet import Certificates
from harness import REPO, Daemon, new_daemon, pair

TARGET = pair("phone", "job")


def mode(path: Path | str) -> int:
    return stat.S_IMODE(Path(path).lstat().st_mode)


def refuses(daemon: Daemon, *words: str) -> str:
    """Start it in vain: exit status 1 and one line with these words."""
    seen = len(daemon.log)
    daemon.spawn()
    assert daemon.process is not None
    assert daemon.process.wait(15) == 1, daemon.log
    log = daemon.log[seen:]
    assert "Traceback" not in log, log
    line = log.strip().splitlines()[-1]
    for word in ("cannot", *words):
        assert word in line, log
    return line


@contextmanager
def beside(daemon: Daemon) -> Iterator[Daemon]:
    """A second daemon that is not started yet, with directories of its own."""
    other = new_daemon()
    try:
        yield other
    finally:
        other.remove()


def test_socket_and_runtime_directory_are_for_everybody(daemon: Daemon) -> None:
    assert stat.S_ISSOCK(Path(daemon.socket).lstat().st_mode)
    assert mode(daemon.socket) == 0o666
    assert mode(daemon.runtime_dir) == 0o755
    daemon.mint("phone", "job")
    assert mode(daemon.runtime_dir / "contexts") == 0o700


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_socket_modes_whatever_the_umask(stopped_daemon: Daemon, umask: int) -> None:
    run = "import runpy; runpy.run_module('bucketd', run_name='__main__')"
    stopped_daemon.program = ("-c", f"import os; os.umask({umask}); {run}")
    stopped_daemon.start()
    assert mode(stopped_daemon.socket) == 0o666
    assert mode(stopped_daemon.runtime_dir) == 0o755
    assert mode(stopped_daemon.state_dir) == 0o700


def test_the_socket_mode_is_a_setting(stopped_daemon: Daemon) -> None:
    stopped_daemon.config.write_text('[socket]\nmode = "0600"\n')
    assert mode(stopped_daemon.start().socket) == 0o600


def test_state_directories_are_made(stopped_daemon: Daemon) -> None:
    stopped_daemon.extra_args = ("--state-dir", str(stopped_daemon.home / "a" / "b" / "state"))
    stopped_daemon.start()
    assert mode(stopped_daemon.home / "a" / "b" / "state") == 0o700


def test_a_state_directory_that_is_a_file(stopped_daemon: Daemon) -> None:
    stopped_daemon.state_dir.write_text("mine")
    refuses(stopped_daemon, str(stopped_daemon.state_dir))
    assert stopped_daemon.state_dir.read_text() == "mine"


@pytest.mark.parametrize("bits", [0o755, 0o777])
def test_an_open_state_directory_does_not_open_its_buckets(
    stopped_daemon: Daemon, bits: int
) -> None:
    """It may have been made by somebody else; what lies in it is closed all the same."""
    stopped_daemon.state_dir.mkdir()
    stopped_daemon.state_dir.chmod(bits)
    stopped_daemon.start()
    stopped_daemon.request("PUT", TARGET, {"n": 1})
    stopped_daemon.stop()
    closed = [mode(path) & 0o077 for path in stopped_daemon.state_dir.rglob("*")]
    assert set(closed) == {0}
    assert mode(stopped_daemon.state_dir) & 0o077 == 0


def test_a_state_directory_of_another_user(nobodys_daemon: Daemon) -> None:
    nobodys_daemon.state_dir.mkdir(mode=0o700)
    refuses(nobodys_daemon, str(nobodys_daemon.state_dir))
    assert list(nobodys_daemon.state_dir.iterdir()) == []


def test_the_daemons_own_user_is_an_operator(nobodys_daemon: Daemon) -> None:
    nobodys_daemon.start()
    assert mode(nobodys_daemon.state_dir) == 0o700
    assert nobodys_daemon.state_dir.stat().st_uid == 65534
    assert nobodys_daemon.request("PUT", TARGET, {"n": 1}).status == 200


# --- one daemon per state directory and per socket


def test_a_second_daemon_on_the_state_directory(daemon: Daemon) -> None:
    daemon.request("PUT", TARGET, {"n": 1})
    with beside(daemon) as second:
        second.extra_args = ("--state-dir", str(daemon.state_dir))
        line = refuses(second, str(daemon.pid), str(daemon.state_dir))
        assert not Path(second.socket).exists(), line
    assert daemon.request("GET", TARGET).bucket == {"n": 1}


def test_a_second_daemon_with_the_same_arguments(daemon: Daemon) -> None:
    again = Daemon(daemon.home)
    refuses(again, str(daemon.pid))
    assert daemon.request("PUT", TARGET, {"n": 1}).status == 200


def test_a_second_daemon_by_another_path(daemon: Daemon) -> None:
    link = daemon.home / "link"
    link.symlink_to(daemon.state_dir)
    with beside(daemon) as second:
        second.extra_args = ("--state-dir", str(link))
        refuses(second, str(daemon.pid))


def test_a_second_daemon_after_the_lock_file_was_removed(daemon: Daemon) -> None:
    (daemon.state_dir / "daemon.lock").unlink()
    for _ in range(2):  # the first try has made another one
        refuses(Daemon(daemon.home), "another bucketd holds it", str(daemon.state_dir))
    assert daemon.request("PUT", TARGET, {"n": 1}).status == 200


def test_the_lock_of_a_killed_daemon_is_free(daemon: Daemon) -> None:
    daemon.request("PUT", TARGET, {"n": 1})
    daemon.kill()
    assert Path(daemon.socket).exists()
    daemon.start()
    assert daemon.request("GET", TARGET).bucket == {"n": 1}
    assert mode(daemon.socket) == 0o666


def test_a_live_socket_is_not_stolen(daemon: Daemon) -> None:
    inode = Path(daemon.socket).lstat().st_ino
    with beside(daemon) as second:
        second.extra_args = ("--socket", daemon.socket)
        refuses(second, daemon.socket)
    assert Path(daemon.socket).lstat().st_ino == inode
    assert daemon.request("GET", "/readyz").status == 200


def test_a_live_socket_of_another_program_is_not_stolen(stopped_daemon: Daemon) -> None:
    stopped_daemon.runtime_dir.mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
        other.bind(stopped_daemon.socket)
        other.listen(1)
        refuses(stopped_daemon, stopped_daemon.socket)
        assert Path(stopped_daemon.socket).exists()


def test_a_busy_socket_of_another_program_is_not_stolen(stopped_daemon: Daemon) -> None:
    """Its queue is full, so that connecting fails although somebody listens."""
    stopped_daemon.runtime_dir.mkdir()
    waiting = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
        other.bind(stopped_daemon.socket)
        other.listen(0)
        try:
            for _ in range(3):
                waiting.append(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
                waiting[-1].setblocking(False)
                waiting[-1].connect_ex(stopped_daemon.socket)
            inode = Path(stopped_daemon.socket).lstat().st_ino
            refuses(stopped_daemon, stopped_daemon.socket)
            assert Path(stopped_daemon.socket).lstat().st_ino == inode
        finally:
            for sock in waiting:
                sock.close()


def test_a_stale_socket_that_may_not_be_removed_is_told(nobodys_daemon: Daemon) -> None:
    daemon = nobodys_daemon
    place = daemon.home / "shared"
    place.mkdir()
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(place / "sock"))
    (place / "sock").chmod(0o666)
    daemon.extra_args = ("--socket", str(place / "sock"))
    refuses(daemon, str(place / "sock"), "Permission denied")


def test_a_socket_that_may_not_be_removed_keeps_no_daemon_from_its_end(
    nobodys_daemon: Daemon,
) -> None:
    daemon = nobodys_daemon
    place = daemon.home / "shared"
    place.mkdir(mode=0o777)
    place.chmod(0o777)
    daemon.extra_args = ("--socket", str(place / "sock"))
    daemon.spawn()
    deadline = time.monotonic() + 15
    while not (place / "sock").exists():
        assert time.monotonic() < deadline, daemon.log
        time.sleep(0.02)
    place.chmod(0o755)
    time.sleep(0.3)
    assert daemon.stop() == 0, daemon.log
    assert "Traceback" not in daemon.log


def test_a_stale_socket_is_replaced(stopped_daemon: Daemon) -> None:
    stopped_daemon.runtime_dir.mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
        other.bind(stopped_daemon.socket)
    assert stopped_daemon.start().request("GET", "/healthz").status == 200


@pytest.mark.parametrize("kind", ["file", "empty file", "directory", "symlink", "FIFO"])
def test_what_is_no_socket_is_never_removed(stopped_daemon: Daemon, kind: str) -> None:
    stopped_daemon.runtime_dir.mkdir()
    path = Path(stopped_daemon.socket)
    target = stopped_daemon.home / "mine"
    target.write_text("mine")
    if kind == "directory":
        path.mkdir()
    elif kind == "symlink":
        path.symlink_to(target)
    elif kind == "FIFO":
        os.mkfifo(path)
    else:
        path.write_text("mine" if kind == "file" else "")
    before = path.lstat()
    refuses(stopped_daemon, stopped_daemon.socket)
    assert (path.lstat().st_ino, path.lstat().st_mode) == (before.st_ino, before.st_mode)
    assert target.read_text() == "mine"


def test_a_socket_path_that_is_too_long(stopped_daemon: Daemon) -> None:
    path = str(stopped_daemon.home / ("x" * 120) / "s")
    stopped_daemon.extra_args = ("--socket", path)
    assert re.search(r"\b10[78]\b", refuses(stopped_daemon, path))


@pytest.mark.parametrize("length", [107, 108])
def test_the_longest_socket_path(stopped_daemon: Daemon, length: int) -> None:
    path = str(stopped_daemon.home) + "/"
    path += "s" * (length - len(path))
    stopped_daemon.extra_args = ("--socket", path)
    if length == 108:
        refuses(stopped_daemon, path)
        return
    stopped_daemon.spawn()
    deadline = time.monotonic() + 10
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        while sock.connect_ex(path) != 0:
            assert time.monotonic() < deadline, stopped_daemon.log
            time.sleep(0.02)


def test_the_socket_goes_with_a_clean_stop(daemon: Daemon) -> None:
    """Whoever connects then is told at once that nobody listens."""
    assert daemon.stop() == 0
    with pytest.raises((FileNotFoundError, ConnectionRefusedError)):
        daemon.connect()


def test_a_clean_stop_leaves_a_socket_of_somebody_else(daemon: Daemon) -> None:
    path = Path(daemon.socket)
    path.unlink()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
        other.bind(daemon.socket)
        other.listen(1)
        assert daemon.stop() == 0
        assert path.exists()


def test_open_files_at_the_start_do_not_matter(stopped_daemon: Daemon) -> None:
    """Closed standard streams: no file of the store may end up under their numbers."""
    command = [sys.executable, "-m", "bucketd", "serve", *stopped_daemon.options()]
    shell = 'exec "$@" 0<&- 1>&- 2>&-'
    stopped_daemon.process = subprocess.Popen(
        ["sh", "-c", shell, "sh", *command], cwd=REPO, env=stopped_daemon.environ()
    )
    stopped_daemon.wait_ready()
    assert stopped_daemon.request("PUT", TARGET, {"n": 1}).status == 200
    stopped_daemon.restart()
    assert stopped_daemon.request("GET", TARGET).bucket == {"n": 1}


def test_a_start_reads_no_certificates(tmp_path: Path) -> None:
    """They would be a sixth of it; and where the user's are is not forgotten."""
    place = Certificates(tmp_path).file("ca.pem")
    program = (
        "import os, bucketd.__main__\n"
        "from aiohttp.connector import _SSL_CONTEXT_VERIFIED as context\n"
        "print(context.cert_store_stats()['x509'], os.environ['SSL_CERT_FILE'],"
        " 'SSL_CERT_DIR' in os.environ)"
    )
    env = {n: v for n, v in os.environ.items() if n != "SSL_CERT_DIR"} | {"SSL_CERT_FILE": place}
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, env=env, cwd=REPO, capture_output=True, text=True, timeout=60)
    assert result.stdout == f"0 {place} False\n", result.stderr
