"""``?defaults=true``: a bucket is read with the defaults of its schema, and nothing is stored."""

from __future__ import annotations

from typing import Any

import pytest
from harness import Daemon, pair

SCHEMA = {
    "type": "object",
    "properties": {
        "status": {"type": "string", "default": "new"},
        "tags": {"type": "array", "default": []},
        "n": {"type": "integer", "default": 7},
        "user": {"type": "object", "properties": {"role": {"default": "admin"}}},
    },
}
DEFAULTS = {"status": "new", "tags": [], "n": 7}


@pytest.fixture
def scheme(daemon: Daemon) -> Daemon:
    assert daemon.request("PUT", "/v1/schemas/login", SCHEMA).status == 200
    return daemon


def read(daemon: Daemon, query: str = "", job: str | None = "j") -> Any:
    return daemon.request("GET", f"{pair('d', job)}?defaults=true{query}")


def test_missing_keys_are_added_to_what_is_read(scheme: Daemon) -> None:
    path = f"{pair('d', 'j')}?automation=login"
    stored = {"n": 1, "user": {}, "other": None}
    etag = scheme.request("PUT", path, stored).etag
    found = read(scheme)
    assert (found.status, found.etag, found.json["revision"]) == (200, etag, 1)
    # A stored value stands as it is, whatever defaults there are for its parts.
    assert found.bucket == {**stored, "status": "new", "tags": []}
    assert read(scheme, "&key=status&key=n&key=absent").bucket == {"status": "new", "n": 1}
    assert scheme.request("HEAD", f"{pair('d', 'j')}?defaults=true").status == 200
    for same in (f"{pair('d', 'j')}", f"{pair('d', 'j')}?defaults=false"):
        assert scheme.request("GET", same).bucket == stored
    assert scheme.request("GET", pair("d", "j")).json["revision"] == 1


def test_a_bucket_that_is_not_stored(scheme: Daemon) -> None:
    found = read(scheme, "&automation=login")
    assert (found.bucket, found.json["revision"], found.etag) == (DEFAULTS, 0, None)
    assert read(scheme).bucket == {}
    assert scheme.request("GET", "/v1/buckets").json["buckets"] == []


def test_through_a_token(scheme: Daemon) -> None:
    token = scheme.mint("d", "j", "login")
    found = scheme.request("GET", "/v1/bucket?defaults=true", token=token)
    assert found.bucket == DEFAULTS
    found = scheme.request("GET", "/v1/device/bucket?defaults=true", token=token)
    assert found.json["deviceBucket"] == {}


def test_a_device_bucket_has_no_schema(scheme: Daemon) -> None:
    scheme.request("PUT", pair("d"), {"a": 1})
    assert read(scheme, job=None).json["deviceBucket"] == {"a": 1}


def test_the_schema_counts_at_once(scheme: Daemon) -> None:
    """So the ETag of the bucket does not tell that what was read is still right."""
    etag = scheme.request("PUT", f"{pair('d', 'j')}?automation=login", {"n": 1}).etag
    assert etag is not None
    new = {"properties": {"status": {"default": "other"}}}
    assert scheme.request("PUT", "/v1/schemas/login", new).status == 200
    path = f"{pair('d', 'j')}?defaults=true"
    again = scheme.request("GET", path, headers={"If-None-Match": etag})
    assert (again.status, again.bucket) == (200, {"n": 1, "status": "other"})
    assert scheme.request("GET", path, headers={"If-Match": '"other"'}).status == 412
    assert scheme.request("GET", path, headers={"If-Match": etag}).status == 200


def test_the_schema_tells_its_defaults(scheme: Daemon) -> None:
    assert scheme.request("GET", "/v1/schemas/login").json["defaults"] == DEFAULTS


@pytest.mark.parametrize("value", ["1", "", "yes", "TRUE"])
def test_another_value_is_refused(scheme: Daemon, value: str) -> None:
    found = scheme.request("GET", f"{pair('d', 'j')}?defaults={value}")
    assert (found.status, found.json["code"]) == (400, "invalid_request")


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
def test_a_write_has_no_defaults(scheme: Daemon, method: str) -> None:
    body = None if method == "DELETE" else {}
    assert scheme.request(method, f"{pair('d', 'j')}?defaults=true", body).status == 400
