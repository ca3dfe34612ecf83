"""Compile a schema, and list the violations of a bucket."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import quote

import jsonschema_rs
import orjson

from ...errors import InvalidRequest
from ...model import strict_json
from ...model.document import Document
from . import complexity, dialects, field_form
from .defaults import defaults_of
from .masking import Secrets, find_secrets
from .messages import cause_of, describe, pointer, unexpected
from .paths import Paths
from .ratchet import Ratchet
from .references import resolve

DRAFTS = (field_form.DIALECT, f"{field_form.DIALECT}#")
MAX_BYTES = 4 * 1024 * 1024
MAX_BACKTRACKS = 10_000
# Over so many keys and items only the first violation of a bucket is listed.
MAX_KEYS_AND_ITEMS = 2500
# Over so many repeated evaluations the violations of a bucket are not listed.
MAX_EVALUATIONS = 20_000
OUTSIDE = "leads outside, and nothing is ever fetched"
_NOT_IN_A_URI = re.compile(r"[^A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]")
NOT_TOLERATED = (
    "; nothing is tolerated here, since the violations before and after the write cannot all be "
    "listed: leave the bucket valid"
)
Violation = dict[str, Any]


class Comparison(NamedTuple):
    """The violations that a write makes, and those that stood in the stored bucket before it."""

    refused: list[Violation]
    tolerated: list[Violation]


VALID = Comparison([], [])


@dataclass(frozen=True, slots=True)
class Validator:
    """A compiled schema: the ``document`` as given, and the ``json_schema`` that it stands for.

    ``defaults`` complete a bucket that lacks these keys.
    """

    document: Any
    json_schema: Any
    _validator: Any
    secrets: Secrets | None = None
    _branching: complexity.Branching | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)

    @property
    def form(self) -> str:
        return "json_schema" if self.document is self.json_schema else "fields"

    def violations(self, text: bytes, secret: bool = False) -> list[Violation]:
        """Return each violation as ``{"path": JSON Pointer, "message", "keyword"}``.

        The list has only the first violation of a bucket with over MAX_KEYS_AND_ITEMS, and one
        without details for a bucket nested too deeply for a schema that branches. ``secret``
        treats all values as secrets, so that no message shows their lengths.
        """
        bucket = orjson.loads(text)
        return [] if self._validator.is_valid(bucket) else self._listed(text, bucket, secret)

    def compare(self, before: Document | None, after: Document, secret: bool = False) -> Comparison:
        """Return which violations a write makes, and which stood in the bucket ``before`` it.

        If the violations of either state cannot be listed, all count as new, unless nothing has
        changed.
        """
        text = after.text
        bucket = orjson.loads(text)
        if self._validator.is_valid(bucket):
            return VALID
        if before is after:
            return Comparison([], self._listed(text, bucket, secret))
        stored = None if before is None else orjson.loads(before.text)
        if before is None or self._validator.is_valid(stored):
            return Comparison(self._listed(text, bucket, secret), [])
        if not (self._can_list(text, bucket) and self._can_list(before.text, stored)):
            first, *others = self._listed(text, bucket, secret)
            return Comparison([first | {"message": first["message"] + NOT_TOLERATED}, *others], [])
        result = Comparison([], [])
        ratchet, paths = Ratchet(self.json_schema, stored, bucket), Paths(bucket)
        errors = self._validator.iter_errors(bucket)
        for error, names in ratchet.compare(self._validator.iter_errors(stored), errors):
            violation = self._violation(error, paths, secret)
            for said, into in ((names.new, result.refused), (names.stood, result.tolerated)):
                if said:
                    partly = names.new and names.stood
                    into.append(violation | {"message": unexpected(said)} if partly else violation)
        return result

    def _can_list(self, text: bytes, bucket: Any) -> bool:
        """Report whether the violations of a bucket can be listed in bounded time.

        Listing them takes time exponential in the nesting, while deciding validity does not; and
        the library holds the interpreter's lock until it has found all of them.
        """
        if text.count(b",") >= MAX_KEYS_AND_ITEMS and _is_large(bucket):
            return False
        branching = self._branching
        return branching is None or branching.bound(bucket, MAX_EVALUATIONS) <= MAX_EVALUATIONS

    def _listed(self, text: bytes, bucket: Any, secret: bool) -> list[Violation]:
        """Return the violations of a bucket that is not valid, as far as they can be listed."""
        paths = Paths(bucket)
        if self._can_list(text, bucket):
            errors = self._validator.iter_errors(bucket)
            return [self._violation(error, paths, secret) for error in errors]
        branching = self._branching
        if branching and branching.bound(bucket, MAX_EVALUATIONS) > MAX_EVALUATIONS:
            return [_too_deep(branching.place)]
        try:
            self._validator.validate(bucket)
        except jsonschema_rs.ValidationError as error:
            first = self._violation(error, paths, secret)
            size = f"over {MAX_KEYS_AND_ITEMS} keys and items"
            note = f" (the first of perhaps more: the bucket has {size})"
            return [first | {"message": first["message"] + note}]
        return []

    def _violation(self, error: Any, paths: Paths, secret: bool) -> Violation:
        path, keyword = paths.exact(list(error.instance_path), error.instance), error.kind.name
        secret = secret or (self.secrets is not None and self.secrets.is_secret(path))
        return {
            "path": pointer(path),
            "message": cause_of(error, secret),
            "keyword": keyword,
        }


def _too_deep(place: str) -> Violation:
    return {
        "path": "",
        "message": (
            "is nested too deeply for its schema, which refers back to itself several times at "
            f"{place or 'its root'}: it is not valid, and listing its violations would take too "
            "long; correct or simplify the values that are nested deepest, or let the schema refer "
            "back once at each place"
        ),
        "keyword": "$ref",
    }


def _is_large(bucket: Any) -> bool:
    """Report whether a bucket has over MAX_KEYS_AND_ITEMS, at any depth."""
    waiting, found = [bucket], 0
    while waiting and found <= MAX_KEYS_AND_ITEMS:
        value = waiting.pop()
        if isinstance(value, dict | list):
            found += len(value)
            waiting += value.values() if isinstance(value, dict) else value
    return found > MAX_KEYS_AND_ITEMS


def compile_schema(document: Any) -> Validator:
    """Compile a document of either form. Raises InvalidRequest, which says what is wrong where."""
    if not isinstance(document, dict | bool):
        raise InvalidRequest(
            f"cannot use the schema: it must be a JSON object, got {describe(document)}"
        )
    if len(orjson.dumps(document)) > MAX_BYTES:
        raise InvalidRequest(f"cannot use the schema: it has over {MAX_BYTES} bytes")
    schema: Any = document
    branching = None
    if isinstance(document, dict):
        if field_form.is_field_form(document):
            schema = field_form.to_json_schema(document)
        _check_dialect(schema)
        branching = complexity.check(schema)
    compiled = Validator(document, schema, _validator(schema), find_secrets(schema), branching)
    return dataclasses.replace(compiled, defaults=_valid_defaults(compiled))


def _valid_defaults(compiled: Validator) -> dict[str, Any]:
    """Return the defaults that the schema itself allows for their keys."""
    found = defaults_of(compiled.json_schema)
    wrong = {""}
    # Of very many keys only the first violation is listed.
    while wrong and found:
        paths = (each["path"] for each in compiled.violations(strict_json.dumps(found)))
        keys = {path.split("/")[1].replace("~1", "/").replace("~0", "~") for path in paths if path}
        wrong = keys & found.keys()
        found = {key: value for key, value in found.items() if key not in wrong}
    return found


def _check_dialect(schema: dict[str, Any]) -> None:
    dialect = schema.get("$schema", field_form.DIALECT)
    if dialect not in DRAFTS:
        raise InvalidRequest(f"cannot use the schema: {dialects.cause_of_refusal(schema)}")


def _validator(schema: Any) -> Any:
    """Return the library's validator, which fetches nothing and bounds the time of patterns.

    The default engine for patterns takes linear time. A schema whose patterns need lookaround or
    back references uses the backtracking engine instead; it gives up after MAX_BACKTRACKS, which
    counts as a violation.
    """
    last: Exception | None = None
    for patterns in (
        jsonschema_rs.RegexOptions(),
        jsonschema_rs.FancyRegexOptions(backtrack_limit=MAX_BACKTRACKS),
    ):
        try:
            return jsonschema_rs.Draft202012Validator(
                schema, validate_formats=True, retriever=_refuse, pattern_options=patterns
            )
        except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError) as error:
            last = error
        except (ValueError, RecursionError) as error:
            last = error
    raise InvalidRequest(f"cannot use the schema: {_fault(schema, last)}") from None


def _refuse(_uri: str) -> Any:
    raise ValueError(OUTSIDE)


def _fault(schema: Any, error: Exception | None) -> str:
    """Return the error that the library found and its place, without a value of the schema."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, jsonschema_rs.ValidationError):
        is_about_reference = error.kind.name == "$ref" or OUTSIDE in str(error.message)
        if not is_about_reference:
            where = pointer(list(error.instance_path)) or "its root"
            return f"{where}: {cause_of(error, secret=False)}"
    return _fault_of_reference(schema) or "one of its references or patterns cannot be used"


