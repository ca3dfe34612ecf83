"""Inverses take every change back, byte for byte, also 10,000 of them, and after others."""

from __future__ import annotations

import random
from typing import Any
from unittest import mock

import orjson
import pytest
from bucket_inputs import buckets, keys
from hypothesis import given
from hypothesis import strategies as st

from bucketd.model import document, inverses, revisions, strict_json
from bucketd.model.author import Author
from bucketd.model.bucket import Snapshot
from bucketd.model.document import EMPTY, Document
from bucketd.model.revisions import HistoryLimits, Revision

FORMS = {"by text": -1, "by members": 10**6}
CHANGES = 10_000
ALL = HistoryLimits(CHANGES, 1 << 40)


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> Any:
    with mock.patch.object(document, "FEW_MEMBERS", FORMS[request.param]):
        if request.param == "by text":
            with mock.patch.object(document, "MAX_MEMBERS", -1):
                yield
        else:
            yield


@given(buckets, buckets, st.randoms())
@pytest.mark.usefixtures("form")
def test_a_replacement_is_taken_back(
    before: dict[str, Any], after: dict[str, Any], dice: random.Random
) -> None:
    # Keys of both, in any order.
    mixed = [*{**before, **after}.items()]
    dice.shuffle(mixed)
    for values in (after, dict(mixed), dict(mixed[: len(mixed) // 2])):
        old, new = Document.of(before), Document.of(values)
        inverse = inverses.invert(old.members, new.members)
        assert inverses.take_back(new, inverse).text == old.text
        assert sorted(inverse.set_keys) == sorted(
            key
            for key, value in values.items()
            if key not in before or orjson.dumps(before[key]) != orjson.dumps(value)
        )
        assert [*inverse.removed] == [key for key in before if key not in values]


@given(buckets, buckets)
@pytest.mark.usefixtures("form")
def test_a_line_says_the_same_as_the_revision(
    before: dict[str, Any], after: dict[str, Any]
) -> None:
    old, new = Document.of(before), Document.of(after)
    inverse = inverses.invert(old.members, new.members)
    author = Author("ada", "c1", "phone", "login", "run 7")
    made = Revision(3, "etag", "at", (2, "was"), author, "shop", inverse, 1)
    for one in (made, made._replace(inverse=None, undoes=None, automation=None, at=None)):
        line = revisions.encode(*one)
        assert b"\n" not in line
        assert revisions.decode(line) == one


@given(buckets, st.lists(keys, max_size=3), buckets)
def test_a_change_is_taken_back_from_under_later_ones(
    before: dict[str, Any], removed: list[str], later: dict[str, Any]
) -> None:
    old = Document.of(before)
    new = old.changed(strict_json.members({"set": 1}), removed)
    inverse = inverses.invert(old.members, new.members)
    others = {key: value for key, value in later.items() if key not in inverse.keys}
    now = new.changed(strict_json.members(others))
    expected = {**before, **others}
    if "set" in inverse.keys and "set" not in before:
        expected.pop("set", None)
    assert inverses.take_back(now, inverse).values() == expected


def changed(bucket: Document, dice: random.Random) -> Document:
    """Return what one of all the ways to change a bucket makes of it."""
    names = [f"k{number}" for number in range(12)]
    values: list[Any] = [0, 1.5, None, True, "text", [1, {"a": [None]}], {"b": "ü"}, 2**63, ""]
    some = {name: dice.choice(values) for name in dice.sample(names, dice.randrange(4))}
    match dice.randrange(4):
        case 0:
            return Document.of(some)
        case 1:
            shuffled = [*bucket.values().items()]
            dice.shuffle(shuffled)
            return Document.of(dict(shuffled))
        case 2:
            return bucket.changed({}, dice.sample(names, 2))
        case _:
            return bucket.changed(strict_json.members(some))


def test_ten_thousand_changes_are_undone_one_by_one() -> None:
    dice = random.Random(25)
    first = now = Snapshot(Document.of({"first": {"b": 1, "a": [2.50, "x"]}, "n": 1}), 1, "1")
    states, lines = [now], []
    while len(lines) < CHANGES:
        bucket = changed(now.bucket, dice)
        if bucket.text == now.bucket.text:
            continue
        number = now.revision + 1
        inverse = inverses.invert(now.bucket.members, bucket.members)
        was = now.revision, now.etag
        now = Snapshot(bucket, number, str(number))
        made = Revision(number, str(number), None, was, Author(), None, inverse)
        lines.append(revisions.encode(*made))
        states.append(now)
    bucket = now.bucket
    found = 0
    for revision, state in zip(
        revisions.chain(now, reversed(lines), ALL), reversed(states[:-1]), strict=True
    ):
        assert revision.inverse is not None
        bucket = inverses.take_back(bucket, revision.inverse)
        assert (revision.was, bucket.text) == ((state.revision, state.etag), state.bucket.text)
        found += 1
    assert found == CHANGES
    assert bucket.text == first.bucket.text


def test_what_is_not_a_line_ends_the_chain() -> None:
    empty = inverses.invert({}, {})
    made = [
        revisions.encode(n, str(n), None, (n - 1, str(n - 1)), Author(), None, empty, None)
        for n in range(1, 6)
    ][::-1]
    now = Snapshot(EMPTY, 5, "5")

    def numbers(lines: list[bytes], limits: HistoryLimits = ALL) -> list[int]:
        return [one.revision for one in revisions.chain(now, lines, limits)]

    assert numbers(made) == [5, 4, 3, 2, 1]
    assert numbers([made[0], *made]) == [5, 4, 3, 2, 1]
    assert numbers([*made[:2], *made[3:]]) == [5, 4]
    assert numbers([*made[:2], b'{"revision":3}', *made[2:]]) == [5, 4]
    assert numbers(made[1:]) == []
    assert numbers(made, HistoryLimits(2, 1 << 20)) == [5, 4]
    assert numbers(made, HistoryLimits(9, len(made[0]) * 3)) == [5, 4, 3]
    assert numbers(made, HistoryLimits(9, 1)) == [5]
