"""Print a model as a TypeScript declaration file."""

from __future__ import annotations

import re

from .model import (
    Alternatives,
    Array,
    Definition,
    Field,
    Literal,
    Model,
    Never,
    Notes,
    Object,
    Primitive,
    Reference,
    Tuple,
    Type,
    Unknown,
    union,
)
from .names import lines_of, quoted

_PRIMITIVES = {"integer": "number"}
_PLAIN_KEY = re.compile(r"[A-Za-z_$][A-Za-z0-9_$]*")
_STEP = "  "
# Every object inherits these from Object.prototype, with types of their own.
_INHERITED = (
    *("constructor", "hasOwnProperty", "isPrototypeOf", "propertyIsEnumerable"),
    *("toLocaleString", "toString", "valueOf"),
)


class TypeScript:
    """A declaration file; ``problems`` names what the language cannot express."""

    comment = "//"

    def __init__(self, model: Model) -> None:
        self._model = model
        self.problems: list[str] = []

    def text(self) -> str:
        """Return the declarations, and the augmentation that types ``agent.utils.bucket``."""
        model = self._model
        declared = [self._declaration(Definition(model.name, model.bucket, model.notes))]
        declared += [
            self._declaration(each) for place, each in model.definitions.items() if place != "#"
        ]
        members = [f"bucket: {model.name};"]
        if model.completed:
            keys = " | ".join(
                quoted(f.key) for f in model.bucket.fields if f.key in model.completed
            )
            declared.append(
                "/** The bucket as `get({ defaults: true })` completes it. */\n"
                f"export type {model.name}WithDefaults = "
                f"{model.name} & Required<Pick<{model.name}, {keys}>>;"
            )
            members.append(f"bucketWithDefaults: {model.name}WithDefaults;")
        rows = "\n".join(f"    {member}" for member in members)
        augmentation = f"""declare module "bucketd-client" {{
  interface BucketTypes {{
{rows}
  }}
}}"""
        return "\n\n".join([*declared, augmentation])

    def _declaration(self, definition: Definition) -> str:
        head = "".join(f"{line}\n" for line in _comment(definition.notes))
        if isinstance(definition.type, Object):
            return f"{head}export interface {definition.name} {self._object(definition.type, '')}"
        return f"{head}export type {definition.name} = {self._type(definition.type, '')};"

    def _type(self, type: Type, indent: str) -> str:
        if isinstance(type, Primitive):
            return _PRIMITIVES.get(type.name, type.name)
        if isinstance(type, Literal):
            return quoted(type.value) if isinstance(type.value, str) else type.text
        if isinstance(type, Array):
            return f"{self._operand(type.items, indent)}[]"
        if isinstance(type, Tuple):
            return self._tuple(type, indent)
        if isinstance(type, Object):
            return self._object(type, indent)
        if isinstance(type, Alternatives):
            return " | ".join(self._type(each, indent) for each in type.members)
        if isinstance(type, Reference):
            return self._model.definitions[type.target].name
        return "never" if isinstance(type, Never) else "unknown"

    def _operand(self, type: Type, indent: str) -> str:
        text = self._type(type, indent)
        return f"({text})" if isinstance(type, Alternatives) else text

    def _tuple(self, type: Tuple, indent: str) -> str:
        items = [
            self._operand(each, indent) + ("" if number < type.required else "?")
            for number, each in enumerate(type.items)
        ]
        if type.rest is not None:
            items.append(f"...{self._operand(type.rest, indent)}[]")
        return f"[{', '.join(items)}]"

    def _object(self, type: Object, indent: str) -> str:
        inner = indent + _STEP
        lines = [line for each in type.fields for line in self._field(each, inner)]
        rest = type.rest
        if rest is None and not type.fields:
            rest = Never()
        if rest is not None:
            # TypeScript demands that the type of all keys includes those of the named ones.
            inherited = [Unknown() for each in type.fields if each.key in _INHERITED]
            types = [rest, *(each.type for each in type.fields), *inherited]
            text = self._type(union(types), inner)
            optional = not all(each.required for each in type.fields)
            more = " | undefined" if optional and text != "unknown" else ""
            lines.append(f"{inner}[key: string]: {text}{more};")
        if not type.fields and "\n" not in lines[0]:
            return f"{{ {lines[0].strip()[:-1]} }}"
        return "\n".join(["{", *lines, f"{indent}}}"])

    def _field(self, field: Field, indent: str) -> list[str]:
        key = field.key if _PLAIN_KEY.fullmatch(field.key) else quoted(field.key)
        mark = "" if field.required else "?"
        head = [indent + line for line in _comment(field.notes)]
        text = self._type(field.type, indent)
        if field.key in _INHERITED and text != "unknown":
            # An object without the key would not have the type.
            self.problems.append(
                f"properties: {field.key} is typed as unknown, as objects inherit it"
            )
            text = "unknown"
        return [*head, f"{indent}{key}{mark}: {text};"]


def _comment(notes: Notes) -> list[str]:
    """Return the lines of a TSDoc comment."""
    lines = lines_of(notes.text)
    lines += [f"Format: {each}" for each in lines_of(notes.format)]
    lines += [f"@default {each}" for each in lines_of(notes.default)]
    lines += ["@deprecated"] if notes.deprecated else []
    lines = [line.replace("*/", "*\\/") for line in lines]
    if len(lines) == 1:
        return [f"/** {lines[0]} */"]
    return ["/**", *(f" * {line}".rstrip() for line in lines), " */"] if lines else []
