"""A minimal Debian, made by debootstrap, booted by systemd-nspawn, entered by nsenter."""

from __future__ import annotations

import contextlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

from checkout import copy_project
from harness import REPO

PACKAGES = "systemd-sysv,dbus,libpam-systemd,python3-venv,make,util-linux,procps"
TOOLS = ("debootstrap", "systemd-nspawn", "nsenter", "apt-get", "apt-config")
BOOT_SECONDS = 90.0


def missing() -> str | None:
    """Why no machine can be made here, if so."""
    if os.geteuid() != 0:
        return "needs root"
    absent = [tool for tool in TOOLS if shutil.which(tool) is None]
    return f"needs {', '.join(absent)}" if absent else None


def cache() -> Path:
    home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    path = home / "bucketd-test"
    path.mkdir(parents=True, exist_ok=True)
    return path


def suite() -> str:
    """The release in the machine: this host's own, unless DEBIAN_SUITE names another."""
    return os.environ.get("DEBIAN_SUITE") or platform.freedesktop_os_release()["VERSION_CODENAME"]


def _mirror() -> str:
    """Where apt of this host has its main packages from."""
    fields = "$(CODENAME) $(COMPONENT) $(REPO_URI)"
    found = _output("apt-get", "indextargets", "--format", fields, "Created-By: Packages")
    own = platform.freedesktop_os_release()["VERSION_CODENAME"]
    lines = (line.split(" ", 2) for line in found.splitlines())
    uris = [uri for codename, component, uri in lines if (codename, component) == (own, "main")]
    assert uris, "apt of this host names no mirror of its own release"
    return uris[0]


def _proxy() -> dict[str, str]:
    said = _output("apt-config", "shell", "proxy", "Acquire::http::Proxy")
    return {"http_proxy": shlex.split(said)[0].partition("=")[2]} if said.strip() else {}


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def base_tree() -> Path:
    """The tree that machines are copies of; made once and kept in the cache."""
    tree = cache() / suite()
    if not tree.exists():
        new = cache() / f"{suite()}.new"
        shutil.rmtree(new, ignore_errors=True)
        subprocess.run(
            ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", suite(), new, _mirror()],
            check=True,
            env={**os.environ, **_proxy()},
            stdout=sys.stderr,
        )
        new.rename(tree)
    return tree


def wheels(tree: Path) -> Path:
    """What the project depends on, for the Python of that tree; so the machine needs no network."""
    python = os.readlink(tree / "usr/bin/python3").removeprefix("python")
    target = cache() / f"wheels-{python}"
    project = tomllib.loads((REPO / "pyproject.toml").read_text())
    wanted = project["project"]["dependencies"] + project["build-system"]["requires"]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--dest", str(target)]
    command += ["--only-binary=:all:", "--python-version", python]
    command += ["--constraint", str(REPO / "requirements.lock")]
    names = [name for name in wanted if not name.startswith("bucketd-client")]
    subprocess.run([*command, *names], check=True)
    return target


class Machine:
    """A booted copy of the tree. Commands run in it as root, or as ``user``."""

    def __init__(self, tree: Path) -> None:
        self.tree = tree
        self._nspawn: subprocess.Popen[bytes] | None = None
        self._leader = 0

    def boot(self) -> None:
        command = ["systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--boot"]
        command += ["--private-network", "--console=pipe", "-D", str(self.tree)]
        with (self.tree / "console").open("ab") as console:
            self._nspawn = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=console, stderr=console
            )
        deadline = time.monotonic() + BOOT_SECONDS
        while not self._is_up():
            said = (self.tree / "console").read_text(errors="replace")
            assert self._nspawn.poll() is None, said
            assert time.monotonic() < deadline, said
            time.sleep(0.2)

    def _is_up(self) -> bool:
        assert self._nspawn is not None
        found = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(self._nspawn.pid)], capture_output=True, text=True
        )
        if not found.stdout.strip():
            return False
        self._leader = int(found.stdout.split()[0])
        state = self.run("systemctl is-system-running", check=False).stdout.strip()
        return state in ("running", "degraded")

    def power_off(self) -> None:
        """An orderly end, as before a reboot."""
        assert self._nspawn is not None
        self.run("systemctl poweroff", check=False)
        self._nspawn.wait(BOOT_SECONDS)

    def remove(self) -> None:
        if self._nspawn is not None and self._nspawn.poll() is None:
            with contextlib.suppress(Exception):
                self.power_off()
            self._nspawn.kill()
            self._nspawn.wait()
        shutil.rmtree(self.tree, ignore_errors=True)

    def command(self, script: str, user: str = "root") -> list[str]:
        """What runs ``script`` in the machine when it is run here."""
        enter = ["nsenter", "--target", str(self._leader), "--all"]
        clean = [
            "env",
            "-i",
            "-C",
            "/",
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        ]
        reach = [] if user == "root" else ["runuser", "-u", user, "--"]
        return [*enter, *clean, *reach, "sh", "-c", script]

    def run(
        self, script: str, user: str = "root", check: bool = True, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            self.command(script, user),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"{script}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def start(self, script: str, user: str = "root") -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(script, user),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def property(self, name: str, unit: str = "bucketd.service") -> str:
        return self.run(f"systemctl show --value -p {name} {unit}").stdout.strip()

    def wait_for(self, what: str, seconds: float = 30.0, user: str = "root") -> None:
        """Until a command succeeds."""
        deadline = time.monotonic() + seconds
        while (done := self.run(what, user, check=False)).returncode != 0:
            if time.monotonic() > deadline:
                log = self.run("systemctl status bucketd.service", check=False).stdout
                raise AssertionError(f"{what}: {done.stdout}{done.stderr}\n{log}")
            time.sleep(0.1)

    def put(self, path: str, text: str) -> None:
        place = self.tree / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)


@contextlib.contextmanager
def new_machine() -> Iterator[Machine]:
    """Booted, with the project in /src and what it depends on in /wheels."""
    tree = base_tree()
    # Beside the tree: a directory for temporary files may be in memory, and is one in a machine.
    copy = Path(tempfile.mkdtemp(prefix="machine-", dir=cache()))
    machine = Machine(copy)
    try:
        subprocess.run(["cp", "-a", "--reflink=auto", f"{tree}/.", copy], check=True)
        copy.chmod(0o755)
        shutil.copytree(wheels(tree), copy / "wheels")
        copy_project(copy / "src")
        machine.boot()
        yield machine
    finally:
        machine.remove()
