"""The ways to change a bucket: functions from a dict to a dict.

A function may change the dict that it is given. RFC 6902 says how a JSON Patch applies.
"""

from __future__ import annotations

import copy
import re
from typing import Any, Callable

from .._errors import BucketError, error
from . import _strict_json

Object = dict[str, Any]
Change = Callable[[Object], Object]
_POINTER = re.compile(r"(/([^~/]|~[01])*)*")
_INDEX = re.compile(r"0|[1-9][0-9]*")
_NEEDS = {
    "add": "value", "replace": "value", "test": "value",
    "remove": None, "move": "from", "copy": "from",
}  # fmt: skip


class _NoPlace(Exception):
    """The bucket has no such place."""


def merge(data: Object) -> Change:
    return lambda bucket: {**bucket, **data}


def replace(data: Object) -> Change:
    return lambda _bucket: data


def remove(keys: list[str]) -> Change:
    return lambda bucket: {k: v for k, v in bucket.items() if k not in keys}


def merge_patch(patch: Object) -> Change:
    return lambda bucket: _merged(bucket, patch)


def json_patch(operations: Any, max_bytes: int) -> Change:
    """Return the change. Raise InvalidRequest for no patch; applying it may raise PatchFailed."""
    if not isinstance(operations, list):
        raise error(
            "invalid_request", "cannot read the JSON Patch: it must be an array of operations"
        )
    for index, operation in enumerate(operations):
        _check(index, operation)
    return lambda bucket: _patched(bucket, operations, max_bytes)


def _merged(target: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merged(merged.get(key), value)
    return merged


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
                copied += len(_strict_json.dumps(_at(document, _parts(operation["from"]))))
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
    kind = _strict_json.kind_of(document)
    raise error(
        "patch_failed",
        f"cannot apply the JSON Patch: the result would be {kind}, and a bucket is a JSON object",
    )


def _applied(document: Any, operation: Object) -> Any:
    name, path = operation["op"], _parts(operation["path"])
    if name == "test":
        if not _strict_json.same_value(_at(document, path), operation["value"]):
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
