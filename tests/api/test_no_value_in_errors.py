"""No refusal and no line of the log repeats a value that was sent or stored: kind and length only.

Every case sends values that occur nowhere else, and whatever the daemon refuses is searched for all
of them, as is its log. Names of devices, jobs and keys are not values, but a refused name is not
repeated either: it may be a secret that was given in its place.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from harness import Daemon, Response, escape, pair

MERGE, PATCH = "application/merge-patch+json", "application/json-patch+json"
STORED = {"token": "stored-canary-01", "pin": 7310945001, "list": ["stored-canary-02"],
          "deep": {"a": "stored-canary-03", "b": 7310945.25}}  # fmt: skip
SENT, NUMBER = "sent-canary-77", 7310945777
CANARY = re.compile(rb"(?:stored|sent|schema)-canary|7310945")

# For each keyword a schema, and a value that it refuses.
KEYWORDS: dict[str, tuple[dict[str, Any], Any]] = {
    "type string": ({"type": "string"}, NUMBER),
    "type number": ({"type": ["number", "null"]}, SENT),
    "enum": ({"enum": ["one", "two"]}, SENT),
    "enum that has the value in it": ({"enum": [f"x{SENT}", NUMBER * 10]}, SENT),
    "const": ({"const": 3}, NUMBER),
    "const that has the value in it": ({"const": {"a": f"{NUMBER}"}}, NUMBER),
    "minLength": ({"minLength": 500}, SENT),
    "maxLength": ({"maxLength": 3}, SENT),
    "pattern": ({"pattern": "^[0-9]{4}$"}, SENT),
    "pattern that has the value in it": ({"pattern": f"^{SENT}x$"}, SENT),
    "pattern that looks around": ({"pattern": "^(?=zz)"}, SENT),
    "minimum": ({"minimum": 10**15}, NUMBER),
    "maximum": ({"maximum": 5}, NUMBER),
    "exclusiveMinimum": ({"exclusiveMinimum": 10**15}, NUMBER),
    "exclusiveMaximum": ({"exclusiveMaximum": 5}, NUMBER),
    "multipleOf": ({"multipleOf": 4096}, NUMBER),
    "minItems": ({"minItems": 3}, [SENT]),
    "maxItems": ({"maxItems": 0}, [SENT]),
    "uniqueItems": ({"uniqueItems": True}, [SENT, SENT]),
    "contains": ({"contains": {"type": "number"}}, [SENT]),
    "maxContains": ({"contains": {"type": "string"}, "maxContains": 1}, [SENT, SENT]),
    "prefixItems": ({"prefixItems": [{"type": "number"}]}, [SENT]),
    "items": ({"items": {"type": "number"}}, [SENT]),
    "unevaluatedItems": ({"unevaluatedItems": False}, [SENT]),
    "minProperties": ({"minProperties": 3}, {"k": SENT}),
    "maxProperties": ({"maxProperties": 0}, {"k": SENT}),
    "required": ({"required": ["other"]}, {"k": SENT}),
    "dependentRequired": ({"dependentRequired": {"k": ["other"]}}, {"k": SENT}),
    "additionalProperties": ({"additionalProperties": False}, {"k": SENT}),
    "unevaluatedProperties": ({"unevaluatedProperties": False}, {"k": SENT}),
    "propertyNames": ({"propertyNames": {"pattern": "^a"}}, {"k": SENT}),
    "patternProperties": ({"patternProperties": {"k": {"type": "number"}}}, {"k": SENT}),
    "format": ({"format": "date-time"}, SENT),
    "not": ({"not": {"type": "string"}}, SENT),
    "anyOf": ({"anyOf": [{"type": "number"}, {"type": "array"}]}, SENT),
    "oneOf": ({"oneOf": [{"type": "string"}, {"minLength": 1}]}, SENT),
    "allOf": ({"allOf": [{"type": "number"}]}, SENT),
    "if": ({"if": {"type": "string"}, "then": {"type": "number"}}, SENT),
    "$ref": ({"$ref": "#/$defs/n"}, SENT),
    "false": ({"properties": {"k": False}}, {"k": SENT}),
}

BAD_SCHEMAS: list[Any] = [
    {"type": SENT}, {"type": [SENT]}, {"minimum": SENT}, {"minLength": -NUMBER}, {"enum": SENT},
    {"pattern": f"({SENT}"}, {"pattern": NUMBER}, {"$ref": f"http://host/{SENT}"},
    {"$ref": f"#/$defs/{SENT}"}, {"$ref": f"#{SENT}"}, {"$schema": f"http://host/{SENT}"},
    {"$id": NUMBER}, {"required": SENT}, {"required": [NUMBER]}, {"properties": {"a": SENT}},
    {"multipleOf": -NUMBER}, {"format": NUMBER}, {"fields": SENT}, {"fields": [SENT]},
    {"fields": [{"name": NUMBER}]}, {"fields": [{"name": "a", "type": SENT}]},
    {"fields": [{"name": "a", "type": "string", "minLength": SENT}]},
    {"fields": [{"name": "a", "type": "string", "pattern": f"({SENT}"}]},
    {"fields": [{"name": "a", "type": "number", "min": SENT}]},
    {"fields": [{"name": "a", "type": "number", "enum": SENT}]},
    {"fields": [{"name": "a", "type": "number", "required": SENT}]},
    {"fields": [{"name": "a", "type": "array", "items": SENT}]},
    [SENT], SENT, NUMBER,
]  # fmt: skip

BAD_PATCHES: list[Any] = [
    [{"op": "test", "path": "/token", "value": SENT}],
    [{"op": "test", "path": "/pin", "value": NUMBER}],
    [{"op": "test", "path": "/deep", "value": {"a": SENT}}],
    [{"op": "add", "path": "/none/there", "value": SENT}],
    [{"op": "add", "path": "/token/x", "value": SENT}],
    [{"op": "add", "path": "/list/9", "value": SENT}],
    [{"op": "replace", "path": "/none", "value": SENT}],
    [{"op": "remove", "path": "/none"}],
    [{"op": "remove", "path": "/list/x"}],
    [{"op": "move", "path": "/x", "from": "/none"}],
    [{"op": "copy", "path": "/x", "from": "/token/none"}],
    [{"op": SENT, "path": "/x", "value": 1}],
    [{"op": "add", "path": NUMBER, "value": SENT}],
    [{"op": "add", "path": SENT, "value": 1}],
    [{"op": "add", "value": SENT}], [SENT], [NUMBER], {"op": SENT}, SENT,
    [{"op": "replace", "path": "", "value": [SENT]}],
]  # fmt: skip

BAD_BODIES = [
    f'{{"a": "{SENT}"', f'["{SENT}"]', f'"{SENT}"', f"{NUMBER}", f'{{"a": {NUMBER}{"0" * 30}}}',
    f'{{"a": "{SENT}\\ud800"}}', f'{{"a": {SENT}}}', f'{{"{SENT}": NaN}}'.replace(SENT, "k"),
    f'{{"a": -Infinity, "b": "{SENT}"}}', f"{SENT}", f'{{"a": "{SENT}"}} {SENT}', "\x00" + SENT,
]  # fmt: skip


Case = tuple[str, str, Any, dict[str, str]]  # method, target, body, headers


def to_buckets(token: str) -> Iterator[Case]:
    """Yield refused requests to all routes of a bucket, with every media type."""
    own = {"Authorization": f"Bearer {token}"}
    for target, headers in (
        *((pair("d", "j"), {}), (pair("d"), {})),
        *(("/v1/bucket", own), ("/v1/device/bucket", own)),
    ):
        for body in BAD_BODIES:
            yield "PUT", target, body.encode(), headers
            for kind in ("application/json", MERGE, PATCH):
                yield "PATCH", target, body.encode(), {"Content-Type": kind, **headers}
        for patch in BAD_PATCHES:
            yield "PATCH", target, patch, {"Content-Type": PATCH, **headers}
        for guard in ({"If-Match": f'"{SENT}"'}, {"If-Match": SENT}, {"If-None-Match": "*"}):
            yield "PUT", target, {"a": SENT}, {**guard, **headers}
        yield "PUT", target, {"a": SENT * 100_000}, headers
        yield "POST", target, {"a": SENT}, headers
        yield "PUT", target, {"a": SENT}, {"Content-Type": "text/plain", **headers}


def to_schemas() -> Iterator[Case]:
    """Yield schemas, values that violate them in every way, and schemas that are refused."""
    for number, (schema, value) in enumerate(KEYWORDS.values()):
        name, late = f"keyword{number}", f"late{number}"
        document = {"properties": {"value": schema}, "$defs": {"n": {"type": "number"}}}
        yield "PUT", f"/v1/schemas/{name}", document, {}
        for method in ("PUT", "PATCH"):
            yield method, f"{pair('d', name)}?automation={name}", {"value": value}, {}
        yield "POST", f"/v1/schemas/{name}/check", {"bucket": {"value": value}}, {}
        yield "PUT", f"{pair('stored', name)}?automation={late}", {"value": value}, {}
        yield "PUT", f"/v1/schemas/{late}?dry_run=true", document, {}
        yield "PUT", f"/v1/schemas/{late}", document, {}
    for bad in BAD_SCHEMAS:
        yield "PUT", "/v1/schemas/bad", bad, {}
        yield "POST", "/v1/schemas/bad/check", {"bucket": {}, "schema": bad}, {}
    yield "POST", "/v1/schemas/bad/check", {"bucket": SENT}, {}
    yield "POST", "/v1/schemas/bad/check", [SENT], {}


def to_others() -> Iterator[Case]:
    """Yield refused requests for contexts and lists, and with headers that are refused."""
    for member in ("device", "job", "automation", "ttl_seconds"):
        for wrong in ([SENT], {"a": NUMBER}, -NUMBER, f"{SENT}\x07", SENT * 20):
            yield "POST", "/v1/contexts", {"device": "d", "job": "j", member: wrong}, {}
    for name in (f"{SENT}\x07", SENT * 20):
        yield "GET", pair(name, "j"), None, {}
        yield "PUT", pair("d", name), {"a": 1}, {}
        yield "PUT", f"{pair('d', 'j')}?automation={escape(name)}", {"a": 1}, {}
        yield "PUT", f"/v1/schemas/{escape(name)}", {"fields": []}, {}
        for query in ("device", "job", "automation"):
            yield "GET", f"/v1/buckets?{query}={escape(name)}", None, {}
            yield "GET", f"/v1/events?{query}={escape(name)}", None, {}
    yield "GET", "/v1/bucket", None, {"Authorization": f"Bearer {SENT}"}
    yield "GET", pair("d", "j"), None, {"Authorization": SENT}
    yield "GET", pair("d", "j"), None, {"Origin": f"http://{SENT}"}
    for query in ("limit", "cursor"):
        yield "GET", f"/v1/buckets?{query}={SENT}", None, {}
    for flag in ("force", "dry_run"):
        yield "PUT", f"/v1/schemas/a?{flag}={SENT}", {"enum": [SENT]}, {}


def told_of_values(answer: Response) -> bytes | None:
    """Return what must not repeat a value: a refusal, or a verdict on a bucket; None: neither."""
    if answer.status >= 400:
        return answer.body
    verdict = {k: v for k, v in answer.json.items() if k in ("violations", "details")}
    return json.dumps(verdict).encode() if verdict else None


def test_no_refusal_repeats_a_value(stopped_daemon: Daemon) -> None:
    stopped_daemon.extra_args = ("--log-level", "debug")
    daemon = stopped_daemon.start()
    token = daemon.mint("d", "j")
    for target in (pair("d", "j"), pair("d")):
        assert daemon.request("PUT", target, STORED).status == 200
    searched, repeated = 0, []
    for method, target, body, headers in (*to_buckets(token), *to_schemas(), *to_others()):
        text = told_of_values(daemon.request(method, target, body, headers=headers))
        if text is not None:
            searched += 1
            if CANARY.search(text):
                repeated.append((method, target, text[:400]))
    print(f"{searched} refusals searched")
    assert repeated == []
    assert searched > 500
    daemon.stop()
    lines = [line for line in daemon.log.splitlines() if CANARY.search(line.encode())]
    assert lines == []


@pytest.mark.parametrize("flag", ["force", "dry_run"])
def test_a_flag_of_a_schema_is_true_or_false(shared_daemon: Daemon, flag: str) -> None:
    answer = shared_daemon.request("PUT", f"/v1/schemas/values?{flag}={SENT}", {})
    assert (answer.status, answer.json["code"]) == (400, "invalid_request")
    assert SENT.encode() not in answer.body
