"""For any schema that the daemon accepts, types are generated, compile, and fit valid buckets."""

from __future__ import annotations

import ast
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from bucketd_client.ctl.codegen.names import quoted
from harness import Daemon
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from type_checkers import Errors, bucketctl_types, errors_of

# More in a long run: each needs two processes, and all of them one run of each compiler.
DAILY = 15
EXAMPLES = int(os.environ.get("TYPES_EXAMPLES", DAILY))
VALUES = 3

Schema = dict[str, Any]


class Case(NamedTuple):
    """A schema, and a strategy of values that it allows."""

    schema: Schema
    values: st.SearchStrategy[Any]


TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=8)
KEY = TEXT.filter(bool) | st.sampled_from(
    ["class", "str", "type", "self", "data", "__proto__", "__init__", "if_match", "returning",
     "first-name", "None", "constructor", "Any", "list", "*/", '"""', "'", "\\", "a b", "größe"]
)  # fmt: skip
# TypeScript takes an inherited name in an object without named keys for what is inherited.
FREE_KEY = KEY.filter(lambda key: key not in ("constructor", "toString"))
SCALAR = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXT
# Whole numbers are integers to JSON Schema, whatever they look like.
FLOAT = st.floats(allow_nan=False, allow_infinity=False, width=32).filter(
    lambda number: not number.is_integer()
)
NOTES = st.fixed_dictionaries(
    {},
    optional={
        "description": TEXT | st.sampled_from(['ends with "', "*/ \n\n", '"""', "\\", "\\u0041"]),
        "title": TEXT,
        "default": SCALAR,
        "deprecated": st.booleans(),
        "$comment": TEXT,
    },
)
# Keywords that only make a schema narrower than its types, or that no type can express.
BEYOND = st.sampled_from(
    [{}, {}, {}, {"not": {"const": "never"}}, {"dependentRequired": {"a": ["b"]}},
     {"unevaluatedProperties": True}, {"propertyNames": {"maxLength": 9999}},
     {"unevaluatedProperties": False}, {"contentMediaType": "text/plain"},
     {"if": {"required": ["a"]}, "then": {"properties": {"a": True}}},
     {"dependentSchemas": {"a": {"properties": {"b": {"type": "string"}}}}}]
)  # fmt: skip


def scalar_cases() -> st.SearchStrategy[Case]:
    plain = [
        Case({"type": "string", "minLength": 0}, TEXT),
        Case({"type": "integer"}, st.integers(-(2**53), 2**53)),
        Case({"type": "number"}, FLOAT),
        Case({"type": "boolean"}, st.booleans()),
        Case({"type": "null"}, st.none()),
        Case({"type": ["string", "null"]}, TEXT | st.none()),
        Case({"type": ["integer", "boolean"]}, st.integers(0, 9) | st.booleans()),
        Case({"type": "string", "format": "date"}, st.just("2026-01-01")),
        Case({}, SCALAR | st.lists(SCALAR, max_size=2)),
        Case({"type": "object"}, st.dictionaries(FREE_KEY, SCALAR, max_size=2)),
    ]
    values = st.lists(SCALAR | FLOAT, min_size=1, max_size=4)
    enums = values.map(lambda v: Case({"enum": v}, st.sampled_from(v)))
    constants = SCALAR.map(lambda v: Case({"const": v}, st.just(v)))
    return st.sampled_from(plain) | enums | constants


def arrays_of(cases: st.SearchStrategy[Case]) -> st.SearchStrategy[Case]:
    lists = cases.map(
        lambda c: Case({"type": "array", "items": c.schema}, st.lists(c.values, max_size=2))
    )
    tuples = st.lists(cases, min_size=1, max_size=3).map(
        lambda cs: Case(
            {"type": "array", "prefixItems": [c.schema for c in cs], "minItems": len(cs)},
            st.tuples(*(c.values for c in cs)).map(list),
        )
    )
    return lists | tuples


@st.composite
def objects_of(draw: st.DrawFn, cases: st.SearchStrategy[Case]) -> Case:
    properties = draw(st.dictionaries(KEY, cases, max_size=4))
    required = draw(st.sets(st.sampled_from(sorted(properties)))) if properties else set()
    schema: Schema = {
        "type": "object",
        "properties": {key: {**case.schema} for key, case in properties.items()},
        "required": sorted(required),
        **draw(NOTES),
        **draw(BEYOND),
    }
    others = draw(st.sampled_from([None, True, False, {"type": "string"}]))
    if others is not None:
        schema["additionalProperties"] = others
    if draw(st.booleans()):
        # Never matched by a key that is generated here.
        schema["patternProperties"] = {"^x-never-": {"type": "integer"}}
    values = {key: case.values for key, case in properties.items()}
    optional = {key: values.pop(key) for key in list(values) if key not in required}
    return Case(schema, st.fixed_dictionaries(values, optional=optional))


def maps_of(cases: st.SearchStrategy[Case]) -> st.SearchStrategy[Case]:
    return cases.map(
        lambda c: Case(
            {"type": "object", "additionalProperties": c.schema},
            st.dictionaries(FREE_KEY, c.values, max_size=2),
        )
    )


@st.composite
def unions_of(draw: st.DrawFn, cases: st.SearchStrategy[Case]) -> Case:
    # Type checkers cannot tell which of two containers a literal is meant to be.
    members = [*draw(st.lists(scalar_cases(), min_size=1, max_size=3)), draw(cases)]
    keyword = draw(st.sampled_from(["anyOf", "oneOf"]))
    return Case({keyword: [c.schema for c in members]}, st.one_of(*(c.values for c in members)))


