"""A schema that tolerates: set, shown and kept, and what each kind of write gets from it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import Daemon, Response, encode_name, new_daemon, pair
from test_schema_files import eventually, save

from bucketd.core.schemas.registry import Registry
from bucketd.core.schemas.validator import compile_schema
from bucketd.fs import files
from bucketd.model import changes
from bucketd.model.document import Document

STRICT = {
    "properties": {
        "n": {"type": "number"},
        "token": {"type": "string", "minLength": 8, "writeOnly": True},
    },
    "required": ["loggedIn"],
}
OLD = {"n": "text", "b": 1}
# What OLD violates.
STOOD = [("", "required"), ("/n", "type")]
TOLERATE = "?existing=tolerate"


@pytest.fixture(scope="module", params=["plain", "with a quota"])
def tolerating(request: pytest.FixtureRequest) -> Iterator[Daemon]:
    daemon = new_daemon()
    if request.param != "plain":
        daemon.env["BUCKETD_LIMITS_MAX_DEVICE_BYTES"] = str(100_000_000)
    try:
        daemon.start()
        put_schema(daemon, STRICT, TOLERATE)
        yield daemon
    finally:
        daemon.remove()


def put_schema(daemon: Daemon, schema: Any, query: str = "", automation: str = "login") -> Response:
    return daemon.request("PUT", f"/v1/schemas/{automation}{query}", schema)


def mode(daemon: Daemon, automation: str = "login") -> Any:
    [row] = [
        row
        for row in daemon.request("GET", "/v1/schemas").json["schemas"]
        if row["automation"] == automation
    ]
    whole = daemon.request("GET", f"/v1/schemas/{automation}").json
    assert whole["existing"] == row["existing"]
    return row["existing"]


def store(daemon: Daemon, job: str, bucket: Any = OLD, automation: str = "login") -> str:
    """Store a bucket as it was before the schema: an import is not checked."""
    target = f"{pair('d', job)}?automation={automation}&revision=1"
    assert daemon.request("PUT", target, bucket).status == 200
    return pair("d", job)


def told(violations: Any) -> list[tuple[str, str]]:
    return sorted((each["path"], each["keyword"]) for each in violations)


WRITES: dict[str, tuple[str, str, Any, str]] = {
    "merge": ("PATCH", "", {"b": 2}, "application/json"),
    "nothing": ("PATCH", "", {"b": 1}, "application/json"),
    "merge patch": ("PATCH", "", {"b": None, "c": {"x": 1}}, "application/merge-patch+json"),
    "JSON Patch": (
        "PATCH",
        "",
        [{"op": "add", "path": "/c", "value": 1}],
        "application/json-patch+json",
    ),
    "long JSON Patch": (
        "PATCH",
        "",
        [{"op": "add", "path": "/c", "value": n} for n in range(100)],
        "application/json-patch+json",
    ),
    "replacement": ("PUT", "", {"n": "text", "c": 1}, "application/json"),
    "large replacement": ("PUT", "", {"n": "text", "c": "x" * 100_000}, "application/json"),
    "removal of a key": ("DELETE", "?key=b", None, ""),
}


@pytest.mark.parametrize("size", ["small", "large"])
@pytest.mark.parametrize("name", WRITES)
@pytest.mark.parametrize("minimal", [False, True])
def test_every_write_that_leaves_it_as_it_was_passes(
    tolerating: Daemon, name: str, size: str, minimal: bool
) -> None:
    method, query, body, kind = WRITES[name]
    bucket = {**OLD, **({"large": "x" * 100_000} if size == "large" else {})}
    target = store(tolerating, f"{name} {size} {minimal}", bucket)
    headers = {"Content-Type": kind} if kind else {}
    headers |= {"Prefer": "return=minimal"} if minimal else {}
    answer = tolerating.request(method, target + query, body, headers)
    assert (answer.status, told(answer.json["warnings"])) == (200, STOOD)
    assert ("bucket" in answer.json) is not minimal
    assert answer.json["revision"] == (1 if name == "nothing" else 2)
    for each in answer.json["warnings"]:
        assert set(each) == {"path", "message", "keyword"}
    read = tolerating.request("GET", target)
    assert read.json["revision"] == answer.json["revision"]
    assert "warnings" not in read.json


REFUSED: dict[str, tuple[str, str, Any, str]] = {
    "merge": ("PATCH", "", {"n": "other"}, "application/json"),
    "merge patch": ("PATCH", "", {"n": {"x": 1}}, "application/merge-patch+json"),
    "JSON Patch": (
        "PATCH",
        "",
        [{"op": "replace", "path": "/n", "value": []}],
        "application/json-patch+json",
    ),
    "long JSON Patch": (
        "PATCH",
        "",
        [{"op": "add", "path": "/n", "value": [n]} for n in range(100)],
        "application/json-patch+json",
    ),
    "replacement": ("PUT", "", {"n": "other"}, "application/json"),
    "large replacement": ("PUT", "", {"n": "x" * 100_000}, "application/json"),
}


@pytest.mark.parametrize("size", ["small", "large"])
@pytest.mark.parametrize("name", REFUSED)
def test_every_write_that_makes_it_worse_is_refused(
    tolerating: Daemon, name: str, size: str
) -> None:
    method, query, body, kind = REFUSED[name]
    bucket = {**OLD, **({"large": "x" * 100_000} if size == "large" else {})}
    target = store(tolerating, f"worse {name} {size}", bucket)
    before = tolerating.request("GET", target)
    answer = tolerating.request(method, target + query, body, {"Content-Type": kind})
    assert (answer.status, answer.json["code"]) == (422, "schema_violation")
    # What stood before is not listed.
    assert told(answer.json["details"]) == [("/n", "type")]
    assert tolerating.request("GET", target).body == before.body


def test_a_key_that_is_removed_cannot_be_removed_again(tolerating: Daemon) -> None:
    target = store(tolerating, "ratchet")
    fixed = tolerating.request("PATCH", target, {"loggedIn": True})
    assert (fixed.status, told(fixed.json["warnings"])) == (200, [("/n", "type")])
    assert "warnings" not in tolerating.request("PATCH", target, {"n": 1}).json
    for answer in (
        tolerating.request("DELETE", f"{target}?key=loggedIn"),
        tolerating.request("PATCH", target, {"n": "text"}),
    ):
        assert answer.status == 422


def test_the_first_write_tolerates_nothing(tolerating: Daemon) -> None:
    target = pair("d", "first")
    for _ in range(2):
        answer = tolerating.request("PATCH", f"{target}?automation=login", OLD)
        assert (answer.status, told(answer.json["details"])) == (422, STOOD)
        store(tolerating, "first")
        assert tolerating.request("DELETE", target).status == 200


def test_the_automation_bound_later_is_compared_with_what_is_stored(tolerating: Daemon) -> None:
    target = store(tolerating, "rebound", automation="another")
    answer = tolerating.request("PATCH", f"{target}?automation=login", {"b": 1})
    assert (answer.status, told(answer.json["warnings"])) == (200, STOOD)


def test_a_warning_shows_no_secret(tolerating: Daemon) -> None:
    target = store(tolerating, "secret", {"loggedIn": True, "token": "s3cret"})
    answer = tolerating.request("PATCH", target, {"b": 1})
    [warning] = answer.json["warnings"]
    assert (warning["path"], warning["keyword"]) == ("/token", "minLength")
    assert "s3cret" not in json.dumps(answer.json["warnings"])


def test_a_valid_bucket_is_validated_once_and_compared_with_nothing() -> None:
    class Untouched(Document):
        @property
        def text(self) -> bytes:
            raise AssertionError("the state before was read")

    schema = compile_schema(STRICT)
    found = schema.compare(Untouched(None, {}), Document.of({"loggedIn": True}))
    assert found == ([], [])


def test_a_replacement_prepared_for_another_state_is_compared_again() -> None:
    """Its result is the same document, whatever was stored; what stood before is not."""
    schema = compile_schema(STRICT)

    def check(before: Document | None, after: Document, _bound: str | None) -> Any:
        refused, tolerated = schema.compare(before, after)
        assert not refused, refused
        return tolerated

    change = changes.replace({"n": "text", "b": 2}).checked(check)
    prepared = changes.prepared(change, Document.of(OLD), "login")
    _, warnings = prepared.result(Document.of(OLD), "login")
    assert told(warnings) == STOOD
    with pytest.raises(AssertionError, match="required"):
        prepared.result(Document.of({"loggedIn": True, "n": 1}), "login")


# --- the mode


def test_it_is_set_although_stored_buckets_violate_it(daemon: Daemon) -> None:
    store(daemon, "j")
    refused = put_schema(daemon, STRICT)
    assert (refused.status, refused.json["count"]) == (409, 1)
    assert "existing=tolerate" in refused.json["error"]
    dry = put_schema(daemon, STRICT, f"{TOLERATE}&dry_run=true")
    assert (dry.status, dry.json["dry_run"], dry.json["existing"]) == (200, True, "tolerate")
    assert daemon.request("GET", "/v1/schemas").json["schemas"] == []
    for query in (TOLERATE, f"{TOLERATE}&force=true"):
        answer = put_schema(daemon, STRICT, query)
        assert (answer.status, answer.json["existing"], answer.json["count"]) == (
            200,
            "tolerate",
            1,
        )
        assert told(answer.json["details"][0]["violations"]) == STOOD
        assert mode(daemon) == "tolerate"
    # A later PUT without it puts refuse back, once nothing stands against that.
    assert put_schema(daemon, STRICT).status == 409
    assert mode(daemon) == "tolerate"
    forced = put_schema(daemon, STRICT, "?force=true&existing=refuse")
    assert (forced.status, forced.json["existing"]) == (200, "refuse")
    assert mode(daemon) == "refuse"
    assert daemon.request("PATCH", pair("d", "j"), {"b": 2}).status == 422


@pytest.mark.parametrize(
    "query", ["existing=", "existing=true", "existing=Tolerate", "exist=refuse"]
)
def test_another_mode_is_a_bad_request(tolerating: Daemon, query: str) -> None:
    answer = put_schema(tolerating, STRICT, f"?{query}", "bad")
    assert (answer.status, answer.json["code"]) == (400, "invalid_request")


@pytest.mark.parametrize("automation", ["login", "📱" * 128])
def test_the_mode_survives_restarts_and_goes_with_the_schema(
    daemon: Daemon, automation: str
) -> None:
    name = "".join(f"%{byte:02X}" for byte in automation.encode())
    put_schema(daemon, STRICT, TOLERATE, name)
    for end in (daemon.stop, daemon.kill):
        end()
        daemon.start()
        assert daemon.request("GET", f"/v1/schemas/{name}").json["existing"] == "tolerate"
    daemon.request("DELETE", f"/v1/schemas/{name}")
    assert list((daemon.state_dir / "schemas").glob("*.tolerate")) == []
    put_schema(daemon, STRICT, "", name)
    daemon.restart()
    assert daemon.request("GET", f"/v1/schemas/{name}").json["existing"] == "refuse"


def test_a_schema_that_an_older_daemon_stores_refuses(daemon: Daemon) -> None:
    """It knows one file, and leaves the other one as it is."""
    put_schema(daemon, STRICT, TOLERATE)
    path = daemon.state_dir / "schemas" / "login.json"
    daemon.stop()
    save(path, {**STRICT, "title": "another"})
    daemon.start()
    assert mode(daemon) == "refuse"
    assert daemon.request("GET", "/v1/schemas/login").json["schema"]["title"] == "another"


class Killed(BaseException):
    """In the place of SIGKILL: nothing that follows is done."""


@pytest.mark.parametrize("steps", range(5))
@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("new", [False, True])
@pytest.mark.parametrize("schema", ["the same", "another"])
def test_schema_and_mode_change_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int, old: bool, new: bool, schema: str
) -> None:
    """Whenever the daemon is killed, the old schema is in force in its mode, or the new one."""
    root = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    before, after = STRICT, STRICT if schema == "the same" else {"required": ["x"]}

    def registry() -> Registry:
        return Registry(root, str(tmp_path), str(tmp_path / "etc"))

    registry().put("login", before, old)
    done: list[str] = []

    def until_killed(step: Any) -> Any:
        def do(*words: Any, **named: Any) -> Any:
            if len(done) == steps:
                raise Killed
            done.append(step.__name__)
            return step(*words, **named)

        return do

    running = registry()
    with monkeypatch.context() as patch:
        patch.setattr(files, "write", until_killed(files.write))
        patch.setattr(files, "remove", until_killed(files.remove))
        try:
            running.put("login", after, new)
        except Killed:
            allowed = [(before, old), (after, new)]
        else:
            allowed = [(after, new)]
            # A change of the mode alone is one step, so it fails or is made.
            assert schema == "another" or len(done) <= 1
            assert (running.get("login").validator.document, running.get("login").tolerates) == (
                after,
                new,
            )
    entry = registry().get("login")
    assert (entry.validator.document, entry.tolerates) in allowed  # type: ignore[union-attr]
    os.close(root)


def test_the_state_of_an_older_daemon_is_read(daemon: Daemon) -> None:
    daemon.stop()
    place = daemon.state_dir / "schemas"
    place.mkdir(exist_ok=True)
    save(place / "login.json", STRICT)
    daemon.start()
    assert mode(daemon) == "refuse"


# --- files of the operator


def test_an_operator_marks_a_file_by_a_file_beside_it(
    configured: Daemon, schema_files: Path
) -> None:
    save(schema_files / "login.json", STRICT)
    configured.start()
    target = store(configured, "j")

    def status() -> int:
        return configured.request("PATCH", target, {"b": 2}).status

    assert (mode(configured), status()) == ("refuse", 422)
    (schema_files / "login.tolerate").touch()
    eventually(lambda: status() == 200)
    assert mode(configured) == "tolerate"
    # A broken file: the last good one stays in force, in its mode, also after a restart.
    (schema_files / "login.json").write_text("{")
    eventually(lambda: bool(configured.request("GET", "/v1/status").json["schemas"]["problems"]))
    assert (mode(configured), status()) == ("tolerate", 200)
    configured.restart()
    assert (mode(configured), status()) == ("tolerate", 200)
    (schema_files / "login.tolerate").unlink()
    eventually(lambda: status() == 422)
    assert mode(configured) == "refuse"
    assert status() == 422


def test_a_schema_set_over_a_file_has_its_own_mode(configured: Daemon, schema_files: Path) -> None:
    save(schema_files / "login.json", STRICT)
    (schema_files / "login.tolerate").touch()
    configured.start()
    put_schema(configured, STRICT)
    assert mode(configured) == "refuse"
    configured.request("DELETE", "/v1/schemas/login")
    assert mode(configured) == "tolerate"


# --- what a plan asks beforehand


def test_check_compares_with_the_stored_bucket_that_is_sent(tolerating: Daemon) -> None:
    check = "/v1/schemas/login/check"

    def asked(**body: Any) -> tuple[list[Any], list[Any]]:
        said = tolerating.request("POST", check, body).json
        return told(said["violations"]), told(said["warnings"])

    assert asked(bucket=OLD) == (STOOD, [])
    assert asked(bucket=OLD, stored={**OLD, "b": 2}) == ([], STOOD)
    assert asked(bucket={**OLD, "n": []}, stored=OLD) == ([("/n", "type")], [("", "required")])
    assert asked(bucket=OLD, stored=OLD, schema=STRICT) == (STOOD, [])
    assert asked(bucket=OLD, stored=OLD, schema=STRICT, existing="tolerate") == ([], STOOD)
    for bad in ({"stored": []}, {"schema": STRICT, "existing": "yes"}):
        assert tolerating.request("POST", check, {"bucket": OLD, **bad}).status == 400


def test_the_mode_is_kept_by_the_hash_of_the_schema(daemon: Daemon) -> None:
    put_schema(daemon, STRICT, TOLERATE)
    place = daemon.state_dir / "schemas"
    text = (place / f"{encode_name('login')}.json").read_bytes()
    assert (place / "login.tolerate").read_text() == hashlib.sha256(text).hexdigest() + "\n"
