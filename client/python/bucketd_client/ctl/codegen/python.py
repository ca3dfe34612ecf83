"""Print a model as a Python module: TypedDicts, and buckets and agents typed by them.

The module runs on every Python that the client supports, and imports the client when a bucket or
an agent is first used. So what only type checkers need is an annotation, or beneath TYPE_CHECKING.
"""

from __future__ import annotations

import keyword
from typing import NamedTuple

from .model import (
    Alternatives,
    Array,
    Literal,
    Model,
    Never,
    Notes,
    Object,
    Primitive,
    Reference,
    Tuple,
    Type,
    union,
)
from .names import Names, lines_of, pascal, quoted

_PRIMITIVES = {
    "string": "str", "number": "float", "integer": "int", "boolean": "bool", "null": "None"
}  # fmt: skip
# Names within annotations; a key of the same name would hide them in the body of a class.
_USED = {*_PRIMITIVES.values(), "list", "dict"}
# The parameters of ``set`` by name: such a key cannot be passed as a keyword argument.
_PARAMETERS = ("if_match", "returning")


class Row(NamedTuple):
    """A key of a TypedDict."""

    key: str
    annotation: str
    required: bool
    notes: Notes

    def optional(self) -> Row:
        return self._replace(annotation=f"NotRequired[{self.annotation}]")


