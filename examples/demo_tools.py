"""Tools of the demos: programs in a scratch directory, and the choice of the automation."""

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

from demo_stage import Failed, command

ROOT = Path(__file__).resolve().parent.parent
NODE = ROOT / "client" / "node"
BIN = Path(sys.executable).parent
ENVIRON = {k: v for k, v in os.environ.items() if not k.startswith("BUCKETD_")}
# What the login automation prints in its two iterations.
LOGGED_IN = [
    "login: no session stored, logging in as demo-user",
    "login: session stored (revision 1)",
]
RESUMED = ["login: resuming the stored session, no login needed"]


# --- the daemon


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=5)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Program:
    """A process with a log; only the process started here is ever killed."""

    def __init__(self, argv: list[str], log: Path, package: str) -> None:
        self._argv, self._log, self._package = argv, log, package
        self._process: subprocess.Popen[bytes] | None = None

    def spawn(self) -> None:
        """Start the process. Raises Failed, which says how to get ``package``."""
        try:
            with self._log.open("ab") as log:
                self._process = subprocess.Popen(
                    self._argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=ENVIRON
                )
        except OSError as error:
            name = Path(self._argv[0]).name
            raise Failed(f"cannot start {name}: {error}; {self._package}") from error

    @property
    def runs(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        if self._process is not None:
            command(f"kill -KILL {self._process.pid}")
            self._process.kill()
            self._process.wait()

    def stop(self) -> None:
        if self._process is not None:
            end(self._process)

    def log(self) -> str:
        return self._log.read_text(errors="replace") if self._log.exists() else ""


class Daemon(Program):
    """``bucketd`` in the scratch directory."""

    def __init__(self, scratch: Path, settings: str = "") -> None:
        self.state, self.runtime = scratch / "state", scratch / "run"
        self.socket = str(self.runtime / "bucketd.sock")
        self._config = scratch / "bucketd.toml"
        # A separate file, so that the settings of a daemon on this host do not apply.
        self._config.write_text(settings)
        self._shown = f" --config {self._config} \\\n      " if settings else ""
        shutil.copytree(ROOT / "config" / "schemas", scratch / "schemas")
        argv = [str(BIN / "bucketd"), "serve", "--config", str(self._config)]
        argv += ["--state-dir", str(self.state), "--runtime-dir", str(self.runtime)]
        # /tmp may be in memory, where a power cut would lose the buckets of the demo only.
        argv += ["--log-level", "warning", "--unsafe-filesystem"]
        super().__init__(argv, scratch / "bucketd.log", "prepare it with: make venv")

    def start(self) -> None:
        where = f"--state-dir {self.state} \\\n       --runtime-dir {self.runtime}"
        command(f"bucketd{self._shown} {where}")
        self.spawn()
        deadline = time.monotonic() + 20
        while self.runs and time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                if self.ask("GET", "/readyz")[0] == 200:
                    return
            time.sleep(0.02)
        raise Failed("the daemon did not get ready")

    def answers(self) -> bool:
        try:
            self.ask("GET", "/healthz")
        except OSError:
            return False
        return True

    def ask(self, method: str, path: str, body: Any = None, token: str | None = None) -> Any:
        """Send one request, and return its status and JSON."""
        connection = UnixConnection(self.socket)
        headers = {"Content-Type": "application/json"} if body is not None else {}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        with contextlib.closing(connection):
            connection.request(method, path, body and json.dumps(body), headers)
            response = connection.getresponse()
            return response.status, json.load(response)


# --- the automation


def choose_automation() -> list[str]:
    """Return the login automation in TypeScript, or in Python without Node; print which one."""
    problem = typescript_problem()
    if problem is None:
        print("The automation: examples/login-session.ts")
        return ["node", "client/node/scripts/example.mjs"]
    print(f"The automation: examples/login_session.py ({problem})")
    return ["python", "examples/login_session.py"]


def typescript_problem() -> str | None:
    """Build the TypeScript client and example if needed; return why that is impossible, if so."""
    node = shutil.which("node")
    if node is None:
        return "Node is not installed; with it, the TypeScript automation would run"
    _, version, _ = run([node, "--version"], {})
    if int((re.match(r"v(\d+)", version) or ["", "0"])[1]) < 18:
        return f"Node is {version.strip()}, TypeScript wants 18 or newer"
    if not (NODE / "node_modules" / "typescript").exists():
        return "TypeScript is not installed: make node"
    with (NODE / "package.json").open() as turn:
        # Only one process builds at a time.
        fcntl.flock(turn, fcntl.LOCK_EX)
        return _build()


def _build() -> str | None:
    built, sources = NODE / "dist" / "index.mjs", (NODE / "src").iterdir()
    if not built.exists() or built.stat().st_mtime < max(s.stat().st_mtime for s in sources):
        print("Compiling the TypeScript client (once; a few seconds) ...", flush=True)
        if run(["npm", "--prefix", str(NODE), "run", "--silent", "build"], {})[0]:
            return "the TypeScript client does not compile here: npm --prefix client/node run build"
    # Without a job context the example is compiled, and then ends at once.
    code, _, error = run(["node", "client/node/scripts/example.mjs"], {})
    if code == 1 and error.startswith("login:"):
        return None
    return "the TypeScript automation does not start here"


def run(argv: list[str], environ: dict[str, str]) -> tuple[int, str, str]:
    """Run a command in the checkout; return its exit status, standard output and error."""
    return run_at_once([argv], environ)[0]


def run_at_once(commands: list[list[str]], environ: dict[str, str]) -> list[tuple[int, str, str]]:
    """Run several commands at once; return of each what ``run`` returns."""
    with contextlib.ExitStack() as started:
        processes = []
        for argv in commands:
            processes.append(_start(argv, environ))
            started.callback(end, processes[-1])
        return [_outcome(process) for process in processes]


def _start(argv: list[str], environ: dict[str, str]) -> subprocess.Popen[str]:
    path = f"{BIN}:{ENVIRON.get('PATH', os.defpath)}"
    pipe = subprocess.PIPE
    try:
        return subprocess.Popen(
            argv, cwd=ROOT, env={**ENVIRON, "PATH": path, **environ},
            stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True,
        )  # fmt: skip
    except OSError as error:
        raise Failed(f"cannot run {shlex.join(argv)}: {error}") from error


def _outcome(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    try:
        said, error_text = process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        raise Failed(f"{_shown(process)} did not end within 60 s") from None
    return process.returncode, said, error_text


def _shown(process: subprocess.Popen[str]) -> str:
    return shlex.join(process.args) if isinstance(process.args, list) else str(process.args)


def end(process: subprocess.Popen[Any]) -> None:
    """Terminate a process, so that it can end its own children; kill it after 10 s."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
