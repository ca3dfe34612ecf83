"""The ways to change a bucket, as pure functions: no input or output, no clock, no lock."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import orjson

from ..errors import BucketdError, InvalidRequest, Overloaded, PatchFailed, TooLarge
from . import strict_json
from .bucket import REMOVAL, Change

Object = dict[str, Any]
MOST_LIGHT_OPERATIONS = 64  # each may cost as much as a whole small change
_POINTER = re.compile(r"(/([^~/]|~[01])*)*")  # RFC 6901 §3


def merge(data: Object) -> Change:
    """Shallow merge: the keys named are set, ``null`` included; all others stay."""
    return _edit(lambda bucket: {**bucket, **data})


def replace(data: Object) -> Change:
    """The whole bucket anew; creates it even when ``data`` is empty."""
    text = strict_json.dumps(data)

    def apply(stored: bytes | None) -> bytes:
        return stored if stored is not None and strict_json.same(stored, text) else text

    return Change(apply, blind=True)


def remove(keys: list[str]) -> Change:
    """Without these keys; those that are not there are no error."""
    gone = frozenset(keys)
    return _edit(lambda bucket: {k: v for k, v in bucket.items() if k not in gone})


def clear() -> Change:
    """No bucket at all."""
    return REMOVAL


def merge_patch(patch: Object) -> Change:
    """RFC 7396: objects merge at every depth, ``null`` removes."""
    return _edit(lambda bucket: _merge_patch(bucket, patch))


def json_patch(operations: list[Any], max_bytes: int) -> Change:
    """RFC 6902: all operations or none. Copies are counted, so that none can multiply itself."""
    checked = [_check_operation(index, op) for index, op in enumerate(operations)]
    change = _edit(lambda bucket: _apply_steps(bucket, checked, max_bytes), in_place=True)
    copies = any(op["op"] == "copy" for op in checked)
    slow = copies or len(checked) > MOST_LIGHT_OPERATIONS
    return change._replace(large=slow, slow=slow)


def prepared(change: Change, stored: bytes | None, automation: str | None) -> Change:
    """The same change, worked out for one state now; on any other it is worked out when judged.

    So what takes long need not hold up the commits of others; a slow one is then refused as
    ``moved``, to be prepared again. A refusal is kept as well, for its turn: a guard comes before
    it.
    """
    after, refusal = None, None
    try:
        after = change.result(stored, automation)
    except BucketdError as error:
        refusal = error.with_traceback(None)  # which would keep all that it was about

    def apply(now: bytes | None) -> bytes | None:
        if now != stored and change.slow:
            raise Overloaded(
                "cannot change the bucket: others change it faster than so large a patch can be "
                "worked out; nothing was changed, try again",
                moved=True,
            )
        if now != stored:
            return change.apply(now)
        if refusal is not None:
            raise refusal
        return now if after is stored else after

    def check(now: bytes | None, result: bytes, bound: str | None) -> None:
        if change.check is not None and not (result is after and bound == automation):
            change.check(now, result, bound)

    return change._replace(apply=apply, check=check)


def _edit(function: Callable[[Object], Object], in_place: bool = False) -> Change:
    """Lift dict → dict to text → text, keeping the text itself when the value stays the same.

    ``in_place``: the function may change what it is given.
    """

    def apply(stored: bytes | None) -> bytes | None:
        text = stored or b"{}"
        before = orjson.loads(text)
        value = function(before)
        after = strict_json.dumps(value)
        same = strict_json.same(text, after) if in_place else strict_json.equal(before, value)
        return stored if same else after

    return Change(apply)


def _merge_patch(target: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merge_patch(merged.get(key), value)
    return merged


# RFC 6902 §4: what each operation must have besides "op" and "path".
_MEMBERS = {
    "add": "value", "replace": "value", "test": "value",
    "remove": None, "move": "from", "copy": "from",
}  # fmt: skip


def _check_operation(index: int, operation: Any) -> Object:
    """The operation, or InvalidRequest where RFC 6902 would not call it one."""
    name = operation.get("op") if isinstance(operation, dict) else None
    if not isinstance(name, str) or name not in _MEMBERS:
        raise _not_a_patch(index, f'"op" must be one of {", ".join(_MEMBERS)}')
    needed = _MEMBERS[name]
    if needed and needed not in operation:
        raise _not_a_patch(index, f'"{name}" needs "{needed}"')
    for member in ("path", "from") if needed == "from" else ("path",):
        if not _is_pointer(operation.get(member)):
            raise _not_a_patch(index, f'"{member}" must be a JSON Pointer such as "/loggedIn"')
    return dict(operation)


def _is_pointer(text: Any) -> bool:
    return isinstance(text, str) and _POINTER.fullmatch(text) is not None


def _not_a_patch(index: int, cause: str) -> InvalidRequest:
    return InvalidRequest(f"cannot read the JSON Patch: operation {index}: {cause}")


def _apply_steps(bucket: Object, operations: list[Object], max_bytes: int) -> Object:
    import jsonpatch  # 12 ms that most daemons never need

    document: Any = bucket
    copied = 0
    for index, operation in enumerate(operations):
        try:
            if operation["op"] == "copy":
                copied += _size_at(document, operation["from"])
            if copied > max_bytes:
                raise TooLarge(
                    f"cannot apply the JSON Patch: operation {index}: "
                    f"its copies alone make over {max_bytes} bytes"
                )
            document = jsonpatch.JsonPatch([operation]).apply(document, in_place=True)
        except jsonpatch.JsonPatchTestFailed:
            raise _failed(index, operation, "another value, or none, is there") from None
        except (jsonpatch.JsonPatchException, jsonpatch.JsonPointerException):
            raise _failed(index, operation, "there is no such place in the bucket") from None
        except RecursionError:
            raise _failed(index, operation, "it would nest too deep") from None
    if not isinstance(document, dict):
        raise PatchFailed(
            "cannot apply the JSON Patch: the result would be "
            f"{strict_json.kind_of(document)}, and a bucket is a JSON object; nothing was changed"
        )
    return document


def _failed(index: int, operation: Object, cause: str) -> PatchFailed:
    # In our words: the library's would repeat the whole bucket.
    return PatchFailed(
        f'cannot apply the JSON Patch: operation {index} ("{operation["op"]}" at '
        f'"{operation["path"]}"): {cause}; nothing was changed'
    )


def _size_at(document: Any, pointer: str) -> int:
    import jsonpointer

    value = jsonpointer.resolve_pointer(document, pointer)
    if isinstance(value, jsonpointer.EndOfList):  # where one could be added, and none is
        raise jsonpointer.JsonPointerException(pointer)
    return len(strict_json.dumps(value))
