"""The ways to change a bucket, as pure functions: no input or output, no clock, no lock."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import orjson

from ..errors import BucketdError, Exists, InvalidRequest, Overloaded, PatchFailed, TooLarge
from . import strict_json
from .bucket import Snapshot
from .document import EMPTY, Document
from .trashed import TrashedBucket

Object = dict[str, Any]
Check = Callable[[Document | None, Document, str | None], Sequence[Object]]
# Each operation may take as long as a whole small change.
MAX_INLINE_OPERATIONS = 64
_POINTER = re.compile(r"(/([^~/]|~[01])*)*")  # RFC 6901 §3


class Metadata(NamedTuple):
    """The revision and times of a state that is copied from another store.

    A member that is 0 or None is not kept.
    """

    revision: int = 0
    created_at: str | None = None
    updated_at: str | None = None


class Change(NamedTuple):
    """A pure function from bucket to bucket, None if none is stored.

    ``apply`` returns its argument itself if it changes nothing, and raises to refuse.
    ``check`` raises to refuse the result, and returns the warnings about it; its arguments are the
    bucket before, the bucket after, and the automation that the bucket is bound to.
    ``overwrites``: ``apply`` ignores the current value, so it can replace an unreadable one.
    ``removes``: ``apply`` removes the bucket, whatever its value.
    ``by_members``: evaluation takes no longer on a large bucket than on a small one.
    ``offloaded``: evaluation takes too long for the event loop; a worker thread prepares it.
    ``prepared_only``: evaluation takes too long for the committer as well, which refuses the
    change unless it was prepared for the current state.
    ``undoes``: the revision that the change takes back. ``upon`` raises Overloaded as ``moved`` if
    the change was not made for this state.
    ``trash_days``: a removed bucket can be restored for so many days; 0: it cannot.
    ``restores``: the deleted bucket that the change brings back.
    """

    apply: Callable[[Document | None], Document | None]
    overwrites: bool = False
    check: Check | None = None
    offloaded: bool = False
    metadata: Metadata | None = None
    removes: bool = False
    prepared_only: bool = False
    by_members: bool = False
    undoes: int | None = None
    upon: Callable[[Snapshot], None] | None = None
    trash_days: float = 0.0
    restores: TrashedBucket | None = None

    def result(
        self, stored: Document | None, automation: str | None
    ) -> tuple[Document | None, Sequence[Object]]:
        """Apply the change to the stored bucket, and return the checked result and its warnings."""
        after = self.apply(stored)
        if after is None or self.check is None:
            return after, ()
        return after, self.check(stored, after, automation)

    def checked(self, check: Check) -> Change:
        """Return the change with another check."""
        # Every set calls this, and _replace would take half a microsecond more.
        return Change(
            self.apply,
            self.overwrites,
            check,
            self.offloaded,
            self.metadata,
            self.removes,
            self.prepared_only,
            self.by_members,
            self.undoes,
            self.upon,
            self.trash_days,
            self.restores,
        )


REMOVAL = Change(lambda _stored: None, overwrites=True, removes=True, by_members=True)


def merge(data: Object) -> Change:
    """Set the keys in ``data``, even to ``null``; keep all others."""
    members = strict_json.members(data)

    def apply(stored: Document | None) -> Document | None:
        return _unless_same(stored, (stored or EMPTY).changed(members))

    return Change(apply, by_members=True)


def replace(data: Object) -> Change:
    """Replace the whole bucket; create it even when ``data`` is empty."""
    document = Document.of(data)

    def apply(stored: Document | None) -> Document:
        return stored if stored is not None and stored.same(document) else document

    return Change(apply, overwrites=True)


def remove(keys: list[str]) -> Change:
    """Remove keys; ignore those that do not exist."""
    gone = dict.fromkeys(keys)

    def apply(stored: Document | None) -> Document | None:
        return _unless_same(stored, (stored or EMPTY).changed({}, gone))

    return Change(apply, by_members=True)


def clear(trash_days: float = 0.0) -> Change:
    """Remove the bucket, into the trash for so many days; 0: for good."""
    return REMOVAL if not trash_days else REMOVAL._replace(trash_days=trash_days)


def restore(trashed: TrashedBucket) -> Change:
    """Bring a deleted bucket back where none is stored, with a revision that it never had."""
    last = trashed.last

    def apply(stored: Document | None) -> Document:
        if stored is not None:
            raise Exists(
                f"cannot restore {trashed.key}: a bucket is stored there; nothing was changed, "
                "clear it or rename its device first"
            )
        return last.bucket

    metadata = Metadata(last.revision + 1, last.created_at)
    return Change(apply, metadata=metadata, restores=trashed)


def merge_patch(patch: Object) -> Change:
    """Merge by RFC 7396: objects merge at every depth, ``null`` removes."""
    removed = [key for key, value in patch.items() if value is None]

    def apply(stored: Document | None) -> Document | None:
        before = stored or EMPTY
        merged = {
            key: _merge_patch(before.value(key) if isinstance(value, dict) else None, value)
            for key, value in patch.items()
            if value is not None
        }
        return _unless_same(stored, before.changed(strict_json.members(merged), removed))

    return Change(apply)


def json_patch(operations: list[Any], max_bytes: int) -> Change:
    """Apply all operations of RFC 6902, or none; the total size of copies is limited."""
    for index, operation in enumerate(operations):
        _check_operation(index, operation)
    # The operations are parsed for each evaluation, since a patched bucket shares their values and
    # later operations may change these.
    text = strict_json.dumps(operations, "the JSON Patch")

    def apply(stored: Document | None) -> Document | None:
        before = stored or EMPTY
        after = Document.of(_patched(before.values(), orjson.loads(text), max_bytes))
        return stored if after.same(before) else after

    copies = any(operation["op"] == "copy" for operation in operations)
    long = copies or len(operations) > MAX_INLINE_OPERATIONS
    return Change(apply, offloaded=long, prepared_only=long)


def _unless_same(stored: Document | None, after: Document) -> Document | None:
    """Return what is stored if nothing changes: an empty change creates no bucket."""
    return stored if after is (stored or EMPTY) else after


def prepared(change: Change, stored: Document | None, automation: str | None) -> Change:
    """Evaluate a change for one state now, and return it with the result.

    So a long change does not delay the commits of others. If the bucket has another state when the
    change is applied, the change is evaluated again; one that is ``prepared_only`` is refused as
    ``moved`` instead, to be prepared again. A refusal is raised only when the change is applied,
    since a failed precondition takes precedence.
    """
    after, refusal = None, None
    warnings: Sequence[Object] = ()
    try:
        after, warnings = change.result(stored, automation)
    except BucketdError as error:
        # The traceback would keep the buckets alive for as long as the refusal is.
        refusal = error.with_traceback(None)

    def apply(now: Document | None) -> Document | None:
        if now == stored:
            if refusal is not None:
                raise refusal
            return now if after is stored else after
        if change.prepared_only:
            raise Overloaded(
                "cannot change the bucket: other requests change it faster than so large a patch "
                "can be evaluated; nothing was changed, try again",
                moved=True,
            )
        return change.apply(now)

    def check(now: Document | None, result: Document, bound: str | None) -> Sequence[Object]:
        # A replacement has the same result for every state, yet the check depends on the state.
        if result is after and bound == automation and now == stored:
            return warnings
        return () if change.check is None else change.check(now, result, bound)

    return change._replace(apply=apply, check=check)


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


def _check_operation(index: int, operation: Any) -> None:
    """Raise InvalidRequest unless a value is an operation of RFC 6902."""
    name = operation.get("op") if isinstance(operation, dict) else None
    if not isinstance(name, str) or name not in _MEMBERS:
        raise _not_a_patch(index, f'"op" must be one of {", ".join(_MEMBERS)}')
    needed = _MEMBERS[name]
    if needed and needed not in operation:
        raise _not_a_patch(index, f'"{name}" needs "{needed}"')
    for member in ("path", "from") if needed == "from" else ("path",):
        pointer = operation.get(member)
        if not isinstance(pointer, str) or _POINTER.fullmatch(pointer) is None:
            raise _not_a_patch(index, f'"{member}" must be a JSON Pointer such as "/loggedIn"')


def _not_a_patch(index: int, cause: str) -> InvalidRequest:
    return InvalidRequest(f"cannot read the JSON Patch: operation {index}: {cause}")


def _patched(bucket: Object, operations: list[Object], max_bytes: int) -> Object:
    # Importing these takes 12 ms, and most daemons never need them.
    import jsonpatch
    import jsonpointer

    document: Any = bucket
    copied = 0
    for index, operation in enumerate(operations):
        name = operation["op"]
        try:
            if name == "copy":
                copied += len(strict_json.dumps(_value_at(document, operation["from"])))
            if copied > max_bytes:
                raise TooLarge(
                    f"cannot apply the JSON Patch: operation {index}: "
                    f"its copies alone make over {max_bytes} bytes"
                )
            if name != "test":
                document = jsonpatch.JsonPatch([operation]).apply(document, in_place=True)
            # Older versions of the library treat true as equal to 1.
            elif not strict_json.equivalent(
                _value_at(document, operation["path"]), operation["value"]
            ):
                raise _failed(index, operation, "another value is there")
        except (jsonpatch.JsonPatchException, jsonpointer.JsonPointerException):
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
    # The library's message would show values of the bucket, so the cause is worded here.
    path = strict_json.shown(operation["path"])
    return PatchFailed(
        f'cannot apply the JSON Patch: operation {index} ("{operation["op"]}" at {path}): '
        f"{cause}; nothing was changed"
    )


def _value_at(document: Any, pointer: str) -> Any:
    """Return the value at a JSON Pointer; raise JsonPointerException where there is none."""
    import jsonpointer

    value = jsonpointer.resolve_pointer(document, pointer)
    # "-" names the place after the last element, which has no value.
    if isinstance(value, jsonpointer.EndOfList):
        raise jsonpointer.JsonPointerException("behind the end")
    return value
