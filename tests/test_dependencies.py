"""What is declared, what is imported and what docs/DEPENDENCIES.md says are the same packages."""

from __future__ import annotations

import ast
import json
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from harness import REPO

PROJECT = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
NODE = json.loads((REPO / "client" / "node" / "package.json").read_text())
PAGE = (REPO / "docs" / "DEPENDENCIES.md").read_text()
ROW = re.compile(r"^\| `([^`]+)` \| (.+?) \| ([^|]+?) \|", re.M)


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[<>=~! ]", requirement)[0] for requirement in requirements}


def imported(package: Path) -> Iterator[str]:
    """Every module from elsewhere that is imported, whether at once or by its name later."""
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                yield from (alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and not node.level:
                yield (node.module or "").partition(".")[0]
        yield from re.findall(r'import_module, "(\w+)"', path.read_text())


def foreign(package: Path) -> set[str]:
    return set(imported(package)) - set(sys.stdlib_module_names) - {package.name}


def test_the_daemon_imports_what_it_declares_and_nothing_else() -> None:
    declared = names(PROJECT["dependencies"]) - {"bucketd-client"}
    assert foreign(REPO / "bucketd") == {name.replace("-", "_") for name in declared}


def test_the_clients_need_nothing() -> None:
    client = tomllib.loads((REPO / "client" / "python" / "pyproject.toml").read_text())
    assert client["project"]["dependencies"] == []
    assert foreign(REPO / "client" / "python" / "bucketd_client") <= {
        "pytest",  # its plugin is loaded by pytest itself
        "typing_extensions",  # for type checkers alone
    }
    assert NODE.keys() & {"peerDependencies", "optionalDependencies"} == set()
    # The package has all that the server for tests imports, so that nothing is fetched.
    assert NODE["bundleDependencies"] == list(NODE["dependencies"])
    sources = (REPO / "client" / "node" / "src").rglob("*.ts")
    importing = {
        path.parent.name for path in sources for name in NODE["dependencies"]
        if f'from "{name}"' in path.read_text()
    }  # fmt: skip
    assert importing == {"testing"}


def test_the_page_has_every_package_and_no_other() -> None:
    declared = names(PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"])
    node = set(NODE["dependencies"]) | set(NODE["devDependencies"])
    assert {row[0] for row in ROW.findall(PAGE)} == declared | node


def test_licences_are_those_of_the_locked_packages() -> None:
    """Another release may have another licence, or name it in other words."""
    lines = (REPO / "requirements.lock").read_text().lower().replace("_", "-").split()
    locked = dict(line.split("==") for line in lines)
    for name, _, licence in ROW.findall(PAGE):
        if name not in locked or metadata.version(name) != locked[name]:
            continue
        own = metadata.metadata(name)
        told = own.get("License-Expression") or own.get("License") or licence
        assert licence.replace("-", " ") in told.replace("-", " "), (name, told)


def test_everything_declared_is_locked() -> None:
    locked = names((REPO / "requirements.lock").read_text().split())
    wanted = names(PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"])
    wanted -= {"bucketd-client"}
    assert {n.replace("_", "-").lower() for n in wanted} <= {
        n.replace("_", "-").lower() for n in locked
    }
