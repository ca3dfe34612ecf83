"""tsc, mypy and pyright on a directory of programs; bucketctl types as a process."""

from __future__ import annotations

import functools
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from harness import REPO, Daemon

NODE = REPO / "client" / "node"
PYTHON = REPO / "client" / "python"
# File and line of an error, and all that the checker says of it.
Errors = dict[tuple[str, int], str]


def bucketctl_types(daemon: Daemon, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bucketd_client.ctl", "types", *words]
    environ = {**os.environ, "BUCKETD_SOCKET": daemon.socket}
    return subprocess.run(command, cwd=PYTHON, env=environ, capture_output=True, text=True)


@functools.cache
def node_program(name: str) -> str:
    """Return a program of the npm packages; skip where they are not installed."""
    path = NODE / "node_modules" / ".bin" / name
    if not path.exists():
        pytest.skip(f"{name} is not installed")
    return str(path)


def errors_of(checker: str, place: Path, files: Iterable[Path]) -> Errors:
    """Return the errors that a checker reports in these files, in its strict mode."""
    run = {"mypy": _mypy, "pyright": _pyright, "tsc": _tsc}[checker]
    said = run(place, [str(path.relative_to(place)) for path in files])
    found: Errors = {}
    pattern = r"^\s*(?:\./)?(?:\S*/)?([^\s/:(]+)[:(](\d+)[,:].*?error[: ].*$"
    for match in re.finditer(pattern, said, re.MULTILINE):
        key = (match[1], int(match[2]))
        found[key] = f"{found.get(key, '')}{match[0]}\n"
    # Whatever else a checker says is an error that has no place.
    if not found and said.strip() and not re.search(r"^0 errors|^Success", said, re.MULTILINE):
        found["", 0] = said
    return found


def _mypy(place: Path, files: list[str]) -> str:
    words = ["-m", "mypy", "--strict", "--cache-dir", str(place / "cache"), "--no-error-summary"]
    # Notes repeat all overloads.
    words += ["--hide-error-context", *files]
    return _run([sys.executable, *words], place, {"MYPYPATH": str(PYTHON)})


def _pyright(place: Path, files: list[str]) -> str:
    settings = {"extraPaths": [str(PYTHON)], "strict": ["."], "include": files}
    (place / "pyrightconfig.json").write_text(json.dumps(settings))
    return _run([node_program("pyright"), "--pythonpath", sys.executable], place)


def _tsc(place: Path, files: list[str]) -> str:
    if not (NODE / "dist").exists():
        pytest.skip("the TypeScript client is not built")
    (place / "node_modules").mkdir(exist_ok=True)
    link = place / "node_modules" / "bucketd-client"
    if not link.exists():
        link.symlink_to(NODE)
    # The client's declarations do without those of Node, which take longer to read than all else.
    options = {
        "strict": True, "noEmit": True, "module": "nodenext", "moduleResolution": "nodenext",
        "target": "es2022", "lib": ["es2022", "dom"], "types": [], "skipDefaultLibCheck": True,
    }  # fmt: skip
    settings = {"compilerOptions": options, "files": files}
    (place / "tsconfig.json").write_text(json.dumps(settings))
    return _run([node_program("tsc"), "-p", "tsconfig.json", "--pretty", "false"], place)


def _run(command: list[str], place: Path, more: dict[str, str] | None = None) -> str:
    environ = {**os.environ, **(more or {})}
    done = subprocess.run(command, cwd=place, env=environ, capture_output=True, text=True)
    return done.stdout + done.stderr
