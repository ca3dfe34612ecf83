"""The public test suites of JSON (RFC 8259) and JSON Patch (RFC 6902), through a real daemon.

Both come with ``npm ci`` in ``client/node``, as ``make node`` does it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from harness import REPO, Daemon, Response, pair

MODULES = REPO / "client" / "node" / "node_modules"
REPLACED = "\N{REPLACEMENT CHARACTER}"  # there: what was no UTF-8 in the original, and is lost
JSON_TYPE = {"Content-Type": "application/json"}
PATCH_TYPE = {"Content-Type": "application/json-patch+json"}


def json_cases(kind: str) -> list[Any]:
    path = MODULES / "json-test-suite" / "data" / "parsing.js"
    if not path.exists():
        return [pytest.param("", marks=pytest.mark.skip(reason="no json-test-suite: make node"))]
    rows = json.loads(path.read_text().partition("export default")[2].strip().rstrip(";"))
    chosen = [row for row in rows if row["name"].startswith(kind) and REPLACED not in row["input"]]
    assert len(chosen) > 15, f"only {len(chosen)} cases of kind {kind}"
    return [pytest.param(row["input"], id=row["name"].removesuffix(".json")) for row in chosen]


def patch_cases() -> list[Any]:
    directory = MODULES / "json-patch-test-suite"
    if not directory.exists():
        return [
            pytest.param({}, marks=pytest.mark.skip(reason="no json-patch-test-suite: make node"))
        ]
    cases = []
    for name in ("tests", "spec_tests"):
        rows = json.loads(Path(directory, f"{name}.json").read_text())
        for number, row in enumerate(rows):
            if "patch" in row and not row.get("disabled"):
                cases.append(pytest.param(row, id=f"{name}-{number}"))
    assert len(cases) > 80
    return cases


def put(daemon: Daemon, job: str, text: str) -> Response:
    """The text as it is: it may be no JSON."""
    return daemon.request("PUT", pair("suite", job), text.encode(errors="surrogatepass"), JSON_TYPE)


@pytest.mark.parametrize("text", json_cases("y_"))
def test_what_is_json_is_kept(shared_daemon: Daemon, text: str) -> None:
    answer = put(shared_daemon, "yes", f'{{"value": {text}}}')
    assert answer.status == 200, answer
    assert answer.bucket == {"value": json.loads(text)}
    alone = put(shared_daemon, "alone", text)
    if isinstance(json.loads(text), dict):
        assert alone.bucket == json.loads(text)
    else:  # JSON, and no bucket
        assert (alone.status, alone.json["code"]) == (400, "invalid_json")


@pytest.mark.parametrize("text", json_cases("n_"))
def test_what_is_no_json_changes_nothing(shared_daemon: Daemon, text: str) -> None:
    before = shared_daemon.request("PUT", pair("suite", "no"), {"kept": True})
    for body in (text, f'{{"value": {text}}}'):
        answer = put(shared_daemon, "no", body)
        assert (answer.status, answer.json["code"]) == (400, "invalid_json"), body[:80]
    now = shared_daemon.request("GET", pair("suite", "no"))
    assert (now.bucket, now.etag) == ({"kept": True}, before.etag)


@pytest.mark.parametrize("text", json_cases("i_"))
def test_what_may_be_json_is_kept_exactly_or_refused(shared_daemon: Daemon, text: str) -> None:
    answer = put(shared_daemon, "maybe", f'{{"value": {text}}}')
    if answer.status == 200:
        assert answer.bucket["value"] == json.loads(text)
        assert json.dumps(answer.bucket, allow_nan=False)
    else:
        assert (answer.status, answer.json["code"]) == (400, "invalid_json")


@pytest.mark.parametrize("row", patch_cases())
def test_json_patch(shared_daemon: Daemon, row: dict[str, Any]) -> None:
    """A bucket is an object: the document is one of its members, or the whole where it is one."""
    target = pair("suite", "patch")
    inside = [_moved(operation) for operation in row["patch"]]
    forms = [({"doc": row["doc"]}, inside, {"doc": row.get("expected")})]
    if isinstance(row["doc"], dict):
        forms.append((row["doc"], row["patch"], row.get("expected")))
    for document, operations, expected in forms:
        before = shared_daemon.request("PUT", target, document)
        answer = shared_daemon.request("PATCH", target, operations, PATCH_TYPE)
        if "error" in row or ("expected" in row and not isinstance(expected, dict)):
            assert answer.status in (400, 409), (row, answer)
            now = shared_daemon.request("GET", target)
            assert (now.bucket, now.etag) == (document, before.etag)
        else:
            assert answer.status == 200, (row, answer)
            assert _same(answer.bucket, expected if "expected" in row else document)


def _moved(operation: Any) -> Any:
    """The same operation on the member ``doc``."""
    if not isinstance(operation, dict):
        return operation
    return {
        key: f"/doc{value}"
        if key in ("path", "from") and isinstance(value, str) and value[:1] in ("", "/")
        else value
        for key, value in operation.items()
    }


def _same(one: Any, other: Any) -> bool:
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
