"""Every refusal is one sentence of one form: what cannot be done, and why."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import REPO

from bucketd import errors

FORM = re.compile(r"cannot [\w{$]|no job context: ")
PYTHON = {
    *{kind for kind in vars(errors) if kind[0].isupper() and kind not in ("Any", "ClassVar")},
    *("SettingsError", "StartError", "SocketError", "HandoverError", "JournalError"),
    *("error", "Usage", "_complain"),
}
# What a daemon says of a route that has no bucket, which the table of routes rules out.
BARE = {"no job context"}
SOURCES = [
    *(REPO / "bucketd").rglob("*.py"),
    *(REPO / "client/python/bucketd_client").rglob("*.py"),
]


def messages(path: Path) -> Iterator[str]:
    """The literal texts that refusals are made of, with ``{}`` for what is filled in."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        where, _, name = ast.unparse(node.func).rpartition(".")
        if name in PYTHON and where != "log":
            texts = [_text(argument) for argument in node.args]
            # The client's ``error`` takes a code first, a word without blanks.
            yield from [text for text in texts if text is not None and " " in text][:1]


def _text(node: ast.expr) -> str | None:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(
            str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values
        )
    return None


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(REPO)))
def test_a_refusal_says_what_cannot_be_done(path: Path) -> None:
    wrong = [text for text in messages(path) if not (FORM.match(text) or text.startswith("{}"))]
    assert set(wrong) <= BARE


def test_there_are_such_messages() -> None:
    assert sum(1 for path in SOURCES for _ in messages(path)) > 150


def test_the_typescript_client_has_the_same_form() -> None:
    made = re.compile(r"new \w*Error\(\s*([`\"])(.+?)\1", re.S)
    for path in (REPO / "client" / "node" / "src").glob("*.ts"):
        texts = [text for _, text in made.findall(path.read_text())]
        assert [text for text in texts if not FORM.match(text)] == [], path.name
