"""The quick way to JSON reads and writes what ``json`` does, and says the same of what is none."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from bucketd_client import _json
from hypothesis import given
from hypothesis import strategies as st

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@pytest.fixture(params=["quick", "another Python"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "another Python":
        monkeypatch.setattr(_json, "_scan", None)
        monkeypatch.setattr(_json, "_encoder", None)


def test_this_python_has_the_quick_way(request: pytest.FixtureRequest) -> None:
    quick = request.node.callspec.params["way"] == "quick"
    assert (_json._scan is not None, _json._encoder is not None) == (quick, quick)


@given(VALUES)
def both_ways(value: Any) -> None:
    assert _json.dumps(value) == json.dumps(value, ensure_ascii=False)
    compact = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    assert _json.dumps(value, (",", ":")) == compact
    assert _json.loads(f" {compact}\n") == value


def test_any_value() -> None:
    both_ways()


def test_constants() -> None:
    assert _json.loads("[Infinity, -Infinity]") == [math.inf, -math.inf]
    assert math.isnan(_json.loads("NaN"))
    assert _json.dumps(math.inf) == "Infinity"


@pytest.mark.parametrize("text", ["", " ", "{", "[1]x", "\ufeff{}", "nul", ' "\t"', "[1,]", "1 2"])
def test_what_is_none_is_told_as_json_tells_it(text: str) -> None:
    with pytest.raises(json.JSONDecodeError) as told:
        json.loads(text)
    with pytest.raises(json.JSONDecodeError) as found:
        _json.loads(text)
    assert str(found.value) == str(told.value)


def circle() -> list[Any]:
    within: list[Any] = []
    within.append(within)
    return within


@pytest.mark.parametrize(
    ("value", "error"),
    [(math.nan, ValueError), (object(), TypeError), ({1, 2}, TypeError), (circle(), ValueError)],
)
def test_what_has_none_is_refused_as_json_refuses_it(value: Any, error: type[Exception]) -> None:
    with pytest.raises(error) as told:
        json.dumps(value, allow_nan=False)
    with pytest.raises(error) as found:
        _json.dumps(value, allow_nan=False)
    assert str(found.value) == str(told.value)


def test_what_is_nested_too_deep() -> None:
    with pytest.raises(RecursionError):
        _json.loads("[" * 100_000)