def _fault_of_reference(schema: Any) -> str | None:
    """Return the first reference that is not a URI, or leads outside or nowhere, and its place."""
    own = set(_names_for_references(schema))
    waiting: list[tuple[list[Any], Any]] = [([], schema)]
    while waiting:
        path, node = waiting.pop()
        if isinstance(node, list):
            waiting += [([*path, index], child) for index, child in enumerate(node)]
        if not isinstance(node, dict):
            continue
        waiting += [([*path, name], child) for name, child in node.items()]
        for keyword in ("$ref", "$dynamicRef"):
            target = node.get(keyword)
            if isinstance(target, str) and (fault := _fault_of_target(schema, target, own)):
                return f"{pointer([*path, keyword])}: the reference {fault}"
    return None


def _fault_of_target(schema: Any, target: str, own: set[str]) -> str | None:
    if unsafe := _NOT_IN_A_URI.search(target):
        return f"has {unsafe[0]!r}, which no URI has; write {quote(unsafe[0])}"
    uri, _, fragment = target.partition("#")
    if uri and "json-schema.org" not in uri and uri.rpartition("/")[2] not in own:
        return f"{OUTSIDE}; copy what it refers to into $defs"
    if fragment.startswith("/"):
        leads_nowhere = not uri and resolve(schema, target) is None
    else:
        leads_nowhere = bool(fragment) and f"#{fragment}" not in own
    return "leads to nothing in the schema" if leads_nowhere else None


def _names_for_references(schema: Any) -> Iterator[str]:
    """Yield the last segment of each $id in a schema, and each anchor behind a #."""
    waiting = [schema]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict | list):
            waiting += node.values() if isinstance(node, dict) else node
        if isinstance(node, dict):
            if isinstance(node.get("$id"), str):
                yield node["$id"].partition("#")[0].rpartition("/")[2]
            yield from (f"#{node[name]}" for name in ("$anchor", "$dynamicAnchor") if name in node)
