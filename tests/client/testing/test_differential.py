"""The daemon and the server in memory answer the requests of a client alike."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from bucket_inputs import (
    JSON_PATCH,
    MERGE_PATCH,
    buckets,
    keys,
    operations,
    query_of,
    values,
)
from harness import Daemon, Response, new_daemon, pair
from hypothesis import given, settings
from hypothesis import strategies as st
from in_memory import in_memory

TESTS = Path(__file__).resolve().parents[2]

GOLDEN = [case for path in sorted((TESTS / "wire").glob("*.json"))
          for case in json.loads(path.read_text()) if case["request"]]  # fmt: skip
numbers = itertools.count()

queries = st.just("") | st.lists(keys, min_size=1, max_size=2).map(query_of)
guards = st.none() | st.tuples(
    st.sampled_from(["If-Match", "If-None-Match"]),
    st.just("*") | st.just('"other"') | st.integers(0, 3),
)
requests = st.one_of(
    st.tuples(st.sampled_from(["GET", "DELETE"]), queries, st.none(), st.just({})),
    st.tuples(st.sampled_from(["PUT", "PATCH"]), st.just(""), buckets, st.just({})),
    st.tuples(st.just("PATCH"), st.just(""), st.dictionaries(keys, values), st.just(MERGE_PATCH)),
    st.tuples(st.just("PATCH"), st.just(""), st.lists(operations, max_size=3),
              st.just(JSON_PATCH)),
)  # fmt: skip


@pytest.fixture(scope="module")
def both() -> Any:
    """The daemon, and the server for tests."""
    daemon = new_daemon()
    try:
        with in_memory() as server:
            yield daemon.start(), server
    finally:
        daemon.remove()


def told(answer: Response, etags: list[str | None]) -> Any:
    """All that an answer says but the words of an error; ETags as the order of their coming."""
    if answer.etag not in etags:
        etags.append(answer.etag)
    members = answer.json if answer.body else {}
    error = members.pop("error", None)
    # The server in memory has no trash.
    members.pop("trash", None)
    kind = {name: answer.headers.get(name) for name in ("content-type", "allow", "retry-after")}
    kind["content-type"] = kind["content-type"] if answer.body else None
    # As text: to Python 1, 1.0 and true are equal.
    said = json.dumps(members, sort_keys=True)
    return answer.status, said, kind, etags.index(answer.etag), error is None


def ask(side: Daemon, device: str, request: Any, guard: Any, etags: list[str | None]) -> Any:
    method, query, body, headers = request
    if guard is not None and method != "GET":
        name, value = guard
        value = etags[value % len(etags)] or '"none"' if isinstance(value, int) else value
        headers = {**headers, name: value}
    return told(side.request(method, pair(device, "j") + query, body, headers), etags)


@settings(max_examples=60)
@given(st.lists(st.tuples(requests, guards), min_size=1, max_size=8))
def test_the_same_answers(both: Any, steps: Any) -> None:
    device = f"d{next(numbers)}"
    etags: tuple[list[str | None], list[str | None]] = ([None], [None])
    for request, guard in steps:
        one, other = (ask(s, device, request, guard, e) for s, e in zip(both, etags, strict=True))
        assert one == other, (request, guard)


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: case["name"])
def test_golden_requests(both: Any, case: Any) -> None:
    """Requests as the clients make them, with a token and without."""
    wanted = case["request"]
    headers = {name.title(): v for name, v in wanted["headers"].items() if v is not None}
    device, said = f"g{next(numbers)}", []
    for side in both:
        if "Authorization" in headers:
            headers["Authorization"] = f"Bearer {side.mint(device, 'j')}"
        target = wanted["target"].replace("/devices/d/", f"/devices/{device}/")
        answer = side.request(wanted["method"], target, wanted.get("body"), headers)
        if target == "/v1/context":
            assert answer.json.pop("expires_at")
            said.append((answer.status, sorted(answer.json)))
        else:
            said.append(told(answer, [None]))
    assert said[0] == said[1]
