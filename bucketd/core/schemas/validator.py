"""One schema, compiled: which violations a bucket has, in words that a person can act on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jsonschema_rs
import orjson

from ...errors import InvalidRequest
from . import complexity, field_form
from .messages import cause_of, describe, pointer

DRAFTS = (field_form.DIALECT, f"{field_form.DIALECT}#")
MAX_BYTES = 4 * 1024 * 1024
MAX_BACKTRACKS = 10_000
MAX_KEYS_AND_ITEMS = 2500  # of a bucket of which all violations are told
MAX_EVALUATIONS = 20_000  # repeated ones, to tell all violations of a bucket
OUTSIDE = "leads outside, and nothing is ever fetched"
Violation = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Validator:
    """``document`` as it was given, ``json_schema`` as it is applied."""

    document: Any
    json_schema: Any
    _validator: Any
    _secrets: frozenset[str]
    _branching: complexity.Branching | None = None

    @property
    def form(self) -> str:
        return "json_schema" if self.document is self.json_schema else "fields"

    def violations(self, text: bytes, secret: bool = False) -> list[Violation]:
        """All, each ``{"path": JSON Pointer, "message", "keyword"}``; [] where it is valid.

        Of a bucket (as JSON) with over MAX_KEYS_AND_ITEMS the first alone: each of them may be one.
        Of a bucket nested too deeply for a schema that branches, only that it is not valid.
        ``secret``: all values are, so none is told.
        """
        bucket = orjson.loads(text)
        if self._validator.is_valid(bucket):
            return []
        # Unlike the verdict, telling why takes time that grows exponentially with the nesting.
        branching = self._branching
        if branching and branching.bound(bucket, MAX_EVALUATIONS) > MAX_EVALUATIONS:
            return [_too_deep(branching.place)]
        # The library finds all of them in one go, during which nothing else in the process runs.
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
        secret = secret or not self._secrets.isdisjoint(path)
        secret = secret or self._marked(list(error.evaluation_path))
        return {
            "path": pointer(path),
            "message": cause_of(error, secret),
            "keyword": keyword,
        }

    def _marked(self, path: list[Any]) -> bool:
        """Whether a subschema on the way to the failed keyword says that the value is a secret."""
        here: Any = self.json_schema
        for step in path:
            if _is_secret(here):
                return True
            target = here.get(step) if isinstance(here, dict) else None
            if step in ("$ref", "$dynamicRef") and isinstance(target, str):
                here = complexity.resolve(self.json_schema, target)
                if here is None:
                    return True  # not followed further, so it might be
            elif isinstance(here, dict):
                here = target
            else:
                here = here[step] if isinstance(here, list) and isinstance(step, int) else None
        return False


def _too_deep(place: str) -> Violation:
    return {
        "path": "",
        "message": (
            "is nested too deeply for its schema, which refers back to itself several times at "
            f"{place or 'its root'}: it is not valid, and finding all that is wrong would take too "
            "long; fix: correct or simplify what is nested deepest, or let the schema refer back "
            "once at each place"
        ),
        "keyword": "$ref",
    }


def _is_large(bucket: Any) -> bool:
    """Whether there are over MAX_KEYS_AND_ITEMS in it, at any depth."""
    waiting, found = [bucket], 0
    while waiting and found <= MAX_KEYS_AND_ITEMS:
        value = waiting.pop()
        if isinstance(value, dict | list):
            found += len(value)
            waiting += value.values() if isinstance(value, dict) else value
    return found > MAX_KEYS_AND_ITEMS


def compile_schema(document: Any) -> Validator:
    """Compile a document of either form. Raises InvalidRequest with what is wrong, and where."""
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
    secrets = frozenset(_secret_names(schema))
    return Validator(document, schema, _validator(schema), secrets, branching)


def _check_dialect(schema: dict[str, Any]) -> None:
    dialect = schema.get("$schema", field_form.DIALECT)
    if dialect not in DRAFTS:
        raise InvalidRequest(
            f"cannot use the schema: its $schema is another dialect; use {field_form.DIALECT}"
        )


def _validator(schema: Any) -> Any:
    """Nothing is fetched, and no pattern can run away.

    The patterns' own engine takes linear time. Only where it lacks something
    (looking around, back references) does one that can go back take its place, and
    that one gives up after MAX_BACKTRACKS, which counts as a violation.
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
    """Return what the library found, without any value of the schema, and where."""
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
    """Return where a reference leads outside or to nothing, as far as a walk can tell."""
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
        if target.startswith("#/") and complexity.resolve(schema, target) is None:
            return f"{pointer([*path, '$ref'])}: the reference leads to nothing in the schema"
        if "://" in target and not target.startswith(field_form.DIALECT):
            return f"{pointer([*path, '$ref'])}: the reference {OUTSIDE}"
    return None


def _secret_names(schema: Any) -> Iterator[str]:
    """Names of properties that are marked, in whatever way, as not to be shown."""
    waiting = [schema]
    while waiting:
        node = waiting.pop()
        if isinstance(node, list):
            waiting += node
        if not isinstance(node, dict):
            continue
        waiting += list(node.values())
        named = node.get("properties")
        for name, child in named.items() if isinstance(named, dict) else ():
            target = child
            if isinstance(child, dict) and isinstance(child.get("$ref"), str):
                target = complexity.resolve(schema, child["$ref"])
            if _is_secret(child) or _is_secret(target):
                yield name


def _is_secret(node: Any) -> bool:
    return isinstance(node, dict) and (
        node.get("writeOnly") is True or node.get("format") == "password"
    )
