"""The command: links, the browser, ssh, its end, and what it says while the daemon is away."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import pty
import signal
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import console_process
import pytest
from bucketd_client.ctl.console import pages
from bucketd_client.ctl.console.keys import Keys
from bucketd_client.ctl.console.server import Server
from bucketd_client.ctl.session import Session
from bucketd_client.ctl.table.daily import Options
from console_process import LINK, Console
from ctl_shell import CTL, Shell
from harness import REPO, Daemon

BUCKET = "/v1/devices/phone-1/jobs/login/bucket"
MAX_PAGE_BYTES = 250 * 1024


@pytest.fixture
def console(shared_daemon: Daemon) -> Iterator[Console]:
    yield from console_process.opened(shared_daemon)


def test_the_page_is_small() -> None:
    """At most 250 KB compressed, of all files that a browser may ever load."""
    try:
        files = pages.load()
    except pages.NotBuilt:
        pytest.skip("the page is not built")
    loaded = {path: data for path, (_, data) in files.items() if path != "/licenses.txt"}
    assert sum(len(gzip.compress(data, 9, mtime=0)) for data in loaded.values()) <= MAX_PAGE_BYTES


def test_the_page_names_no_other_place() -> None:
    """No URL in it leads away from the console, but names of XML namespaces and schema dialects."""
    try:
        files = pages.load()
    except pages.NotBuilt:
        pytest.skip("the page is not built")
    known = (b"http://www.w3.org/", b"http://bucketd", b"https://json-schema.org/")
    for path in ("/", "/main.js", "/main.css", "/icon.svg"):
        data = files[path][1]
        for piece in data.split(b"http")[1:]:
            url = b"http" + piece[:60]
            assert not url.startswith((b"http:", b"https:")) or url.startswith(known), url


def test_the_lock_file_names_no_host() -> None:
    text = (REPO / "client/console/package-lock.json").read_text()
    assert '"resolved"' not in text
    versions = json.loads((REPO / "client/console/package.json").read_text())["devDependencies"]
    assert all(version[0].isdigit() for version in versions.values())


def test_events_are_streamed(console: Console, shared_daemon: Daemon) -> None:
    shared_daemon.request("PUT", BUCKET, {"n": 0})
    lines: list[str] = []
    seen = threading.Event()

    def read() -> None:
        head = f"GET /v1/events?mask=secrets HTTP/1.1\r\nHost: {console.authority}\r\n"
        head += f"Authorization: Bearer {console.token}\r\n\r\n"
        import socket

        with socket.create_connection(("127.0.0.1", console.port), 10) as peer:
            peer.sendall(head.encode())
            with contextlib.suppress(TimeoutError):
                while data := peer.recv(65536):
                    lines.append(data.decode())
                    if '"set":{"n":1}' in "".join(lines):
                        seen.set()
                        return

    reader = threading.Thread(target=read)
    reader.start()
    until = time.monotonic() + 10
    while "retry:" not in "".join(lines) and time.monotonic() < until:
        time.sleep(0.01)
    shared_daemon.request("PUT", BUCKET, {"n": 1})
    assert seen.wait(10), lines
    reader.join(10)


def watchers(daemon: Daemon) -> int:
    return int(daemon.request("GET", "/v1/status").json["counts"]["watchers"])


def test_a_page_that_leaves_ends_its_stream_at_the_daemon(
    console: Console, shared_daemon: Daemon
) -> None:
    import socket

    before = watchers(shared_daemon)
    head = f"GET /v1/events HTTP/1.1\r\nHost: {console.authority}\r\n"
    head += f"Authorization: Bearer {console.token}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", console.port), 10) as peer:
        peer.sendall(head.encode())
        peer.recv(65536)
        assert watchers(shared_daemon) == before + 1
    until = time.monotonic() + 10
    while watchers(shared_daemon) > before and time.monotonic() < until:
        time.sleep(0.02)
    assert watchers(shared_daemon) == before


def test_it_outlives_the_daemon(daemon: Daemon) -> None:
    daemon.request("PUT", BUCKET, {"n": 1})
    for console in console_process.opened(daemon):
        daemon.stop()
        away = console.request("GET", BUCKET)
        assert (away.status, away.json["code"]) == (502, "daemon_unreachable")
        assert "is bucketd running?" in away.json["error"]
        daemon.start()
        assert console.request("GET", BUCKET).json["bucket"] == {"n": 1}


def test_doctor_and_types_are_served(console: Console, shared_daemon: Daemon) -> None:
    findings = console.request("GET", "/console/doctor").json["findings"]
    assert {"daemon", "disk", "access"} <= {finding["about"] for finding in findings}
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    body = {"automation": "login", "language": "typescript", "json_schema": schema}
    made = console.json("POST", "/console/types", body).json
    assert "a?: string" in made["text"]
    assert console.json("POST", "/console/types", {**body, "language": "cobol"}).status == 400
    assert console.request("GET", "/console/nothing").status == 404
    assert console.request("DELETE", "/console/state").status == 405


# --- its end


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it(shared_daemon: Daemon, number: signal.Signals) -> None:
    console = console_process.start(shared_daemon)
    console.process.send_signal(number)
    _, said = console.process.communicate(timeout=10)
    assert console.process.returncode == 0
    assert "the console has ended" in said
    with pytest.raises(ConnectionRefusedError):
        console.request("GET", "/")


def terminal(daemon: Daemon) -> tuple[subprocess.Popen[bytes], int]:
    """Start a console on a terminal of its own; return the process and our end of it."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*CTL, "console", "--no-browser"],
        env=Shell(daemon).environ,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    return process, ours