class Python:
    """A Python module; ``problems`` names what the language cannot express."""

    comment = "#"

    def __init__(self, model: Model) -> None:
        self._model = model
        self._names = Names(model.name, *(each.name for each in model.definitions.values()))
        self._declared: list[str] = []
        self._imported: set[str] = set()
        # The keys of the bucket with the types of their values, for ``value``.
        self._values: list[Row] = []
        self.problems: list[str] = []

    def text(self) -> str:
        """Return the module without its first comment."""
        model, whole, part = self._model, self._model.name, f"{self._model.name}Part"
        for place, each in model.definitions.items():
            if place != "#":
                self._declared.append(self._definition(each.name, each.type, each.notes))
        own, keywords = self._bucket(model.bucket, whole, part)
        types = [whole, part]
        if model.completed and not _is_mapping(model.bucket):
            types.append(f"{whole}WithDefaults")
        declared = "\n\n\n".join([*own, *self._declared])
        client = _client(types, keywords, self._parameter(), self._values)
        # The imports are those of all the others.
        return "\n\n\n".join([self._imports(keywords is not None), declared, client])

    def _bucket(self, bucket: Object, whole: str, part: str) -> tuple[list[str], str | None]:
        """Return the declarations of the bucket, and the type of keyword arguments of ``set``.

        The type is empty if there can be none, and None if ``set`` of the client is right as it is.
        """
        if _is_mapping(bucket):
            value = self._type(bucket.rest or Never(), f"{whole}Value")
            if value != "Any":
                names = [self._alias(each, f"dict[str, {value}]") for each in (whole, part)]
                return names, value
            self._imported.add("Mapping")
            return [
                self._alias(whole, "dict[str, Any]"),
                self._alias(part, "Mapping[str, Any]"),
            ], None
        # Both have the same types, so that nested types are declared once.
        rows = self._values = self._rows(bucket, whole)
        notes = Notes(f"The keys that ``set`` takes, none of which a {part} must have.")
        own = [
            self._typed_dict(whole, rows, self._model.notes),
            self._typed_dict(part, rows, notes, partial=True),
        ]
        if completed := self._model.completed:
            rows = [row._replace(required=row.required or row.key in completed) for row in rows]
            notes = Notes(f"A {whole} as ``get(defaults=True)`` completes it.")
            own.append(self._typed_dict(f"{whole}WithDefaults", rows, notes))
        if any(row.key in _PARAMETERS for row in rows):
            return own, ""
        self._imported.add("Unpack")
        return own, f"Unpack[{part}]"

    def _parameter(self) -> str:
        """Return the name of the first parameter of ``set``, which no key may have."""
        keys, name = {each.key for each in self._model.bucket.fields}, "data"
        while name in keys:
            name += "_"
        return name

    def _imports(self, overloaded: bool) -> str:
        used = self._imported
        typing = ["TYPE_CHECKING", *sorted(used & {"Any", "Literal", "TypedDict"})]
        late = ["overload"] if "Literal" in used else ["Literal", "overload"]
        late = late if overloaded else []
        extensions = sorted(used & {"Never", "NotRequired", "TypeAlias", "Unpack"})
        lines = ["from collections.abc import Mapping"] if "Mapping" in used else []
        lines += [f"from typing import {', '.join(late)}"] if late else []
        lines += [""] if lines else []
        lines += ["import bucketd_client", "from bucketd_client import aio"]
        lines += [f"from typing_extensions import {', '.join(extensions)}"] if extensions else []
        return "\n".join(
            [
                "from __future__ import annotations",
                "",
                f"from typing import {', '.join(typing)}",
                "",
                "if TYPE_CHECKING:",
                *(f"    {line}".rstrip() for line in lines),
            ]
        )

    # --- declarations

    def _definition(self, name: str, type: Type, notes: Notes) -> str:
        """Return the declaration of a type that the schema names."""
        if isinstance(type, Object) and not _is_mapping(type):
            return self._typed_dict(name, self._rows(type, name), notes)
        head = "".join(f"# {line}\n" for line in _lines(notes))
        return head + self._alias(name, self._type(type, f"{name}Value"))

    def _alias(self, name: str, annotation: str) -> str:
        self._imported.add("TypeAlias")
        return f"{name}: TypeAlias = '{annotation}'"

    def _rows(self, type: Object, name: str) -> list[Row]:
        if type.rest is not None:
            self._problem(type.source, name, "a TypedDict has only the keys that are named")
        rows = []
        for each in type.fields:
            if each.key:
                annotation = self._type(each.type, name + pascal(each.key))
                rows.append(Row(each.key, annotation, each.required, each.notes))
            else:
                self._problem("properties", name, "a TypedDict cannot name the empty key")
        return rows

    def _typed_dict(
        self, name: str, rows: list[Row], notes: Notes, *, partial: bool = False
    ) -> str:
        self._imported.add("TypedDict")
        if not partial and not all(row.required for row in rows):
            self._imported.add("NotRequired")
            rows = [row if row.required else row.optional() for row in rows]
        if all(self._is_attribute(row.key) for row in rows):
            return _class(name, rows, notes, partial)
        return _call(name, rows, notes, partial)

    def _is_attribute(self, key: str) -> bool:
        """Report whether a class may declare the key; it would change, or hide, some others."""
        plain = key.isascii() and key.isidentifier() and not keyword.iskeyword(key)
        return plain and not key.startswith("__") and key not in _USED and key not in self._names

    # --- annotations; none contains a single quote or a backslash, so any may stand in quotes

    def _type(self, type: Type, name: str) -> str:
        """Return the annotation of a type; ``name`` is for what has to be declared for it."""
        if isinstance(type, Primitive):
            return _PRIMITIVES[type.name]
        if isinstance(type, Literal):
            return self._literals([type], name)
        if isinstance(type, Array):
            return f"list[{self._type(type.items, name)}]"
        if isinstance(type, Tuple):
            # A list has one type for all of its items.
            rest = [] if type.rest is None else [type.rest]
            return f"list[{self._type(union([*type.items, *rest]), name)}]"
        if isinstance(type, Object):
            return self._object(type, name)
        if isinstance(type, Alternatives):
            literals = [each for each in type.members if isinstance(each, Literal)]
            texts = [self._literals(literals, name)] if literals else []
            others = [each for each in type.members if not isinstance(each, Literal)]
            return " | ".join([*texts, *(self._type(each, name) for each in others)])
        if isinstance(type, Reference):
            return self._model.definitions[type.target].name
        word = "Never" if isinstance(type, Never) else "Any"
        self._imported.add(word)
        return word

    def _object(self, type: Object, name: str) -> str:
        if _is_mapping(type):
            return f"dict[str, {self._type(type.rest or Never(), f'{name}Value')}]"
        own = self._names.take(name)
        self._declared.append(self._typed_dict(own, self._rows(type, own), Notes()))
        return own

    def _literals(self, literals: list[Literal], name: str) -> str:
        values = [each.value for each in literals if not isinstance(each.value, float)]
        texts = [quoted(each) if isinstance(each, str) else str(each) for each in values]
        found = []
        if len(values) < len(literals):
            self._problem("const or enum", name, "a Literal cannot be a fraction, so it is float")
            found.append("float")
        if texts:
            self._imported.add("Literal")
            text = f"Literal[{', '.join(texts)}]"
            if "'" in text or "\\" in text:
                # Type checkers accept no escapes in an annotation that stands in quotes.
                self._imported.add("TypeAlias")
                own = self._names.take(name)
                self._declared.append(f"{own}: TypeAlias = {text}")
                text = own
            found.append(text)
        return " | ".join(found)

    def _problem(self, keyword: str, name: str, outcome: str) -> None:
        self.problems.append(f"{keyword} (of {name}): {outcome}")


def _is_mapping(type: Object) -> bool:
    """Report whether all keys have one type, so that a dict says no less than a TypedDict."""
    return type.rest is not None and all(each.type == type.rest for each in type.fields)


