"""What the demos are played with: a screen, a scratch daemon, and the automation to run."""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
NODE = ROOT / "client" / "node"
BIN = Path(sys.executable).parent
ENVIRON = {k: v for k, v in os.environ.items() if not k.startswith("BUCKETD_")}
WIDTH = 94


class Failed(Exception):
    """A step did not show what it should; the message says what it showed."""


# --- the screen


def _sgr(code: str) -> str:
    coloured = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    return f"\033[{code}m" if coloured and os.environ.get("TERM") != "dumb" else ""


def _mark(sign: str, word: str) -> str:
    try:
        sign.encode(sys.stdout.encoding)
    except UnicodeEncodeError:
        return word
    return sign


def title(number: int, text: str) -> None:
    print(f"\n{_sgr('1')}{number}. {text}{_sgr('0')}", flush=True)


def command(text: str) -> None:
    print(f"   $ {text}", flush=True)


def output(text: str) -> None:
    """What a program said, folded at blanks and commas where it is wide."""
    for line in text.splitlines():
        row = ""
        for piece in re.findall(r"[^ ,]*[ ,]?", line):
            if row and len(row) + len(piece) > WIDTH:
                print(f"   | {row.rstrip()}")
                row = ""
            row += piece
        print(f"   | {row}")


def cross() -> str:
    return f"{_sgr('31')}{_mark('✗', 'FAILED:')}{_sgr('0')}"


def check(holds: bool, what: str, otherwise: str) -> None:
    """Print a tick and ``what``; Failed with ``otherwise`` where it does not hold."""
    if not holds:
        raise Failed(otherwise)
    print(f"   {_sgr('32')}{_mark('✓', 'ok:')}{_sgr('0')} {what}", flush=True)


# --- the daemon


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=5)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Daemon:
    """``bucketd`` in the scratch directory; it never touches a process it did not start."""

    def __init__(self, scratch: Path, settings: str = "") -> None:
        self.state, self.runtime = scratch / "state", scratch / "run"
        self.socket = str(self.runtime / "bucketd.sock")
        self._log, self._config = scratch / "bucketd.log", scratch / "bucketd.toml"
        # One of its own, so that the settings of a daemon you may have do not count here.
        self._config.write_text(settings)
        self._shown = f" --config {self._config} \\\n      " if settings else ""
        shutil.copytree(ROOT / "config" / "schemas", scratch / "schemas")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        where = f"--state-dir {self.state} \\\n       --runtime-dir {self.runtime}"
        command(f"bucketd{self._shown} {where}")
        self._process = self._spawn()
        deadline = time.monotonic() + 20
        while self._process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                if self.ask("GET", "/readyz")[0] == 200:
                    return
            time.sleep(0.02)
        raise Failed("the daemon did not get ready")

    def _spawn(self) -> subprocess.Popen[bytes]:
        argv = [str(BIN / "bucketd"), "serve", "--config", str(self._config)]
        argv += ["--state-dir", str(self.state), "--runtime-dir", str(self.runtime)]
        # Where /tmp is in memory, a power cut would cost the demo, and nothing else.
        argv += ["--log-level", "warning", "--unsafe-filesystem"]
        try:
            with self._log.open("ab") as log:
                return subprocess.Popen(
                    argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=ENVIRON
                )
        except OSError as error:
            raise Failed(f"cannot start bucketd: {error}; prepare it with: make venv") from error

    def kill(self) -> None:
        if self._process is not None:
            command(f"kill -KILL {self._process.pid}")
            self._process.kill()
            self._process.wait()

    def stop(self) -> None:
        if self._process is not None:
            end(self._process)

    def answers(self) -> bool:
        try:
            self.ask("GET", "/healthz")
        except OSError:
            return False
        return True

    def ask(self, method: str, path: str, body: Any = None, token: str | None = None) -> Any:
        """Status and JSON of one request."""
        connection = UnixConnection(self.socket)
        headers = {"Content-Type": "application/json"} if body is not None else {}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        with contextlib.closing(connection):
            connection.request(method, path, body and json.dumps(body), headers)
            response = connection.getresponse()
            return response.status, json.load(response)

    def log(self) -> str:
        return self._log.read_text(errors="replace") if self._log.exists() else ""


# --- the automation


def choose_automation() -> list[str]:
    """The login automation in TypeScript, or in Python where that cannot be; says which."""
    problem = typescript_problem()
    if problem is None:
        print("The automation: examples/login-session.ts")
        return ["node", "client/node/scripts/example.mjs"]
    print(f"The automation: examples/login_session.py ({problem})")
    return ["python", "examples/login_session.py"]


def typescript_problem() -> str | None:
    """Build the TypeScript client and example if that is due; why not, where it cannot be done."""
    node = shutil.which("node")
    if node is None:
        return "Node is not here, else it would be the TypeScript one"
    _, version, _ = run([node, "--version"], {})
    if int((re.match(r"v(\d+)", version) or ["", "0"])[1]) < 18:
        return f"Node is {version.strip()}, TypeScript wants 18 or newer"
    if not (NODE / "node_modules" / "typescript").exists():
        return "TypeScript is not installed: make node"
    with (NODE / "package.json").open() as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)  # two at a time would build over each other
        return _build()


def _build() -> str | None:
    built, sources = NODE / "dist" / "index.mjs", (NODE / "src").iterdir()
    if not built.exists() or built.stat().st_mtime < max(s.stat().st_mtime for s in sources):
        print("Compiling the TypeScript client (once; a few seconds) ...", flush=True)
        if run(["npm", "--prefix", str(NODE), "run", "--silent", "build"], {})[0]:
            return "the TypeScript client does not compile here: npm --prefix client/node run build"
    # Outside a job context the example compiles itself, and then has nothing to do.
    code, _, error = run(["node", "client/node/scripts/example.mjs"], {})
    if code == 1 and error.startswith("login:"):
        return None
    return "the TypeScript automation does not start here"


def run(argv: list[str], environ: dict[str, str]) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of a command, run in the checkout."""
    path = f"{BIN}:{ENVIRON.get('PATH', os.defpath)}"
    pipe = subprocess.PIPE
    try:
        process = subprocess.Popen(
            argv, cwd=ROOT, env={**ENVIRON, "PATH": path, **environ},
            stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True,
        )  # fmt: skip
    except OSError as error:
        raise Failed(f"cannot run {shlex.join(argv)}: {error}") from error
    try:
        said, error_text = process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        raise Failed(f"{shlex.join(argv)} did not end within 60 s") from None
    finally:
        end(process)
    return process.returncode, said, error_text


def end(process: subprocess.Popen[Any]) -> None:
    """Ask it to end, so that it can end what it started; insist after a while."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