def read_links(ours: int, count: int) -> list[str]:
    text, until = "", time.monotonic() + 15
    while len(LINK.findall(text)) < count and time.monotonic() < until:
        text += os.read(ours, 4096).decode()
    return [ticket for _, ticket in LINK.findall(text)]


def test_enter_gives_another_link_and_the_terminal_ends_it(
    shared_daemon: Daemon, console: Console
) -> None:
    del console  # It skips where no page is built.
    process, ours = terminal(shared_daemon)
    first = read_links(ours, 1)
    os.write(ours, b"\n")
    second = read_links(ours, 1)
    assert len({*first, *second}) == 2
    os.close(ours)
    assert process.wait(10) == 0


async def test_it_ends_some_time_after_nobody_uses_it(shared_daemon: Daemon) -> None:
    session = Session(Options({"socket": shared_daemon.socket}, []))
    server = Server(session, Keys(is_read_only=False), {"/": ("text/plain", b"x")})
    await server.listen(0)
    try:
        began = time.monotonic()
        await server.wait_until_idle(0.3)
        assert time.monotonic() - began >= 0.3
    finally:
        await server.close()


# --- how it is opened


def test_the_redirect_file_is_for_its_user_alone(shared_daemon: Daemon, tmp_path: Path) -> None:
    """A browser that writes down its argument, and the file that this names."""
    seen = tmp_path / "seen"
    browser = tmp_path / "browser"
    browser.write_text(
        f'#!/bin/sh\nprintf "%s\\n" "$1" >{seen}.tmp\n'
        f'cat "${{1#file://}}" >{seen}.page\nstat -c %a "${{1#file://}}" >{seen}.mode\n'
        f"mv {seen}.tmp {seen}\n"
    )
    browser.chmod(0o755)
    (tmp_path / "run").mkdir(mode=0o700)
    env = {"BROWSER": f"{browser} %s", "XDG_RUNTIME_DIR": str(tmp_path / "run")}
    probe = console_process.start(shared_daemon)
    probe.stop()
    probe.process.communicate()
    process = subprocess.Popen(
        [*CTL, "console"],
        env={**Shell(shared_daemon).environ, **env},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    try:
        until = time.monotonic() + 15
        while not seen.exists() and time.monotonic() < until:
            time.sleep(0.02)
        argument = seen.read_text().strip()
        assert argument.startswith(f"file://{tmp_path}/run/bucketctl-console-")
        assert (tmp_path / "seen.mode").read_text().strip() == "600"
        folder = Path(argument.removeprefix("file://")).parent
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        found = LINK.search((tmp_path / "seen.page").read_text())
        assert found is not None
        console = Console(process, int(found[1]), found[2])
        assert console.redeem(console.ticket).status == 200
        until = time.monotonic() + 5
        while list(folder.iterdir()) and time.monotonic() < until:
            time.sleep(0.02)
        assert list(folder.iterdir()) == []
    finally:
        process.terminate()
        printed, _ = process.communicate(timeout=10)
    assert "ticket" not in printed
    assert not folder.exists()


def test_over_ssh_it_prints_the_line_that_forwards_it(shared_daemon: Daemon) -> None:
    env = {"SSH_CONNECTION": "192.0.2.7 50000 192.0.2.9 2222"}
    console = console_process.start(shared_daemon, "--port", "0", env=env)
    console.stop()
    printed, _ = console.process.communicate()
    # The link was the last line, which start has read.
    process = subprocess.Popen(
        [*CTL, "console", "--no-browser"],
        env={**Shell(shared_daemon).environ, **env},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    )
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(4)]
    process.terminate()
    process.communicate(timeout=10)
    found = LINK.search("".join(lines))
    assert found is not None
    port = found[1]
    assert f"ssh -N -L {port}:127.0.0.1:{port} -p 2222 " in lines[1]
    assert lines[1].rstrip().endswith("@192.0.2.9")
    assert printed == ""


def test_a_port_that_is_taken_is_named(console: Console, shared_daemon: Daemon) -> None:
    done = Shell(shared_daemon)("console", "--no-browser", "--port", str(console.port))
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1:{console.port}: " in done.stderr
    assert "choose another --port" in done.stderr


@pytest.mark.parametrize("port", ["x", "65536", "-1", "1e3", "٣"])
def test_a_wrong_port_is_a_usage_error(shared_daemon: Daemon, port: str) -> None:
    done = Shell(shared_daemon)("console", f"--port={port}")
    assert done.returncode == 2


def test_without_a_daemon_it_says_so(stopped_daemon: Daemon, console: Console) -> None:
    del console
    done = Shell(stopped_daemon)("console", "--no-browser", "--timeout", "0.2")
    assert done.returncode == 4
    assert "cannot reach bucketd" in done.stderr


def test_a_checkout_without_node_says_how_to_get_the_page(
    shared_daemon: Daemon, tmp_path: Path
) -> None:
    source = REPO / "client/python/bucketd_client"
    subprocess.run(["cp", "-R", source, tmp_path], check=True)
    subprocess.run(["rm", "-rf", tmp_path / "bucketd_client/ctl/console/web"], check=True)
    done = Shell(shared_daemon)("console", env={"PYTHONPATH": str(tmp_path)})
    assert done.returncode == 1
    assert "make console" in done.stderr
    assert "wheel" in done.stderr
