"""Libraries are used by their public names, and aiohttp in as few modules as can be."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from harness import REPO

PACKAGE = REPO / "bucketd"
SOURCES = sorted(PACKAGE.rglob("*.py"))
NAMED_TUPLE = {"_asdict", "_fields", "_make", "_replace"}  # public, in spite of their names
AIOHTTP = {"server/parser.py", "process.py"}


def names(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__") and name != "_"


@cache
def own_names() -> frozenset[str]:
    """Names beginning with ``_`` that this package itself gives to anything."""
    found: set[str] = set()
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                found.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                found.add(node.id)
            elif (
                isinstance(node, ast.Attribute)
                and isinstance(node.ctx, ast.Store)
                and isinstance(node.value, ast.Name)
                and node.value.id == "self"
            ):
                found.add(node.attr)
    return frozenset(found)


def foreign(tree: ast.AST, own: frozenset[str]) -> Iterator[str]:
    """Private names of others that a module uses: attributes, imports, and ``getattr``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            mine = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            inherited = node.attr not in own and node.attr not in NAMED_TUPLE
            if inherited or not (mine or node.attr in NAMED_TUPLE | own):
                yield ast.unparse(node)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
            yield from (name for name in names if is_private(name))
        elif isinstance(node, ast.Import):
            for alias in node.names:
                yield from (name for name in alias.name.split(".") if is_private(name))
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "setattr"):
            name = node.args[1]
            if isinstance(name, ast.Constant) and is_private(str(name.value)):
                yield ast.unparse(node)


@pytest.mark.parametrize("path", SOURCES, ids=names)
def test_no_private_name_of_a_library_is_used(path: Path) -> None:
    assert list(foreign(ast.parse(path.read_text()), own_names())) == []


@pytest.mark.parametrize(
    "code",
    [
        "request._version = 1",
        "self._force_close()",
        "transport._loop",
        "from x._y import z",
        "import x._y",
        "getattr(x, '_y')",
    ],
)
def test_one_would_be_found(code: str) -> None:
    assert list(foreign(ast.parse(code), frozenset({"_mine"})))


def test_few_modules_name_aiohttp() -> None:
    found = set()
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                modules.append(node.module or "")
            if any(module.split(".")[0] == "aiohttp" for module in modules):
                found.add(names(path))
    assert found <= AIOHTTP
