"""What the documents say is so: settings, links, modules, routes, and every command of README.md.

In README.md an ``sh`` block is run, all of them in order in one shell on a terminal, and a
``text`` block right after it is what it prints, with ``…`` for what differs
each time. ``sh node`` is left out without Node. ``python`` and ``ts`` blocks
are run in a job context of that shell's daemon. Blocks of no language are not run.
"""

from __future__ import annotations

import contextlib
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import REPO, Daemon

from bucketd import settings
from bucketd.api import routes, wire

sys.path.insert(0, str(REPO / "examples"))

import demo_tools

BIN = Path(sys.executable).parent
README = (REPO / "README.md").read_text()
ARCHITECTURE = (REPO / "ARCHITECTURE.md").read_text()
SKIPPED_DIRECTORIES = {"node_modules", ".venv", ".git"}


# --- settings


def documented_settings() -> dict[str, Any]:
    """What config/bucketd.toml sets, and what it sets once the ``#`` before a key is taken away."""
    text = (REPO / "config" / "bucketd.toml").read_text()
    document = tomllib.loads(re.sub(r"^# (\w+ = )", r"\1", text, flags=re.M))
    document["store.etcd"] = document["store"].pop("etcd")
    return {f"{s}.{k}": v for s, table in document.items() for k, v in table.items()}


def test_every_setting_is_in_the_config_file_with_its_default(tmp_path: Path) -> None:
    empty = tmp_path / "empty.toml"
    empty.touch()
    system = {"STATE_DIRECTORY": "", "RUNTIME_DIRECTORY": ""}
    defaults = settings.in_force(settings.load({}, str(empty), system))
    plain = {k: list(v) if isinstance(v, tuple) else v for k, v in defaults.items()}
    assert documented_settings() == plain


def test_the_config_file_can_be_used_as_it_is() -> None:
    settings.load({}, str(REPO / "config" / "bucketd.toml"), {"STATE_DIRECTORY": "/s"})


# --- links and names


def documents() -> list[Path]:
    found = REPO.rglob("*.md")
    return [p for p in found if not SKIPPED_DIRECTORIES & set(p.relative_to(REPO).parts)]


@pytest.mark.parametrize("path", documents(), ids=lambda p: str(p.relative_to(REPO)))
def test_every_relative_link_leads_somewhere(path: Path) -> None:
    targets = re.findall(r"\]\(([^)\s]+)\)", path.read_text())
    local = [t.partition("#")[0] for t in targets if not re.match(r"\w+:|#", t)]
    assert [t for t in local if not (path.parent / t).exists()] == []


def test_every_module_is_in_the_architecture_and_no_other() -> None:
    modules = {str(p.relative_to(REPO)) for p in (REPO / "bucketd").rglob("*.py")}
    named = set(re.findall(r"bucketd/[\w/]+\.py", ARCHITECTURE))
    assert {m for m in modules if not m.endswith("__init__.py")} <= named <= modules


def test_the_paths_that_documents_name_exist() -> None:
    for name in ("README.md", "CONTRIBUTING.md", "ARCHITECTURE.md"):
        text = (REPO / name).read_text()
        paths = re.findall(
            r"(?<![\w/.~-])(?:examples|tests|bucketd|config|client)/[\w./-]+\.\w+", text
        )
        assert [p for p in paths if not (REPO / p).exists()] == []


def test_every_access_rule_and_error_code_is_in_the_architecture() -> None:
    rules = {route.access.__name__ for route in routes.ROUTES}
    wanted = [*rules, *wire.STATUS]
    assert [name for name in wanted if f"`{name}`" not in ARCHITECTURE] == []


def test_the_architecture_names_the_routes_that_are_not_the_operators() -> None:
    row = re.compile(r"^\| `(\w+)` \| (.*?) \|", re.M)
    table = {
        rule: set(re.findall(r"`(/[^`]+)`", paths)) for rule, paths in row.findall(ARCHITECTURE)
    }
    for rule in ("anyone", "job_context", "any_context"):
        assert table[rule] == {r.path for r in routes.ROUTES if r.access.__name__ == rule}


# --- the README


BLOCK = re.compile(r"^```(\w*)( \w+)?\n(.*?)^```$", re.M | re.S)
MARK = "--- block {}"


