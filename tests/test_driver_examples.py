"""The Appium and Playwright examples: a real daemon and real clients, a stub in the driver's place.

Each iteration is a process of its own, and the daemon is killed between two of them.
"""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import documents
import pytest
from harness import REPO, Daemon, pair

STUBS = Path(__file__).parent / "stubs"
ACCOUNT = {"APP_USER": "ada", "APP_PASSWORD": "s3cret"}


def iterate(daemon: Daemon, device: str, argv: list[str], environ: dict[str, str]) -> str:
    """What one iteration of the automation says."""
    context = {"BUCKETD_SOCKET": daemon.socket, "BUCKETD_TOKEN": daemon.mint(device, "login")}
    env = daemon.environ({**ACCOUNT, **environ, **context, "BUCKETD_DEVICE": device})
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_appium_goes_on_where_it_was(daemon: Daemon, tmp_path: Path) -> None:
    phone = tmp_path / "phone.json"
    argv = [sys.executable, str(REPO / "examples" / "appium" / "login_once.py")]
    environ = {"PYTHONPATH": str(STUBS), "PHONE": str(phone)}

    first = iterate(daemon, "emulator-5554", argv, environ)
    assert first == "logging in as ada\nopened order 1\n"
    daemon.kill()
    daemon.start()
    second = iterate(daemon, "emulator-5554", argv, environ)
    assert second == "resuming as ada\nopened order 2\n"
    assert json.loads(phone.read_text())["opened"] == ["order 1", "order 2"]

    phone.unlink()  # the app was installed anew, and knows nobody
    third = iterate(daemon, "emulator-5554", argv, environ)
    assert third == "logging in as ada\nopened order 3\n"
    bucket = daemon.request("GET", pair("emulator-5554", "login")).bucket
    assert set(bucket) == {"user", "loggedInAt", "order"}
    assert "s3cret" not in json.dumps(bucket)


def test_playwright_in_python_logs_in_once_for_twelve_workers(daemon: Daemon) -> None:
    argv = [sys.executable, str(REPO / "examples" / "playwright" / "shared_login.py")]
    environ = {"PYTHONPATH": str(STUBS), "PAGE": "https://shop.example/"}
    with ThreadPoolExecutor(12) as pool:
        runs = [pool.submit(iterate, daemon, "shop", argv, environ) for _ in range(12)]
        said = sorted(run.result() for run in runs)
    assert said == [
        "logging in as ada\nworking as everybody else\n",
        *["working as everybody else\n"] * 11,
    ]
    assert daemon.request("GET", pair("shop", "login")).json["revision"] == 1


def test_playwright_in_python_goes_on_with_its_cookies(daemon: Daemon) -> None:
    argv = [sys.executable, str(REPO / "examples" / "playwright" / "login_once.py")]
    environ = {"PYTHONPATH": str(STUBS), "PAGE": "https://shop.example/"}
    assert iterate(daemon, "browser-1", argv, environ) == "logging in as ada\nvisit 1\n"
    daemon.kill()
    daemon.start()
    second = iterate(daemon, "browser-1", argv, environ)
    assert second == "going on with the stored session\nvisit 2\n"


def test_playwright_goes_on_with_its_cookies(daemon: Daemon, tmp_path: Path) -> None:
    problem = documents.demo_tools.typescript_problem()
    if problem is not None:
        pytest.skip(problem)
    argv = ["node", compiled(tmp_path, "login-once")]
    environ = {"PAGE": "https://shop.example/"}
    first = iterate(daemon, "browser-1", argv, environ)
    assert first == "logging in as ada\nvisit 1\n"
    daemon.kill()
    daemon.start()
    second = iterate(daemon, "browser-1", argv, environ)
    assert second == "going on with the stored session\nvisit 2\n"
    other = iterate(daemon, "browser-2", argv, environ)
    assert other == "logging in as ada\nvisit 1\n"
    stored = daemon.request("GET", pair("browser-1", "login")).bucket["storageState"]
    assert [cookie["value"] for cookie in stored["cookies"]] == ["ada"]


def test_playwright_logs_in_once_for_twelve_workers(daemon: Daemon, tmp_path: Path) -> None:
    problem = documents.demo_tools.typescript_problem()
    if problem is not None:
        pytest.skip(problem)
    argv = ["node", compiled(tmp_path, "shared-login")]
    environ = {"PAGE": "https://shop.example/"}
    with ThreadPoolExecutor(12) as pool:
        runs = [pool.submit(iterate, daemon, "shop", argv, environ) for _ in range(12)]
        told = sorted(run.result() for run in runs)
    assert told == [
        "logging in as ada\nworking as everybody else\n",
        *["working as everybody else\n"] * 11,
    ]
    assert daemon.request("GET", pair("shop", "login")).json["revision"] == 1


def compiled(project: Path, name: str) -> str:
    """The program as JavaScript, in a project that has its two packages."""
    node = REPO / "client" / "node"
    modules = project / "node_modules"
    modules.mkdir()
    (modules / "bucketd-client").symlink_to(node)
    (modules / "playwright").symlink_to(STUBS / "playwright")
    program = project / f"{name}.mts"
    program.write_text((REPO / "examples" / "playwright" / program.name).read_text())
    tsc = [str(node / "node_modules" / ".bin" / "tsc"), "--noCheck", "--module", "nodenext"]
    subprocess.run([*tsc, "--target", "es2022", str(program)], check=True, timeout=60)
    return str(program.with_suffix(".mjs"))
