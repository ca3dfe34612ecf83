"""The Playwright examples with a real browser: Debian's Chromium, and a page that is served here.

``make test-browser`` installs what they need beside this checkout; without it they are skipped.
"""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs

import pytest
from harness import REPO, Daemon

PLACE = REPO / ".venv-browser"
EXAMPLES = REPO / "examples" / "playwright"
CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None or not (PLACE / "bin" / "pytest").exists(),
    reason="there is no Chromium, or no Playwright: apt-get install chromium; make test-browser",
)
FORM = """<form method="post"><label>User <input name="user"></label>
<label>Password <input name="password" type="password"></label><button>Log in</button></form>"""


class Shop(ThreadingHTTPServer):
    """A page that knows its users by a cookie; ``logins`` counts who has logged in."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), ShopHandler)
        self.logins = 0
        self.sessions: set[str] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/"


class ShopHandler(BaseHTTPRequestHandler):
    server: Shop

    def do_GET(self) -> None:
        cookie = self.headers.get("cookie", "").removeprefix("session=")
        known = cookie in self.server.sessions
        self._answer(200, "Welcome <ul><li>order 1</li></ul>" if known else FORM)

    def do_POST(self) -> None:
        length = int(self.headers["content-length"])
        given = parse_qs(self.rfile.read(length).decode())
        assert given == {"user": ["ada"], "password": ["s3cret"]}
        self.server.logins += 1
        session = f"s{self.server.logins}"
        self.server.sessions.add(session)
        self._answer(303, "", ("Location", "/"), ("Set-Cookie", f"session={session}; HttpOnly"))

    def _answer(self, status: int, text: str, *headers: tuple[str, str]) -> None:
        body = f"<!doctype html><title>Shop</title>{text}".encode()
        self.send_response(status)
        for header in (("Content-Type", "text/html"), ("Content-Length", str(len(body))), *headers):
            self.send_header(*header)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def shop() -> Iterator[Shop]:
    with Shop() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def iterate(daemon: Daemon, shop: Shop, device: str, argv: list[str], cwd: Path) -> str:
    """Return what one run of an automation prints."""
    account = {"APP_USER": "ada", "APP_PASSWORD": "s3cret", "PAGE": shop.url, "BROWSER": CHROMIUM}
    context = {"BUCKETD_SOCKET": daemon.socket, "BUCKETD_TOKEN": daemon.mint(device, "login")}
    env = daemon.environ({**account, **context, "BUCKETD_DEVICE": device})  # type: ignore[dict-item]
    done = subprocess.run(argv, cwd=cwd, env=env, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def python(name: str) -> list[str]:
    return [str(PLACE / "bin" / "python"), str(EXAMPLES / name)]


def node(name: str, project: Path) -> list[str]:
    """Compile an example in a project that has its two packages."""
    modules = project / "node_modules"
    modules.mkdir(exist_ok=True)
    for package, place in (("bucketd-client", REPO / "client" / "node"),
                           ("playwright", PLACE / "node_modules" / "playwright")):  # fmt: skip
        if not (modules / package).exists():
            (modules / package).symlink_to(place)
    program = project / name
    shutil.copy(EXAMPLES / name, program)
    tsc = [str(REPO / "client" / "node" / "node_modules" / ".bin" / "tsc"), "--noCheck"]
    subprocess.run([*tsc, "--module", "nodenext", "--target", "es2022", str(program)], check=True)
    return ["node", str(program.with_suffix(".mjs"))]


@pytest.mark.parametrize("language", ["python", "typescript"])
def test_logging_in_once(daemon: Daemon, shop: Shop, tmp_path: Path, language: str) -> None:
    name = {"python": "login_once.py", "typescript": "login-once.mts"}[language]
    argv = python(name) if language == "python" else node(name, tmp_path)
    first = iterate(daemon, shop, "browser-1", argv, tmp_path)
    assert first == "logging in as ada\nvisit 1\n"
    daemon.restart()
    second = iterate(daemon, shop, "browser-1", argv, tmp_path)
    assert second == "going on with the stored session\nvisit 2\n"
    assert shop.logins == 1


@pytest.mark.parametrize("language", ["python", "typescript"])
def test_workers_share_a_login(daemon: Daemon, shop: Shop, tmp_path: Path, language: str) -> None:
    name = {"python": "shared_login.py", "typescript": "shared-login.mts"}[language]
    argv = python(name) if language == "python" else node(name, tmp_path)
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(iterate, daemon, shop, "shop", argv, tmp_path) for _ in range(2)]
        said = sorted(run.result() for run in runs)
    work = "working as everybody else\n"
    assert said == [f"logging in as ada\n{work}", work]
    assert shop.logins == 1


def test_runs_of_pytest_share_a_login(daemon: Daemon, shop: Shop, tmp_path: Path) -> None:
    for name in ("test_shop.py", "shared_login.py"):
        shutil.copy(EXAMPLES / name, tmp_path)
    argv = [str(PLACE / "bin" / "pytest"), "-p", "no:cacheprovider", "test_shop.py"]
    for _ in range(2):
        assert "2 passed" in iterate(daemon, shop, "browser-1", argv, tmp_path)
    assert shop.logins == 1
