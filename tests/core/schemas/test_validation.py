"""Every kind of write is checked against the merged bucket, and a refusal changes nothing."""

from __future__ import annotations

from typing import Any

import pytest
from harness import Daemon, Response, pair

LOGIN = {
    "type": "object",
    "properties": {
        "loginTimestamp": {"type": "number"},
        "loggedIn": {"type": "boolean"},
        "user": {"type": "object", "properties": {"mail": {"type": "string", "format": "email"}}},
        "token": {"type": "string", "minLength": 8, "writeOnly": True},
        "pin": {"type": "string", "format": "password", "pattern": "^[0-9]{4}$"},
        "cards": {"type": "array", "items": {"$ref": "#/$defs/card"}},
    },
    "required": ["loggedIn"],
    "$defs": {"card": {"writeOnly": True, "type": "string", "maxLength": 4}},
}
GOOD = {"loggedIn": True, "loginTimestamp": 1}


@pytest.fixture(scope="module")
def schema(shared_daemon: Daemon) -> Daemon:
    assert shared_daemon.request("PUT", "/v1/schemas/login", LOGIN).status == 200
    return shared_daemon


def stored(daemon: Daemon, job: str) -> tuple[Any, Any, Any]:
    now = daemon.request("GET", pair("d", job))
    return now.bucket, now.json["revision"], now.etag


def refused(answer: Response, *expected: tuple[str, str]) -> None:
    """422, and just these (path, keyword)."""
    assert (answer.status, answer.json["code"]) == (422, "schema_violation"), answer
    found = [(d["path"], d["keyword"]) for d in answer.json["details"]]
    assert sorted(found) == sorted(expected)


WRITES: list[tuple[str, str, Any, str]] = [
    ("PATCH", "", {"loggedIn": "yes"}, "application/json"),
    ("PATCH", "", {"loggedIn": None}, "application/json"),
    ("PATCH", "", {"loggedIn": None}, "application/merge-patch+json"),
    ("PATCH", "", [{"op": "remove", "path": "/loggedIn"}], "application/json-patch+json"),
    ("PUT", "", {}, "application/json"),
    ("DELETE", "?key=loggedIn", None, "application/json"),
]


@pytest.mark.parametrize(("method", "query", "body", "kind"), WRITES)
def test_every_write_is_checked(
    schema: Daemon, method: str, query: str, body: Any, kind: str
) -> None:
    job = f"every-{WRITES.index((method, query, body, kind))}"
    schema.request("PUT", pair("d", job) + "?automation=login", GOOD)
    before = stored(schema, job)
    headers = {"Content-Type": kind} if body is not None else {}
    answer = schema.request(method, pair("d", job) + query, body, headers)
    assert (answer.status, answer.json["code"]) == (422, "schema_violation")
    assert stored(schema, job) == before


def test_the_merged_bucket_counts_not_the_request(schema: Daemon) -> None:
    target = pair("d", "merged")
    refused(
        schema.request("PATCH", target + "?automation=login", {"loginTimestamp": 1}),
        ("", "required"),
    )
    assert schema.request("GET", target).json["revision"] == 0
    assert schema.request("PUT", target + "?automation=login", GOOD).status == 200
    assert schema.request("PATCH", target, {"loginTimestamp": 2}).status == 200


def test_the_automation_of_a_token_applies(schema: Daemon) -> None:
    token = schema.mint("d", "token", "login")
    assert schema.request("GET", "/v1/context", token=token).json["schema"] is True
    refused(schema.request("PATCH", "/v1/bucket", {"loggedIn": 1}, token=token),
            ("/loggedIn", "type"))  # fmt: skip
    other = schema.mint("d", "token", "another")
    assert schema.request("GET", "/v1/context", token=other).json["schema"] is False
    assert schema.request("PATCH", "/v1/bucket", {"loggedIn": 1}, token=other).status == 200


def test_the_automation_last_bound_applies_after_a_restart(daemon: Daemon) -> None:
    daemon.request("PUT", "/v1/schemas/login", LOGIN)
    daemon.request("PUT", pair("d", "bound") + "?automation=login", GOOD)
    daemon.kill()
    daemon.start()
    refused(daemon.request("PATCH", pair("d", "bound"), {"loggedIn": 0}), ("/loggedIn", "type"))


def test_the_device_bucket_has_no_schema(schema: Daemon) -> None:
    assert schema.request("PUT", pair("d"), {"loggedIn": "anything"}).status == 200


