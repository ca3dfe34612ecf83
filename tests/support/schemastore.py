"""SchemaStore's schemas and their test documents, read by git hash out of a clone of it.

The repository carries names and hashes alone: ``tests/core/schemas/schemastore.txt`` has a line for
each schema, with the hash of its file and those of its directories of documents that it must accept
and refuse. ``make schemastore`` fetches the commit of that list; or the environment variable
SCHEMASTORE names a clone, or a bare repository, that has it. ``python tests/support/schemastore.py
CLONE`` writes the list anew, with the newest commit of a clone.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from harness import REPO

LIST = REPO / "tests" / "core" / "schemas" / "schemastore.txt"
PLACE = Path(os.environ.get("SCHEMASTORE") or REPO / ".venv" / "schemastore")
SCHEMAS = 250
# As a target of make: all that is here. Else what takes less than a minute.
WHOLE = "SCHEMASTORE_SCALE" in os.environ
# A directory without documents has none of these hashes.
NONE = "-"
MODERN = re.compile(r"/draft/20(19-09|20-12)/")


class Document(NamedTuple):
    """A file of SchemaStore's tests, which its schema has to accept, or to refuse."""

    path: str
    text: bytes
    accepted: bool


class Schema(NamedTuple):
    """A line of the list."""

    name: str
    hash: str
    positive: str
    negative: str


