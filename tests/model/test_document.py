"""A document by members and one by text are the same document, whatever is done to them."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest
from bucket_inputs import buckets, keys
from hypothesis import given
from hypothesis import strategies as st

from bucketd.model import document, strict_json
from bucketd.model.document import MEMBER_BYTES, Document

# So many members that they are not kept, in whatever is made here; or so few that they are.
FORMS = {"by text": -1, "by members": 10**6}


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> Any:
    with mock.patch.object(document, "FEW_MEMBERS", FORMS[request.param]):
        if request.param == "by text":
            with mock.patch.object(document, "MAX_MEMBERS", -1):
                yield
        else:
            yield


pytestmark = pytest.mark.usefixtures("form")
documents = buckets.map(Document.of)


def size_is_that_of_its_text(made: Document) -> bool:
    return made.size == len(made.text) == sum(map(len, made.pieces))


@given(buckets, buckets, st.lists(keys, max_size=3))
def test_changed(before: dict[str, Any], data: dict[str, Any], removed: list[str]) -> None:
    data = {key: value for key, value in data.items() if key not in removed}
    after = {k: v for k, v in (before | data).items() if k not in removed}
    made = Document.of(before).changed(strict_json.members(data), removed)
    assert list(made.values()) == list(after)
    assert made.same(Document.of(after))
    assert size_is_that_of_its_text(made)


@given(buckets, st.lists(keys, max_size=3))
def test_changed_to_what_is_there_already(before: dict[str, Any], others: list[str]) -> None:
    made = Document.of(before)
    absent = [key for key in others if key not in before]
    assert made.changed(strict_json.members(before), absent) is made


@given(buckets, buckets)
def test_same_is_told_alike_by_text_and_by_members(
    one: dict[str, Any], other: dict[str, Any]
) -> None:
    for values in (other, dict(reversed(one.items()))):
        a, b = Document.of(one), Document.of(values)
        by_members = Document(None, strict_json.members(one))
        expected = strict_json.equal(one, values)
        assert a.same(b) == expected
        assert by_members.same(b) == b.same(by_members) == expected
        assert by_members.same(Document(None, strict_json.members(values))) == expected


def test_a_large_document_is_split_while_its_values_are_at_hand() -> None:
    large = {"cookies": ["c" * 100] * 1000, "n": 1}
    made = Document.of(large)
    assert made.is_split == (document.MAX_MEMBERS > 0)
    assert made.values() == large
    assert size_is_that_of_its_text(made)
    assert made.same(Document.of(dict(reversed(large.items()))))
    assert not made.same(Document.of(large | {"n": 2}))


@given(buckets, buckets)
def test_a_difference_leads_from_one_to_the_other(
    before: dict[str, Any], after: dict[str, Any]
) -> None:
    was, now = Document.of(before), Document.of(after)
    set_, removed = now.difference_from(was)
    assert was.changed(set_, removed).same(now)
    assert set(set_) == {k for k in after if k not in before or not same(before[k], after[k])}
    assert set(removed) == before.keys() - after.keys()


def same(one: Any, other: Any) -> bool:
    return strict_json.equal(one, other)


@given(buckets, st.lists(keys, unique=True, max_size=4))
def test_only(bucket: dict[str, Any], wanted: list[str]) -> None:
    made = Document.of(bucket).only(wanted)
    assert made.text == strict_json.dumps({k: bucket[k] for k in wanted if k in bucket})
    assert size_is_that_of_its_text(made)
    for key in wanted:
        assert same(Document.of(bucket).value(key), bucket.get(key))


@given(buckets)
def test_its_text_is_what_was_given(bucket: dict[str, Any]) -> None:
    made = Document.of(bucket)
    text = made.text
    assert b"".join(member + b"," for member in made.members.values())[:-1] == text[1:-1]
    assert made.text == text
    assert made == Document.of(bucket)
    assert made.memory >= made.size


def test_memory_is_told_of_both_forms() -> None:
    few = Document.of({"login": "x" * 9000, "n": 1})
    before = few.memory
    few.members  # noqa: B018  (splits it)
    assert few.memory == before + (2 * MEMBER_BYTES if few.is_split else 0)
