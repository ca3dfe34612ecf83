"""Any sequence of requests gets the same answers from the daemon and the server for tests."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from bucket_inputs import (
    BAD_INPUT,
    JSON_PATCH,
    MERGE_PATCH,
    buckets,
    keys,
    operations,
    query_of,
    values,
)
from harness import Daemon, Response, new_daemon, pair, read_response
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from in_memory import in_memory

TESTS = Path(__file__).resolve().parents[2]

GOLDEN = [case for path in sorted((TESTS / "wire").glob("*.json"))
          for case in json.loads(path.read_text()) if case["request"]]  # fmt: skip
numbers = itertools.count()

queries = st.sampled_from(["", "?mask=secrets"]) | st.lists(keys, min_size=1, max_size=2).map(
    query_of
)
guards = st.none() | st.tuples(
    st.sampled_from(["If-Match", "If-None-Match"]),
    st.just("*") | st.just('"other"') | st.integers(0, 3),
)
requests = st.one_of(
    st.tuples(st.sampled_from(["GET", "HEAD", "DELETE"]), queries, st.none(), st.just({})),
    st.tuples(st.sampled_from(["PUT", "PATCH"]), st.sampled_from(["", "?mask=secrets"]), buckets,
              st.just({})),
    st.tuples(st.just("PATCH"), st.just(""), st.dictionaries(keys, values), st.just(MERGE_PATCH)),
    st.tuples(st.just("PATCH"), st.just(""), st.lists(operations, max_size=3),
              st.just(JSON_PATCH)),
    st.sampled_from([case[:4] for case in BAD_INPUT]),
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


PUT, GET = "PUT /v1/devices/raw/bucket", "GET /v1/devices/raw/bucket"
BAD_TAG, LARGE = "If-Match: x", f"Content-Length: {2**20 + 1}"
# Requests whose head is refused, several for more than one reason: the first reason counts.
REFUSED: list[tuple[str, int, str]] = [
    (GET + "\nHost: c", 400, "invalid_request"),
    *((f"{GET}\n{name}: a\n{name}: a", 400, "invalid_request")
      for name in ("Content-Type", "User-Agent", "Server", "ETag")),
    *((f"{PUT}\nTransfer-Encoding: {value}", 400, "invalid_request")
      for value in ("gzip", "identity", "chunked, gzip", "chunked\nContent-Length: 2")),
    *((f"{PUT}\nContent-Length: {value}", 400, "invalid_request")
      for value in ("", "2, 2", "+2", "0x2", "²", "2\nContent-Length: 2")),
    *((f"{GET}\n{field}", 400, "invalid_request")
      for field in ("X\1: a", "X: a\0", "X: a\x7f", "X Y: a", ": a", "X", "X: a\n b")),
    (GET + "\nX: " + "x" * 9000, 400, "invalid_request"),
    (GET + 5 * ("\nX: " + "x" * 8000), 400, "invalid_request"),
    (GET + 127 * "\nX: a", 400, "invalid_request"),
    *((f"GET {target}", 400, "invalid_request")
      for target in ("healthz", "*", "?a", "/ü", "/\x7f", "http://", "http://b:x/healthz",
                     "/" + "x" * 2**15)),
    ("BREW /healthz", 400, "invalid_request"),
    ("get /healthz", 400, "invalid_request"),
    ("POST /nothing\nOrigin: a", 403, "forbidden"),
    ("GET /v1/devices/%zz/nothing", 404, "not_found"),
    ("POST /v1/devices/%zz/bucket", 400, "invalid_request"),
    ("POST /v1/devices/%07/bucket?x", 405, "method_not_allowed"),
    ("OPTIONS /healthz", 405, "method_not_allowed"),
    ("GET /healthz?x\nAccept: text/html", 400, "invalid_request"),
    ("GET /v1/bucket\nAccept: a\nAuthorization: a\nAuthorization: b", 406, "not_acceptable"),
    ("GET /healthz\nAuthorization: a\nAuthorization: b", 400, "invalid_request"),
    (GET + "\nAccept: application/json;q=0, */*", 406, "not_acceptable"),
    *((f"{GET}\nAccept: application/json;q={weight}", 406, "not_acceptable")
      for weight in ("x", "nan", "inf", "1_0", "1.5", "0.0000", "-1", "")),
    ("GET /v1/devices/%07/bucket\nAuthorization: a", 400, "invalid_request"),
    (GET.replace("raw/", "raw/jobs/j/") + "?automation=", 400, "invalid_request"),
    (f"{GET}?mask=", 400, "invalid_request"),
    (f"{GET}/events?mask=all", 400, "invalid_request"),
    (f"{GET}?mask=all\nAccept: text/html", 406, "not_acceptable"),
    ("GET /v1/bucket?mask=all", 400, "invalid_request"),
    ("GET /v1/bucket?mask=secrets", 401, "no_job_context"),
    ("GET /v1/buckets?mask=secrets", 400, "invalid_request"),
    (f"{GET}\nAuthorization: a\n{BAD_TAG}", 401, "no_job_context"),
    (f"{GET}/events\n{BAD_TAG}", 400, "invalid_request"),
    (f'{GET}\nIf-Match: "€"', 400, "invalid_request"),
    (f"{PUT}\n{BAD_TAG}\nContent-Type: text/plain", 400, "invalid_request"),
    (f"{PUT}\n{BAD_TAG}\n{LARGE}", 400, "invalid_request"),
    (f"{PUT}\nContent-Type: text/plain\n{LARGE}", 415, "unsupported_media_type"),
    (f'{PUT}\nContent-Type: application/json; charset=utf"-8', 415, "unsupported_media_type"),
    (f"{GET}\n{LARGE}", 413, "too_large"),
    (f"PUT /v1/bucket\n{LARGE}", 401, "no_job_context"),
    ("GET /v1/buckets?limit=0&device=", 400, "invalid_request"),
    *((f"GET /v1/buckets?cursor={cursor}", 400, "invalid_request")
      for cursor in ("", "zz", "5b5d", "5b312c325d")),
]  # fmt: skip


def told(answer: Response, etags: list[str | None]) -> Any:
    """All that an answer says but the words of an error; ETags as the order of their coming."""
    if answer.etag not in etags:
        etags.append(answer.etag)
    members = answer.json if answer.body else {}
    error = members.pop("error", None)
    kind = {name: answer.headers.get(name) for name in ("content-type", "allow", "retry-after")}
    kind["content-type"] = kind["content-type"] if answer.body else None
    # As text: to Python 1, 1.0 and true are equal.
    said = json.dumps(members, sort_keys=True)
    return answer.status, said, kind, etags.index(answer.etag), error is None


def ask(side: Daemon, device: str, request: Any, guard: Any, etags: list[str | None]) -> Any:
    method, query, body, headers = request
    if guard is not None:
        name, value = guard
        value = etags[value % len(etags)] or '"none"' if isinstance(value, int) else value
        headers = {**headers, name: value}
    if method == "HEAD":
        query = ""
    return told(side.request(method, pair(device, "j") + query, body, headers), etags)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
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


@pytest.mark.parametrize(("head", "status", "code"), REFUSED, ids=lambda each: str(each)[:60])
def test_the_same_refusals(both: Any, head: str, status: int, code: str) -> None:
    line, *fields = head.split("\n")
    text = "\r\n".join([f"{line} HTTP/1.1", "Host: b", *fields, "Connection: close", "", ""])
    for side in both:
        with side.connect() as sock:
            sock.sendall(text.encode())
            answer = read_response(sock)
        assert (answer.status, answer.json["code"]) == (status, code), answer
