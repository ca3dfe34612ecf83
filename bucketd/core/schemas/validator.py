"""Compile a schema, and list the violations of a bucket."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jsonschema_rs
import orjson

from ...errors import InvalidRequest
from . import complexity, field_form
from .masking import Secrets, find_secrets
from .messages import cause_of, describe, pointer
from .references import resolve

DRAFTS = (field_form.DIALECT, f"{field_form.DIALECT}#")
MAX_BYTES = 4 * 1024 * 1024
MAX_BACKTRACKS = 10_000
# Over so many keys and items only the first violation of a bucket is listed.
MAX_KEYS_AND_ITEMS = 2500
# Over so many repeated evaluations the violations of a bucket are not listed.
MAX_EVALUATIONS = 20_000
OUTSIDE = "leads outside, and nothing is ever fetched"
Violation = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Validator:
    """A compiled schema: the ``document`` as given, and the ``json_schema`` that it stands for."""

    document: Any
    json_schema: Any
    _validator: Any
    secrets: Secrets | None = None
    _branching: complexity.Branching | None = None

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
        if self._validator.is_valid(bucket):
            return []
        # Listing violations takes time exponential in the nesting; deciding validity does not.
        branching = self._branching
        if branching and branching.bound(bucket, MAX_EVALUATIONS) > MAX_EVALUATIONS:
            return [_too_deep(branching.place)]
        # The library holds the interpreter's lock until it has found all violations.
        if text.count(b",") < MAX_KEYS_AND_ITEMS or not _is_large(bucket):
            return [self._violation(error, secret) for error in self._validator.iter_errors(bucket)]
        try:
            self._validator.validate(bucket)
        except jsonschema_rs.ValidationError as error:
            first = self._violation(error, secret)
            size = f"over {MAX_KEYS_AND_ITEMS} keys and items"
            note = f" (the first of perhaps more: the bucket has {size})"
            return [first | {"message": first["message"] + note}]
        return []

    def _violation(self, error: Any, secret: bool) -> Violation:
        path, keyword = list(error.instance_path), error.kind.name
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
    return Validator(document, schema, _validator(schema), find_secrets(schema), branching)


def _check_dialect(schema: dict[str, Any]) -> None:
    dialect = schema.get("$schema", field_form.DIALECT)
    if dialect not in DRAFTS:
        raise InvalidRequest(
            f"cannot use the schema: its $schema is another dialect; use {field_form.DIALECT}"
        )


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
    is_about_keyword = isinstance(error, jsonschema_rs.ValidationError) and not (
        error.kind.name == "$ref" or OUTSIDE in str(error.message)
    )
    dangling = None if is_about_keyword else _dangling_reference(schema)
    if dangling is not None:
        return dangling
    if isinstance(error, jsonschema_rs.ValidationError):
        where = pointer(list(error.instance_path)) or "its root"
        if OUTSIDE in str(error.message):
            return f"{where}: a reference {OUTSIDE}"
        return f"{where}: {cause_of(error, secret=False)}"
    return "one of its references or patterns cannot be used"


def _dangling_reference(schema: Any) -> str | None:
    """Return an error for a reference that leads outside or to nothing, as far as a walk shows."""
    waiting: list[tuple[list[Any], Any]] = [([], schema)]
    while waiting:
        path, node = waiting.pop()
        if isinstance(node, list):
            waiting += [([*path, index], child) for index, child in enumerate(node)]
        if not isinstance(node, dict):
            continue
        waiting += [([*path, name], child) for name, child in node.items()]
        target = node.get("$ref")
        if not isinstance(target, str):
            continue
        if target.startswith("#/") and resolve(schema, target) is None:
            return f"{pointer([*path, '$ref'])}: the reference leads to nothing in the schema"
        if "://" in target and not target.startswith(field_form.DIALECT):
            return f"{pointer([*path, '$ref'])}: the reference {OUTSIDE}"
    return None
