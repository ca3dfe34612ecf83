"""``bucketd.model.changes`` alone: whatever a JSON Patch points at, it is applied or refused."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from bucketd.errors import BucketdError, PatchFailed
from bucketd.model import changes
from bucketd.model.document import EMPTY, Document

DOCUMENT = Document.of({"b": [1, 2], "o": {"x": 1, "": 2, "-": 3}, "s": "t", "n": None, "": {}})
POINTERS = [
    *("", "/", "/-", "/b", "/b/-", "/b/-/x", "/b/0", "/b/00", "/b/2", "/b/9", "/b/-1", "/b/1e0"),
    *("/b/a", "/b/", "/b/0/x", "/b/٣", "/b/1_0", "/b/ 1", "/b/+1", "/o", "/o/x", "/o/-", "/o/"),
    *("/o/x/y", "/s", "/s/0", "/s/-", "/n", "/n/0", "//a", "/~0", "/~1"),
]


def operations(name: str) -> list[dict[str, Any]]:
    if name in ("move", "copy"):
        pairs = itertools.product(POINTERS, POINTERS)
        return [{"op": name, "from": source, "path": path} for source, path in pairs]
    return [{"op": name, "path": path, "value": {"v": 1}} for path in POINTERS]


@pytest.mark.parametrize("name", ["add", "replace", "test", "remove", "move", "copy"])
def test_any_place_is_patched_or_refused(name: str) -> None:
    applied = 0
    for operation in operations(name):
        try:
            after = changes.json_patch([operation], 1 << 20).apply(DOCUMENT)
        except BucketdError:
            continue
        applied += 1
        assert after is not None, operation
    assert bool(applied) == (name != "test")


@pytest.mark.parametrize("name", ["replace", "test", "remove", "move", "copy"])
def test_behind_the_end_of_an_array_there_is_nothing(name: str) -> None:
    operation = {"op": name, "path": "/b/-", "value": 1}
    if name in ("move", "copy"):
        operation = {"op": name, "from": "/b/-", "path": "/x"}
    with pytest.raises(PatchFailed, match=r"no such place|another value"):
        changes.json_patch([operation], 1 << 20).apply(DOCUMENT)


@pytest.mark.parametrize(
    ("stored", "tested", "holds"),
    [
        ("1", True, False), ("true", 1, False), ("0", False, False), ("false", False, True),
        ("1", 1.0, True), ("1.0", 1, True), ('{"a":[1]}', {"a": [True]}, False),
        ('{"a":1,"b":2}', {"b": 2, "a": 1}, True), ("null", None, True), ('"1"', 1, False),
    ],
)  # fmt: skip
def test_a_test_takes_no_boolean_for_a_number(stored: str, tested: object, holds: bool) -> None:
    document = Document(b'{"v":%b}' % stored.encode())
    patch = changes.json_patch([{"op": "test", "path": "/v", "value": tested}], 1 << 20)
    if holds:
        assert patch.apply(document) is document
    else:
        with pytest.raises(PatchFailed, match="another value is there"):
            patch.apply(document)


def test_a_patch_comes_to_the_same_each_time() -> None:
    """An engine may evaluate one several times; later operations change what earlier ones add."""
    patch = changes.json_patch(
        [
            {"op": "add", "path": "/list", "value": []},
            {"op": "add", "path": "/list/-", "value": {"n": 1}},
            {"op": "add", "path": "/list/0/m", "value": 2},
        ],
        1 << 20,
    )
    for _ in range(3):
        assert patch.apply(EMPTY) == Document(b'{"list":[{"n":1,"m":2}]}')


SECRET = "hunter2-secret"


@pytest.mark.parametrize(
    "operations",
    [
        [{"op": "test", "path": "/s", "value": "other"}],
        [{"op": "test", "path": "/k", "value": SECRET}],
        [{"op": "add", "path": "/s/x", "value": SECRET}],
        [{"op": "replace", "path": "/none", "value": SECRET}],
        [{"op": "add", "path": "", "value": SECRET}],
        [{"op": "add", "path": "/a/9", "value": SECRET}],
        [{"op": "remove", "path": "/a/x"}],
        [{"op": "copy", "from": "/s", "path": "/s/s"}],
        [{"op": "move", "from": "/s", "path": ""}],
        [{"op": SECRET, "path": "/s"}],
        [{"op": "add", "path": SECRET, "value": SECRET}],
        [SECRET],
    ],
)
def test_a_refused_patch_shows_no_value(operations: list[object]) -> None:
    document = Document.of({"s": SECRET, "k": 1, "a": [SECRET]})
    with pytest.raises(BucketdError) as refused:
        changes.json_patch(operations, 1 << 20).apply(document)
    assert SECRET not in refused.value.message
    assert SECRET not in repr(refused.value.details)


def test_a_long_path_is_cut_in_an_error() -> None:
    patch = changes.json_patch([{"op": "remove", "path": "/" + "k" * 9999}], 1 << 20)
    with pytest.raises(PatchFailed) as refused:
        patch.apply(DOCUMENT)
    assert len(refused.value.message) < 400
