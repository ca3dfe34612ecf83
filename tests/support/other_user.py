"""The daemon as another user, also out of a checkout that this user may not enter."""

from __future__ import annotations

import atexit
import functools
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from harness import REPO

PACKAGES = (REPO / "bucketd", REPO / "client" / "python" / "bucketd_client")


def daemon_as(uid: int, gid: int) -> tuple[str, ...] | None:
    """Return a ``Daemon.program`` that runs as a user; None if the user can run no Python."""
    become = ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups"]
    python = _python(tuple(become))
    if python is None:
        return None
    command = f"[*{[*become, python, '-s', '-m', 'bucketd']!r}, *sys.argv[1:]]"
    # The working directory is the checkout, which the other user may not be allowed to enter.
    code = (
        "import os, sys; os.chdir('/'); "
        f"os.environ['PYTHONPATH'] = {_readable_copy()!r}; "
        f"os.execvp({become[0]!r}, {command})"
    )
    return ("-c", code)


@functools.cache
def _python(become: tuple[str, ...]) -> str | None:
    """Return an interpreter of this version that the user can run with the daemon's modules."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    found = [
        os.path.realpath(sys.executable),
        shutil.which(version, path="/usr/bin:/usr/local/bin"),
    ]
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": _readable_copy()}
    for python in filter(None, found):
        command = [*become, python, "-s", "-m", "bucketd", "--version"]
        try:
            done = subprocess.run(command, cwd="/", env=environ, capture_output=True)
        except FileNotFoundError:  # setpriv
            return None
        if done.returncode == 0:
            return python
    return None


@functools.cache
def _readable_copy() -> str:
    """Copy the daemon and all that it imports to a directory that every user can read."""
    home = tempfile.mkdtemp(prefix="bd-readable-")
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    Path(home).chmod(0o755)
    for package in PACKAGES:
        shutil.copytree(
            package, f"{home}/{package.name}", ignore=shutil.ignore_patterns("__pycache__")
        )
    for name in sorted(set(_requirements("bucketd", set()))):
        distribution = importlib.metadata.distribution(name)
        for file in distribution.files or ():
            source, target = Path(str(distribution.locate_file(file))), Path(home, str(file))
            if file.parts[0] == ".." or "__pycache__" in file.parts or not source.is_file():
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)
    for path in Path(home).rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return home


def _requirements(name: str, seen: set[str]) -> Iterator[str]:
    """Yield the names of a distribution's requirements, and of theirs."""
    for line in importlib.metadata.requires(name) or ():
        wanted = re.match(r"[\w.-]+", line)
        if wanted is None or "extra ==" in line or wanted[0] in seen:
            continue
        seen.add(wanted[0])
        try:
            importlib.metadata.distribution(wanted[0])
        except importlib.metadata.PackageNotFoundError:
            # The requirement is for another Python or system.
            continue
        if wanted[0] != "bucketd-client":
            yield wanted[0]
        yield from _requirements(wanted[0], seen)