def blocks() -> list[tuple[str, str]]:
    """Language and text of each, in order, without those that need what is not here."""
    found = [(kind + extra, text) for kind, extra, text in BLOCK.findall(README)]
    without_node = demo_tools.typescript_problem() is not None
    for index, (kind, _) in enumerate(found):
        if kind == "sh node":
            found[index : index + 2] = [("", ""), ("", "")] if without_node else [
                ("sh", found[index][1]), found[index + 1],
            ]  # fmt: skip
    return found


@pytest.fixture
def home() -> Iterator[Path]:
    """Short, because a socket's path is."""
    path = Path(tempfile.mkdtemp(prefix="bd-"))
    yield path
    shutil.rmtree(path)


def environ(home: Path) -> dict[str, str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("BUCKETD_", "XDG_"))}
    return {**clean, "HOME": str(home), "BUCKETD_STORE_UNSAFE_FILESYSTEM": "true"}


def test_the_commands_of_the_readme_print_what_it_says(home: Path) -> None:
    all_blocks = blocks()
    scripts = {i: text for i, (kind, text) in enumerate(all_blocks) if kind == "sh"}
    script = "".join(f"printf '\\n%s\\n' '{MARK.format(i)}'\n{text}" for i, text in scripts.items())
    status, said, error = run_in_bash(script, home)
    assert status == 0, said + error
    printed = said_by_block(said)
    for index in scripts:
        following = all_blocks[index + 1] if index + 1 < len(all_blocks) else ("", "")
        if following[0] == "text":
            pattern = ".*".join(re.escape(part) for part in following[1].rstrip().split("…"))
            shown = re.sub(r"\d s ago", "0 s ago", printed[index].rstrip())
            assert re.fullmatch(pattern, shown), (scripts[index], shown)


def run_in_bash(script: str, home: Path) -> tuple[int, str, str]:
    """Status, and what a reader sees on a terminal; nothing of it is left running."""
    screen, terminal = pty.openpty()
    err = home / "err"
    with err.open("w") as error:
        shell = subprocess.Popen(
            ["bash", "-e", "-c", script],
            cwd=REPO,
            env=environ(home),
            stdin=subprocess.DEVNULL,
            stdout=terminal,
            stderr=error,
            start_new_session=True,
        )
    os.close(terminal)
    said: list[bytes] = []
    reader = threading.Thread(target=read_screen, args=(screen, said))
    reader.start()
    try:
        status = shell.wait(60)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(shell.pid, signal.SIGKILL)  # the group that this test has begun
        shell.wait()
        reader.join()
    return status, b"".join(said).decode().replace("\r\n", "\n"), err.read_text()


def read_screen(screen: int, said: list[bytes]) -> None:
    """What is written to a terminal, until nobody has it open any more."""
    with open(screen, "rb", buffering=0) as file, contextlib.suppress(OSError):
        while chunk := file.read(65536):
            said.append(chunk)


def said_by_block(said: str) -> dict[int, str]:
    pieces = re.split(r"^--- block (\d+)\n", said, flags=re.M)[1:]
    return {int(number): text for number, text in zip(pieces[::2], pieces[1::2], strict=True)}


@pytest.mark.parametrize("source", [text for kind, text in blocks() if kind == "python"])
def test_the_python_of_the_readme_runs(daemon: Daemon, source: str) -> None:
    done = run_in_context(daemon, [sys.executable, "-c", source])
    assert (done.returncode, done.stderr) == (0, "")
    assert daemon.request("GET", "/v1/devices/d/jobs/j/bucket").bucket["opened"] == 1


@pytest.mark.parametrize("source", [text for kind, text in blocks() if kind == "ts"])
def test_the_typescript_of_the_readme_runs(daemon: Daemon, source: str) -> None:
    """As JavaScript, inside the package, so that it finds itself by its name."""
    problem = demo_tools.typescript_problem()
    if problem is not None:
        pytest.skip(problem)
    argv = ["node", "--input-type=module", "--eval", source]
    done = run_in_context(daemon, argv, cwd=REPO / "client" / "node")
    assert (done.returncode, done.stderr) == (0, "")
    assert daemon.request("GET", "/v1/devices/d/jobs/j/bucket").bucket["loggedIn"] is True


def run_in_context(
    daemon: Daemon, argv: list[str], cwd: Path = REPO
) -> subprocess.CompletedProcess[str]:
    token = daemon.mint("d", "j")
    env = daemon.environ({"BUCKETD_SOCKET": daemon.socket, "BUCKETD_TOKEN": token})
    return subprocess.run(argv, cwd=cwd, env=env, capture_output=True, text=True, timeout=60)
