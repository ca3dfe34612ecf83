"""JSON Patch (RFC 6902): check the operations, and apply all of them to a bucket or none."""

from __future__ import annotations

import copy
import json
import re
from typing import Any, Callable

from ._errors import BucketError, error

Object = dict[str, Any]
_POINTER = re.compile(r"(/([^~/]|~[01])*)*")
_INDEX = re.compile(r"0|[1-9][0-9]*")
_NEEDS = {
    "add": "value", "replace": "value", "test": "value",
    "remove": None, "move": "from", "copy": "from",
}  # fmt: skip


class _NoPlace(Exception):
    """The bucket has no such place."""


def json_patch(operations: Any, max_bytes: int) -> Callable[[Object], Object]:
    """Return a function that applies the patch to a bucket, which it may change.

    Raise InvalidRequest for operations that are not a JSON Patch. The function raises PatchFailed,
    or TooLarge if the patch copies over ``max_bytes``.
    """
    if not isinstance(operations, list):
        raise error(
            "invalid_request", "cannot read the JSON Patch: it must be an array of operations"
        )
    for index, operation in enumerate(operations):
        _check(index, operation)
    return lambda bucket: _patched(bucket, operations, max_bytes)


def _check(index: int, operation: Any) -> None:
    name = operation.get("op") if isinstance(operation, dict) else None
    if not isinstance(name, str) or name not in _NEEDS:
        raise _no_patch(index, f'"op" must be one of {", ".join(_NEEDS)}')
    needed = _NEEDS[name]
    if needed and needed not in operation:
        raise _no_patch(index, f'"{name}" needs "{needed}"')
    for member in ("path", "from") if needed == "from" else ("path",):
        pointer = operation.get(member)
        if not (isinstance(pointer, str) and _POINTER.fullmatch(pointer)):
            raise _no_patch(index, f'"{member}" must be a JSON Pointer such as "/loggedIn"')


def _no_patch(index: int, cause: str) -> BucketError:
    return error("invalid_request", f"cannot read the JSON Patch: operation {index}: {cause}")


def _patched(bucket: Object, operations: list[Object], max_bytes: int) -> Object:
    document: Any = bucket
    copied = 0
    for index, operation in enumerate(operations):
        try:
            if operation["op"] == "copy":
                copied += len(_dumps(_at(document, _parts(operation["from"]))))
            if copied > max_bytes:
                raise error("too_large", f"cannot apply the JSON Patch: operation {index}: "
                            f"its copies alone have over {max_bytes} bytes")  # fmt: skip
            document = _applied(document, operation)
        except _NoPlace as problem:
            cause = str(problem) or "the bucket has no such place"
            raise error(
                "patch_failed",
                f'cannot apply the JSON Patch: operation {index} ("{operation["op"]}" at '
                f'"{operation["path"]}"): {cause}; nothing was changed',
            ) from None
    if isinstance(document, dict):
        return document
    kind = kind_of(document)
    raise error(
        "patch_failed",
        f"cannot apply the JSON Patch: the result would be {kind}, and a bucket is a JSON object",
    )


def _applied(document: Any, operation: Object) -> Any:
    name, path = operation["op"], _parts(operation["path"])
    if name == "test":
        if not same_value(_at(document, path), operation["value"]):
            raise _NoPlace("the value there is another")
        return document
    if name == "replace":
        _at(document, path)
        return _put(document, path, operation["value"], anew=False)
    if name == "add":
        return _put(document, path, operation["value"])
    if name == "remove":
        return _without(document, path)
    origin = _parts(operation["from"])
    value = copy.deepcopy(_at(document, origin))
    if name == "move" and origin == path:
        return document
    if name == "move" and path[: len(origin)] == origin:
        raise _NoPlace("a value cannot be moved into itself")
    return _put(_without(document, origin) if name == "move" else document, path, value)


def _parts(pointer: str) -> list[str]:
    return [p.replace("~1", "/").replace("~0", "~") for p in pointer.split("/")[1:]]


def _at(document: Any, path: list[str]) -> Any:
    for part in path:
        document = document[_place(document, part)]
    return document


def _place(holder: Any, part: str, most: int = -1) -> Any:
    """Return a key or index that ``holder`` has, or an index up to ``most``."""
    if isinstance(holder, dict) and (most >= 0 or part in holder):
        return part
    if isinstance(holder, list) and _INDEX.fullmatch(part):
        index = int(part)
        if index < len(holder) or index <= most:
            return index
    raise _NoPlace


def _put(document: Any, path: list[str], value: Any, anew: bool = True) -> Any:
    if not path:
        return copy.deepcopy(value)
    holder = _at(document, path[:-1])
    if isinstance(holder, list) and anew:
        where = len(holder) if path[-1] == "-" else _place(holder, path[-1], len(holder))
        holder.insert(where, copy.deepcopy(value))
    else:
        holder[_place(holder, path[-1], 0)] = copy.deepcopy(value)
    return document


def _without(document: Any, path: list[str]) -> Any:
    if not path:
        raise _NoPlace("the whole bucket cannot be removed this way")
    holder = _at(document, path[:-1])
    del holder[_place(holder, path[-1])]
    return document


def same_value(one: Any, other: Any) -> bool:
    """Report whether both are equal by RFC 6902, 4.6, which compares numbers by value."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same_value(one[k], other[k]) for k in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same_value, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def kind_of(value: Any) -> str:
    names: dict[type, str] = {bool: "a boolean", int: "a number", float: "a number"}
    names.update({str: "a string", list: "an array"})
    return "null" if value is None else names.get(type(value), "an object")


def _dumps(value: Any) -> bytes:
    """Return compact JSON, of which the daemon counts the size."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