def _class(name: str, rows: list[Row], notes: Notes, partial: bool) -> str:
    total = ", total=False" if partial else ""
    body = _docstring(notes)
    body += [""] if body and rows else []
    for row in rows:
        body += [f"    {row.key}: {row.annotation}", *_docstring(row.notes)]
    return "\n".join([f"class {name}(TypedDict{total}):", *(body or ["    pass"])])


def _call(name: str, rows: list[Row], notes: Notes, partial: bool) -> str:
    """Return a TypedDict as a call, which takes any key."""
    lines = [*(f"# {line}".rstrip() for line in _lines(notes)), f"{name} = TypedDict("]
    lines += [f'    "{name}",', "    {"]
    for row in rows:
        lines += [f"        # {line}".rstrip() for line in _lines(row.notes)]
        lines.append(f"        {quoted(row.key)}: '{row.annotation}',")
    return "\n".join([*lines, "    },", *(["    total=False,"] if partial else []), ")"])


def _lines(notes: Notes) -> list[str]:
    lines = lines_of(notes.text)
    lines += [f"Format: {each}" for each in lines_of(notes.format)]
    lines += [f"Default: {each}" for each in lines_of(notes.default)]
    return [*lines, "Deprecated."] if notes.deprecated else lines


def _docstring(notes: Notes) -> list[str]:
    """Return the lines of a docstring, which editors show for a class and for a key."""
    lines = [line.replace("\\", "\\\\").replace('"""', '\\"\\"\\"') for line in _lines(notes)]
    if not lines:
        return []
    if len(lines) == 1:
        end = "\\" if lines[0].endswith('"') else ""
        return [f'    """{lines[0][:-1]}{end}{lines[0][-1]}"""']
    return [f'    """{lines[0]}', *(f"    {line}".rstrip() for line in lines[1:]), '    """']


def _client(types: list[str], keywords: str | None, data: str, values: list[Row]) -> str:
    """Return buckets and agents of these types; ``keywords`` types the keyword arguments of set."""
    return _CLIENT.format(
        bucket=_bucket_class("Bucket", "def", types, keywords, data, values),
        async_bucket=_bucket_class("AsyncBucket", "async def", types, keywords, data, values),
        types=", ".join(types),
    )


def _bucket_class(
    name: str,
    define: str,
    types: list[str],
    keywords: str | None,
    data: str,
    values: list[Row],
) -> str:
    whole, part = types[:2]
    head = f"    class {name}(bucketd_client.{name}[{', '.join(types)}]):\n"
    if keywords is None:
        return f"{head}        pass\n"
    data += f": {part} | None = None" if keywords else f": {part}"
    more = f"\n            **more: {keywords}," if keywords else ""
    setting = _SET.format(define=define, whole=whole, part=part, data=data, more=more)
    return head + setting + _value_method(define, values)


def _value_method(define: str, values: list[Row]) -> str:
    """Return the overloads of ``value`` for each key, without and with a default of its type."""
    if not values:
        return ""
    known = "".join(
        _VALUE.format(define=define, key=quoted(row.key), type=row.annotation) for row in values
    )
    # The client's own takes any key.
    known = known.replace("@overload", "@overload  # type: ignore[override]", 1)
    return f"{known}        {define} value(self, key: str, default: object = ...) -> object: ...\n"


# Both have the same two overloads; ``set`` of the client itself takes any keyword argument.
_SET = """\
        @overload
        {define} set(
            self,
            {data},
            /,
            *,
            if_match: str | None = ...,
            returning: Literal[True] = True,{more}
        ) -> {whole}: ...
        @overload
        {define} set(
            self,
            {data},
            /,
            *,
            if_match: str | None = ...,
            returning: bool,{more}
        ) -> {whole} | None: ...
        {define} set(self, data: object = ..., /, **more: object) -> object: ...
"""
_VALUE = """\
        @overload
        {define} value(self, key: Literal[{key}], default: None = ...) -> {type} | None: ...
        @overload
        {define} value(self, key: Literal[{key}], default: {type}) -> {type}: ...
"""
_CLIENT = """\
if TYPE_CHECKING:

{bucket}
{async_bucket}
    agent: bucketd_client.Agent[{types}]
    async_agent: aio.AsyncAgent[{types}]

else:

    def __getattr__(name):
        # These are the client's own, which only type checkers need to distinguish.
        import bucketd_client

        if name in ("AsyncBucket", "Bucket", "agent"):
            return getattr(bucketd_client, name)
        if name == "async_agent":
            from bucketd_client import aio

            return aio.agent
        raise AttributeError(f"module {{__name__!r}} has no attribute {{name!r}}")
"""