def cases() -> st.SearchStrategy[Case]:
    return st.recursive(
        scalar_cases(),
        lambda inner: arrays_of(inner) | objects_of(inner) | maps_of(inner) | unions_of(inner),
        max_leaves=8,
    )


@st.composite
def roots(draw: st.DrawFn) -> Case:
    """A schema of a whole bucket, with definitions that it refers to, one of them recursive."""
    names = draw(st.lists(KEY, min_size=2, max_size=2, unique=True))
    pointers = [name.replace("~", "~0").replace("/", "~1") for name in names]
    references = [{"$ref": "#/$defs/" + _quote(pointer)} for pointer in pointers]
    leaf, inner = draw(cases()), draw(cases())
    node: Schema = {
        "type": "object",
        "properties": {"value": inner.schema, "next": references[1]},
        "required": ["value"],
    }
    nodes = st.recursive(
        st.fixed_dictionaries({"value": inner.values}),
        lambda deeper: st.fixed_dictionaries({"value": inner.values, "next": deeper}),
        max_leaves=3,
    )
    referring = st.sampled_from([Case(references[0], leaf.values), Case(references[1], nodes)])
    root = draw(objects_of(cases() | referring | arrays_of(referring)))
    return Case({**root.schema, "$defs": {names[0]: leaf.schema, names[1]: node}}, root.values)


def _quote(pointer: str) -> str:
    return "".join(c if c.isalnum() and c.isascii() else _percent(c) for c in pointer)


def _percent(char: str) -> str:
    return "".join(f"%{byte:02X}" for byte in char.encode())


def _python(value: Any) -> str:
    """Return a value as an expression; pyright misreads escapes of characters beyond U+FFFF."""
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, list):
        return f"[{', '.join(map(_python, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{quoted(key)}: {_python(each)}' for key, each in value.items())}}}"
    return repr(value)


class Batch:
    """The files of all examples, to be compiled together."""

    def __init__(self, daemon: Daemon, place: Path) -> None:
        self.daemon, self.place = daemon, place
        self.schemas: dict[str, Any] = {}

    def add(self, schema: Any, values: list[Any]) -> None:
        name = f"case{len(self.schemas)}"
        if self.daemon.request("PUT", f"/v1/schemas/{name}", schema).status != 200:
            return
        self.schemas[name] = schema
        for language, suffix in (("python", "py"), ("typescript", "d.ts")):
            path = self.place / f"{name}.{suffix}"
            done = bucketctl_types(self.daemon, name, "--lang", language, "--output", str(path))
            assert (done.returncode, done.stdout) == (0, ""), (schema, done.stderr)
            assert "unexpected" not in done.stderr, (schema, done.stderr)
        # The oldest Python that the client supports.
        ast.parse((self.place / f"{name}.py").read_text(), feature_version=(3, 9))
        text = (self.place / f"{name}.d.ts").read_text()
        (self.place / f"{name}.d.ts").write_text(text[: text.index("declare module")])
        kept = [value for value in values if self._is_valid(name, value)]
        title = name.capitalize() + "Bucket"
        self._write(f"use_{name}.py", [f"from {name} import Bucket, {title}"], [
            f"v{n}: {title} = {value}\nBucket().set({value})\nBucket().replace({value})"
            for n, value in enumerate(map(_python, kept))])  # fmt: skip
        self._write(f"use_{name}.mts", [f'import type {{ {title} }} from "./{name}.js";'], [
            f"export const v{n}: {title} = {json.dumps(value)};" for n, value in enumerate(kept)
        ])  # fmt: skip

    def _is_valid(self, name: str, value: Any) -> bool:
        response = self.daemon.request("POST", f"/v1/schemas/{name}/check", {"bucket": value})
        return response.status == 200 and response.json["violations"] == []

    def _write(self, name: str, head: list[str], lines: list[str]) -> None:
        (self.place / name).write_text("\n".join([*head, *lines]) + "\n")

    def compile(self, checker: str) -> None:
        patterns = ("*.mts", "*.d.ts") if checker == "tsc" else ("*.py",)
        files = sorted(path for pattern in patterns for path in self.place.glob(pattern))
        errors: Errors = errors_of(checker, self.place, files)
        shown = [
            f"{text}{self._line(name, line)}\n{self._schema(name)}"
            for (name, line), text in errors.items()
        ]
        assert not shown, "\n\n".join(shown[:20])

    def _schema(self, name: str) -> Any:
        return self.schemas.get(name.partition(".")[0].removeprefix("use_"))

    def _line(self, name: str, line: int) -> str:
        return (self.place / name).read_text().split("\n")[line - 1] if name else ""


@pytest.mark.timeout(60 + 4 * EXAMPLES)
def test_any_schema(shared_daemon: Daemon, tmp_path: Path) -> None:
    batch = Batch(shared_daemon, tmp_path)

    @settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def generate(data: st.DataObject) -> None:
        case = data.draw(roots())
        batch.add(case.schema, [data.draw(case.values) for _ in range(VALUES)])

    generate()
    assert len(batch.schemas) > EXAMPLES / 2
    # pyright finds what mypy finds, and takes as long again.
    for checker in ("mypy", "tsc", *(["pyright"] if EXAMPLES > DAILY else [])):
        batch.compile(checker)