class Clone:
    """A clone of SchemaStore, read by hash."""

    def __init__(self, directory: Path) -> None:
        self._git = ["git", "-C", str(directory)]
        command = [*self._git, "cat-file", "--batch"]
        self._reader = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def close(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._reader.communicate()

    def read(self, hash: str) -> bytes | None:
        """Return the content of a file; None if the clone does not have it."""
        assert self._reader.stdin is not None
        assert self._reader.stdout is not None
        self._reader.stdin.write(f"{hash}\n".encode())
        self._reader.stdin.flush()
        head = self._reader.stdout.readline().split()
        if len(head) != 3:
            return None
        text = self._reader.stdout.read(int(head[2]) + 1)
        return text[:-1]

    def documents(self, schema: Schema) -> Iterator[Document]:
        """Yield all documents of a schema, of whatever format."""
        for tree, accepted in ((schema.positive, True), (schema.negative, False)):
            if tree == NONE:
                continue
            for hash, path in self._files(tree):
                text = self.read(hash)
                assert text is not None, path
                kind = "test" if accepted else "negative_test"
                yield Document(f"{kind}/{schema.name}/{path}", text, accepted)

    def _files(self, tree: str) -> list[tuple[str, str]]:
        listed = self.git("ls-tree", "-r", "-z", tree).split("\0")[:-1]
        rows = (row.partition("\t") for row in listed)
        return [(head.split()[2], path) for head, _, path in rows]

    def git(self, *words: str) -> str:
        return subprocess.run(
            [*self._git, *words], check=True, capture_output=True, text=True
        ).stdout


def schemas() -> list[Schema]:
    """Return the lines of the list."""
    lines = LIST.read_text().splitlines()
    return [Schema(*line.split()) for line in lines if not line.startswith("#")]


def clone() -> Clone:
    """Return the clone of SchemaStore; skip where there is none."""
    if not PLACE.exists():
        pytest.skip(f"SchemaStore is not in {PLACE}; make schemastore fetches it")
    found, text = Clone(PLACE), None
    with contextlib.suppress(BrokenPipeError):
        text = found.read(schemas()[0].hash)
    if text is None:
        found.close()
        pytest.skip(f"{PLACE} does not have the commit of {LIST.name}; make schemastore fetches it")
    return found


# --- dialects

# Keywords whose value is a schema, or a list of schemas; then those of schemas by name.
_SCHEMA = (
    *("additionalItems", "additionalProperties", "allOf", "anyOf", "contains", "else", "if"),
    *("items", "not", "oneOf", "propertyNames", "then", "unevaluatedProperties"),
)
_NAMED = ("$defs", "definitions", "dependencies", "patternProperties", "properties")
# These have no effect beside a reference before 2019.
_CHECKS = frozenset(
    (
        *_SCHEMA, *_NAMED[2:], "const", "enum", "format", "multipleOf", "pattern", "required",
        "type", "exclusiveMaximum", "exclusiveMinimum", "maximum", "minimum", "maxItems",
        "minItems", "maxLength", "minLength", "maxProperties", "minProperties", "uniqueItems",
    )
)  # fmt: skip


def modern(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a copy of a schema of an older dialect that says the same in 2020-12."""
    dialect = str(schema.get("$schema"))
    copy: dict[str, Any] = json.loads(json.dumps(schema))
    if not re.search(r"/draft/20", dialect):
        for node in subschemas(copy):
            _rewrite(node, "draft-04" in dialect)
    copy["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    return copy


def _rewrite(node: dict[str, Any], is_draft_04: bool) -> None:
    """Rewrite one subschema of a dialect before 2019."""
    if isinstance(node.get("$ref"), str):
        for keyword in node.keys() & _CHECKS:
            del node[keyword]
    if isinstance(node.get("items"), list):
        node["prefixItems"] = node.pop("items")
        if "additionalItems" in node:
            node["items"] = node.pop("additionalItems")
    for key, needed in node.pop("dependencies", {}).items():
        keyword = "dependentRequired" if isinstance(needed, list) else "dependentSchemas"
        node.setdefault(keyword, {})[key] = needed
    _identify(node, node.pop("id" if is_draft_04 else "$id", None))
    for keyword, limit in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if isinstance(node.get(keyword), bool) and node.pop(keyword):
            node[keyword] = node.pop(limit)


def _identify(node: dict[str, Any], identifier: Any) -> None:
    if not isinstance(identifier, str):
        return
    name, _, fragment = identifier.partition("#")
    if name or not fragment:
        node["$id"] = identifier if not fragment else name
    elif re.fullmatch(r"[A-Za-z_][-A-Za-z0-9._]*", fragment):
        node["$anchor"] = fragment


def subschemas(schema: Any) -> list[dict[str, Any]]:
    """Return the schema and all schemas in it that are objects."""
    found, waiting = [], [schema]
    while waiting:
        node = waiting.pop()
        if isinstance(node, list):
            waiting += node
        elif isinstance(node, dict):
            found.append(node)
            waiting += [node[keyword] for keyword in _SCHEMA if keyword in node]
            named = [node[keyword] for keyword in _NAMED if isinstance(node.get(keyword), dict)]
            waiting += [child for each in named for child in each.values()]
    return found


# --- the list


def _family(name: str) -> str:
    return re.sub(r"-v?\d+(\.\d+)*$", "", name)


def _version(name: str) -> list[int]:
    return [int(digits) for digits in re.findall(r"\d+", name)]


def _candidates(source: Clone) -> Iterator[tuple[bool, Schema]]:
    """Yield the schemas that have documents in JSON, each with whether it is preferred."""
    trees = {}
    for kind in ("test", "negative_test"):
        for row in source.git("ls-tree", "-z", f"HEAD:src/{kind}").split("\0")[:-1]:
            head, _, name = row.partition("\t")
            trees[kind, name] = head.split()[2]
    for row in source.git("ls-tree", "-z", "HEAD:src/schemas/json").split("\0")[:-1]:
        head, _, file = row.partition("\t")
        name = file.removesuffix(".json")
        trees_of = [trees.get((kind, name), NONE) for kind in ("test", "negative_test")]
        schema = Schema(name, head.split()[2], *trees_of)
        text = source.read(schema.hash)
        if text is None or " " in name:
            continue
        found = {each.accepted for each in source.documents(schema) if is_json(each)}
        if found:
            modern = MODERN.search(str(json.loads(text).get("$schema")))
            yield (False in found or modern is not None), schema


def is_json(document: Document) -> bool:
    return document.path.endswith(".json")


def write_list(source: Clone) -> None:
    """Write the list: one version of each schema, first those with documents to refuse."""
    families: dict[str, list[tuple[bool, list[int], Schema]]] = defaultdict(list)
    for preferred, schema in _candidates(source):
        families[_family(schema.name)].append((preferred, _version(schema.name), schema))
    newest = [max(versions) for versions in families.values()]
    chosen = sorted(newest, key=lambda row: (not row[0], _shuffled(row[2].name)))[:SCHEMAS]
    lines = [
        "# Schemas of https://github.com/SchemaStore/schemastore, by the hashes of git at commit",
        f"# {source.git('rev-parse', 'HEAD').strip()}:",
        "# name, src/schemas/json/NAME.json, src/test/NAME/, src/negative_test/NAME/",
        *(" ".join(row[2]) for row in sorted(chosen, key=lambda row: row[2].name)),
    ]
    LIST.write_text("\n".join(lines) + "\n")


def _shuffled(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def parsed(text: bytes) -> Any:
    """Return what a file has as JSON. Raises ValueError, also for what is not exactly JSON."""

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    return json.loads(text, parse_constant=refuse)


if __name__ == "__main__":
    write_list(Clone(Path(sys.argv[1])))
