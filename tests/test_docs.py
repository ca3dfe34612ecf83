"""What the documents say is so: settings, links, modules, routes, and every command in them.

How their blocks are run is said in ``documents``. The ``python`` and ``ts`` blocks of
README.md are run in a job context.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import documents
import fleet
import pytest
from harness import REPO, Daemon

from bucketd.api import routes
from bucketd.settings.loader import load
from bucketd.settings.sections import in_force

README = REPO / "README.md"
ARCHITECTURE = (REPO / "ARCHITECTURE.md").read_text()


# --- settings


def documented_settings() -> dict[str, Any]:
    """Return what config/bucketd.toml sets once the ``#`` before each key is taken away."""
    text = (REPO / "config" / "bucketd.toml").read_text()
    assert re.findall(r"^\w.*", text, flags=re.M) == []
    document = tomllib.loads(re.sub(r"^# (\w+ = )", r"\1", text, flags=re.M))
    document["store.etcd"] = document["store"].pop("etcd")
    return {f"{s}.{k}": v for s, table in document.items() for k, v in table.items()}


def test_every_setting_is_in_the_config_file_with_its_default(tmp_path: Path) -> None:
    empty = tmp_path / "empty.toml"
    empty.touch()
    system = {"STATE_DIRECTORY": "", "RUNTIME_DIRECTORY": ""}
    defaults = in_force(load({}, str(empty), system))
    plain = {k: list(v) if isinstance(v, tuple) else v for k, v in defaults.items()}
    assert documented_settings() == plain


def test_the_config_file_can_be_used_as_it_is() -> None:
    load({}, str(REPO / "config" / "bucketd.toml"), {"STATE_DIRECTORY": "/s"})


# --- links and names


def markdown() -> list[Path]:
    """Ours, and nothing that tools have put among it."""
    found = {path: path.relative_to(REPO).parts for path in sorted(REPO.rglob("*.md"))}
    return [
        path
        for path, parts in found.items()
        if "node_modules" not in parts and not any(part.startswith(".") for part in parts)
    ]


@pytest.mark.parametrize("path", markdown(), ids=lambda p: str(p.relative_to(REPO)))
def test_every_relative_link_leads_somewhere(path: Path) -> None:
    targets = re.findall(r"\]\(([^)\s]+)\)", path.read_text())
    local = [t.partition("#")[0] for t in targets if not re.match(r"\w+:|#", t)]
    assert [t for t in local if not (path.parent / t).exists()] == []


def test_the_architecture_is_short_and_names_each_folder_of_the_daemon() -> None:
    assert len(ARCHITECTURE.splitlines()) <= 350
    folders = {path.parent.relative_to(REPO) for path in (REPO / "bucketd").glob("*/__init__.py")}
    assert [folder for folder in folders if f"`{folder}/`" not in ARCHITECTURE] == []


def test_the_paths_that_documents_name_exist() -> None:
    for document in markdown():
        text = document.read_text()
        paths = re.findall(
            r"(?<![\w/.~-])(?:examples|tests|bucketd|config|client)/[\w./-]+\.\w+", text
        )
        assert [p for p in paths if not (REPO / p).exists()] == []


def test_the_tests_that_documents_name_exist() -> None:
    named = {
        n for page in markdown() for n in re.findall(r"tests/[\w/]+\.py::\w+", page.read_text())
    }
    assert len(named) > 10
    for one in named:
        path, _, function = one.partition("::")
        assert f"def {function}(" in (REPO / path).read_text(), one


def test_the_architecture_names_the_routes_that_are_not_the_operators() -> None:
    row = re.compile(r"^\| `(anyone|job_context|any_context|operator)` \| (.*?) \|", re.M)
    table = {
        rule: set(re.findall(r"`(/[^`]+)`", paths)) for rule, paths in row.findall(ARCHITECTURE)
    }
    assert {route.access.__name__ for route in routes.ROUTES} == table.keys()
    for rule in table.keys() - {"operator"}:
        assert table[rule] == {r.path for r in routes.ROUTES if r.access.__name__ == rule}


# --- the README


@pytest.fixture
def home() -> Iterator[Path]:
    """Short, because a socket's path is."""
    path = Path(tempfile.mkdtemp(prefix="bd-"))
    yield path
    shutil.rmtree(path)


def test_the_commands_of_the_readme_print_what_it_says(home: Path) -> None:
    documents.check(README, home)


# Those that say by themselves how a daemon is had, and those that take it for granted.
@pytest.mark.parametrize("name", ["tutorial", "sessions"])
def test_the_commands_of_a_lesson_print_what_it_says(name: str, home: Path) -> None:
    link_node_packages(home / "automation")
    documents.check(REPO / "docs" / f"{name}.md", home)


def link_node_packages(home: Path) -> None:
    """Put into a directory what ``npm install bucketd-client typescript`` would."""
    node, modules = REPO / "client" / "node", home / "node_modules"
    (modules / ".bin").mkdir(parents=True)
    (modules / "bucketd-client").symlink_to(node)
    (modules / "typescript").symlink_to(node / "node_modules" / "typescript")
    (modules / ".bin" / "tsc").symlink_to("../typescript/bin/tsc")
    (modules / ".bin" / "bucketd-client").symlink_to("../bucketd-client/dist/cli.js")


@pytest.mark.parametrize("name", ["faq", "how-to", "operator", "shell"])
def test_the_commands_of_a_page_print_what_it_says(name: str, home: Path) -> None:
    link_node_packages(home)
    documents.check(REPO / "docs" / f"{name}.md", home, documents.DAEMON, home)


def test_the_commands_that_change_a_farm_print_what_they_say(home: Path) -> None:
    with fleet.cluster(1) as etcd:
        before = documents.DAEMON + f"ETCD={etcd.endpoints}\n"
        documents.check(REPO / "docs" / "fleet.md", home, before)


def sources(language: str) -> list[str]:
    return [block.text for block in documents.blocks(README) if block.language == language]


@pytest.mark.parametrize("source", sources("python"))
def test_the_python_of_the_readme_runs(daemon: Daemon, source: str) -> None:
    done = run_in_context(daemon, [sys.executable, "-c", source])
    assert (done.returncode, done.stderr) == (0, "")
    assert daemon.request("GET", "/v1/devices/d/jobs/j/bucket").bucket["opened"] == 1


@pytest.mark.parametrize("source", sources("ts"))
def test_the_typescript_of_the_readme_runs(daemon: Daemon, source: str) -> None:
    """As JavaScript, inside the package, so that it finds itself by its name."""
    problem = documents.demo_tools.typescript_problem()
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