def test_all_violations_with_their_places(schema: Daemon) -> None:
    wrong = {"loggedIn": 1, "loginTimestamp": "yesterday", "user": {"mail": "nobody"}}
    answer = schema.request("PUT", pair("d", "all") + "?automation=login", wrong)
    refused(answer, ("/loggedIn", "type"), ("/loginTimestamp", "type"), ("/user/mail", "format"))
    messages = {d["path"]: d["message"] for d in answer.json["details"]}
    assert messages["/loginTimestamp"] == "must be a number, got a string of 9 characters"
    assert (
        "/loginTimestamp must be a number, got a string of 9 characters" in answer.json["error"]
        or "(and 2 more)" in answer.json["error"]
    )


def test_of_very_many_violations_the_first_is_told(daemon: Daemon) -> None:
    """The library would hold up the whole daemon for seconds, and the answer have megabytes."""
    items = {"properties": {"a": {"type": "array", "items": {"type": "string"}}}}
    assert daemon.request("PUT", "/v1/schemas/auto", items).status == 200
    target = pair("d", "many") + "?automation=auto"
    for count, told in ((1_000, 1_000), (200_000, 1)):
        answer = daemon.request("PUT", target, {"a": [1] * count})
        assert (answer.status, len(answer.json["details"])) == (422, told)
        assert answer.json["details"][0]["path"] == "/a/0"
    assert "perhaps more" in answer.json["details"][0]["message"]
    # Commas in a text are no members.
    few = daemon.request("PUT", target, {"a": [1, 2], "html": "," * 10_000})
    assert [d["path"] for d in few.json["details"]] == ["/a/0", "/a/1"]
    valid = {"a": ["x"] * 100_000}
    assert daemon.request("PUT", target, valid).status == 200
    assert daemon.request("PATCH", target, {"b": 1}).bucket == {**valid, "b": 1}


@pytest.mark.parametrize(
    ("key", "value"),
    [("token", "hunter2"), ("pin", "hunter2"), ("cards", ["ok", "hunter2"]), ("token", 77123)],
)
def test_a_secret_is_never_repeated(schema: Daemon, key: str, value: Any) -> None:
    body = {"loggedIn": True, key: value}
    answer = schema.request("PUT", pair("d", "secret") + "?automation=login", body)
    assert answer.status == 422
    assert b"hunter2" not in answer.body
    assert b"77123" not in answer.body
    assert "hunter2" not in schema.log


INTEGERS = {"additionalProperties": {"additionalProperties": {"type": "integer"},
                                     "items": {"type": "integer"}}}  # fmt: skip


@pytest.mark.parametrize(
    ("bucket", "paths"),
    [
        ({"": {"b": "x"}}, ["//b"]),
        ({"a": {"": "x"}}, ["/a/"]),
        ({"": {"": "x"}, "a": {"": "y"}}, ["//", "/a/"]),
        ({"": [1, "x"]}, ["//1"]),
        ({"": {"": 1, "b": "x"}, "b": {"": 2}}, ["//b"]),
        ({"7": {"7": 1, "007": "x", "+7": "y"}}, ["/7/+7", "/7/007"]),
        ({"01": [1, "x"]}, ["/01/1"]),
    ],
)
def test_paths_of_empty_keys_and_of_digits(daemon: Daemon, bucket: Any, paths: list[str]) -> None:
    assert daemon.request("PUT", "/v1/schemas/keys", INTEGERS).status == 200
    answer = daemon.request("PUT", pair("d", "keys") + "?automation=keys", bucket)
    assert answer.status == 422
    assert sorted(detail["path"] for detail in answer.json["details"]) == paths


@pytest.mark.parametrize("key", ["7", "007", "+7", ""])
@pytest.mark.parametrize("inside", [False, True])
def test_a_secret_whose_key_is_empty_or_of_digits(daemon: Daemon, key: str, inside: bool) -> None:
    secret: Any = {"enum": ["a"], "writeOnly": True}
    value: Any = "hunter2"
    if inside:
        secret, value = {"additionalProperties": secret}, {"pin": value}
    schema = {"properties": {key: secret}}
    assert daemon.request("PUT", "/v1/schemas/keys", schema).status == 200
    answer = daemon.request("PUT", pair("d", "keys") + "?automation=keys", {key: value})
    assert answer.status == 422
    assert b"got a string" in answer.body
    assert b"7 characters" not in answer.body


