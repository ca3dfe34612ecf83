"""``bucketd.model.changes`` alone: whatever a JSON Patch points at, it is applied or refused."""

from __future__ import annotations

import itertools
from typing import Any

import orjson
import pytest

from bucketd.errors import BucketdError, PatchFailed
from bucketd.model import changes

DOCUMENT = orjson.dumps({"b": [1, 2], "o": {"x": 1, "": 2, "-": 3}, "s": "t", "n": None, "": {}})
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
        assert isinstance(orjson.loads(after or b""), dict), operation
    assert bool(applied) == (name != "test")


@pytest.mark.parametrize("name", ["replace", "test", "remove", "move", "copy"])
def test_behind_the_end_of_an_array_there_is_nothing(name: str) -> None:
    operation = {"op": name, "path": "/b/-", "value": 1}
    if name in ("move", "copy"):
        operation = {"op": name, "from": "/b/-", "path": "/x"}
    with pytest.raises(PatchFailed, match=r"no such place|another value"):
        changes.json_patch([operation], 1 << 20).apply(DOCUMENT)
