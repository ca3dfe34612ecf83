"""The public JSON Schema test suite for draft 2020-12, through a real daemon.

Its documents are of any type, buckets are objects, so each instance is one
property of a bucket, and its schema that of this property. The suite comes in
the source package of jsonschema on PyPI; ``make test`` fetches it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import REPO, Daemon, pair

SUITE = Path(os.environ.get("JSON_SCHEMA_SUITE", REPO / ".venv" / "json-schema-suite"))
# References to other documents, which are never fetched here; formats that are only notes.
LEFT_OUT = ("refRemote.json", "format.json")
# Single groups with references to other documents.
REMOTE: dict[str, tuple[str, ...]] = {
    "dynamicRef": (
        "strict-tree schema",
        "tests for implementation dynamic anchor and reference link",
        "$ref and $dynamicAnchor are independent of order",
        "$ref to $dynamicRef finds detached $dynamicAnchor",
    ),
    "vocabulary": ("schema that uses custom metaschema",),
}


def files() -> list[Path]:
    found = sorted((SUITE / "draft2020-12").glob("*.json"))
    return [path for path in found if path.name not in LEFT_OUT]


def groups(path: Path) -> Iterator[tuple[str, Any, list[Any]]]:
    for group in json.loads(path.read_text()):
        if not group["description"].startswith(REMOTE.get(path.stem, ("-",))):
            yield group["description"], group["schema"], group["tests"]


def wrapped(schema: Any, number: int) -> dict[str, Any]:
    """A schema of its own, with its own ``#``, for the property that holds the instance."""
    if isinstance(schema, dict):
        schema = {"$id": f"urn:suite:{number}", **schema}
    return {"properties": {"instance": schema}, "required": ["instance"]}


@pytest.mark.skipif(not files(), reason=f"the JSON Schema test suite is not in {SUITE}")
@pytest.mark.parametrize("path", files(), ids=lambda path: path.stem)
def test_public_suite(shared_daemon: Daemon, path: Path) -> None:
    wrong, cases = [], 0
    with shared_daemon.connect() as sock:
        for number, (about, schema, tests) in enumerate(groups(path)):
            target = f"/v1/schemas/{path.stem}-{number}"
            answer = shared_daemon.request("PUT", target, wrapped(schema, number), sock=sock)
            if answer.status != 200:
                wrong.append(f"{about}: {answer.json['error']}")
                continue
            bucket = pair("suite", f"{path.stem}-{number}") + f"?automation={path.stem}-{number}"
            for test in tests:
                cases += 1
                answer = shared_daemon.request("PUT", bucket, {"instance": test["data"]}, sock=sock)
                expected = 200 if test["valid"] else 422
                if answer.status != expected:
                    wrong.append(f"{about}: {test['description']}: {answer.status} {answer.json}")
    print(f"{path.stem}: {cases} cases, {len(wrong)} wrong")
    assert not wrong, "\n".join(wrong)