def test_a_stored_bucket_that_a_new_schema_refuses(daemon: Daemon) -> None:
    target = pair("d", "old")
    daemon.request("PUT", target + "?automation=login", {"old": 1})
    dry = daemon.request("PUT", "/v1/schemas/login?dry_run=true", LOGIN)
    assert (dry.status, dry.json["count"]) == (200, 1)
    assert daemon.request("GET", "/v1/schemas/login").status == 404
    answer = daemon.request("PUT", "/v1/schemas/login", LOGIN)
    assert (answer.status, answer.json["code"], answer.json["count"]) == (409, "schema_conflict", 1)
    assert answer.json["details"] == dry.json["details"]
    [detail] = answer.json["details"]
    assert (detail["device"], detail["job"]) == ("d", "old")
    assert daemon.request("PATCH", target, {"old": 2}).status == 200
    assert daemon.request("PUT", "/v1/schemas/login?force=true", LOGIN).status == 200
    assert daemon.request("GET", target).bucket == {"old": 2}
    refused(daemon.request("PATCH", target, {"old": 3}), ("", "required"))
    assert daemon.request("PATCH", target, {"loggedIn": False}).status == 200
    assert daemon.request("DELETE", target).status == 200


def test_a_conflict_names_the_first_hundred(daemon: Daemon) -> None:
    with daemon.connect() as sock:
        for number in range(120):
            target = pair("many", f"j{number}") + "?automation=login"
            daemon.request("PUT", target, {"n": number}, sock=sock)
    answer = daemon.request("PUT", "/v1/schemas/login", LOGIN)
    assert (answer.status, answer.json["count"], len(answer.json["details"])) == (409, 120, 100)


def check(daemon: Daemon, automation: str, **body: Any) -> Response:
    return daemon.request("POST", f"/v1/schemas/{automation}/check", body)


def test_a_check_stores_nothing_and_tells_no_value(schema: Daemon) -> None:
    before = schema.request("GET", "/v1/buckets").body
    wrong = {"loginTimestamp": "yesterday", "pin": "hunter2"}
    told = check(schema, "login", bucket=wrong).json
    assert told["schema"] is True
    assert {v["path"]: v["message"] for v in told["violations"]} == {
        "": "must have 'loggedIn'",
        "/loginTimestamp": "must be a number, got a string",
        "/pin": "must match the pattern ^[0-9]{4}$, got a string",
    }
    assert check(schema, "login", bucket=GOOD).json["violations"] == []
    assert schema.request("GET", "/v1/buckets").body == before


def test_a_check_by_a_schema_that_is_not_in_force(schema: Daemon) -> None:
    strict = {"properties": {"loggedIn": {"const": False}}}
    by_name = {"automation": "login", "bucket": GOOD}
    assert check(schema, **by_name, schema=strict).json["violations"][0]["path"] == "/loggedIn"
    assert check(schema, **by_name).json["violations"] == []
    none = check(schema, "nobody", bucket=GOOD).json
    assert (none["schema"], none["violations"]) == (False, [])
    assert check(schema, "nobody", bucket={}, schema=False).json["violations"] != []
    listed = schema.request("GET", "/v1/schemas").json["schemas"]
    assert "nobody" not in [row["automation"] for row in listed]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, '"bucket" must be a JSON object'),
        ({"bucket": []}, '"bucket" must be a JSON object'),
        ({"bucket": {}, "bukket": {}}, "'bukket' is not one of bucket, schema"),
        ({"bucket": {}, "schema": {"type": "nope"}}, "cannot use the schema"),
        ([], "object"),
    ],
)
def test_what_is_no_check(schema: Daemon, body: Any, said: str) -> None:
    answer = schema.request("POST", "/v1/schemas/login/check", body)
    assert (answer.status, said in answer.json["error"]) == (400, True), answer


def test_a_field_may_be_an_integer(shared_daemon: Daemon) -> None:
    field = {"name": "n", "type": "integer", "min": 1, "max": 9}
    answer = shared_daemon.request("PUT", "/v1/schemas/whole", {"fields": [field]})
    assert answer.status == 200, answer
    applied = shared_daemon.request("GET", "/v1/schemas/whole").json["json_schema"]
    assert applied["properties"] == {"n": {"type": "integer", "minimum": 1, "maximum": 9}}
    target = pair("integers", "job") + "?automation=whole"
    for value, status in ((5, 200), (5.0, 200), (5.5, 422), ("5", 422), (10, 422)):
        assert shared_daemon.request("PATCH", target, {"n": value}).status == status, value
    wrong = {"fields": [{"name": "n", "type": "integer", "minLength": 1}]}
    answer = shared_daemon.request("PUT", "/v1/schemas/wrong", wrong)
    assert "'minLength' is for the type string, and its type is integer" in answer.json["error"]
