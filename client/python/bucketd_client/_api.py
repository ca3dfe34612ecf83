"""Build requests and check replies, for the blocking and the asyncio client."""

from __future__ import annotations

from . import _json, _transport
from ._errors import NOT_BUCKETD, TooLarge, error
from ._http11 import encode_head, with_body

# See _bucket.
__tracebackhide__ = True

TYPE_CHECKING = False  # see bucketd_client

if TYPE_CHECKING:
    from typing import Any

    from ._context import Scope
    from ._http11 import Response
    from ._operations import Operation

JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
# RFC 7240, 4.2: the response to a write need not hold the bucket.
RETURN_MINIMAL = {"Prefer": "return=minimal"}
_MAX_POINTER = 200

_MAX_HEADS = 256
# Encoded heads; a program uses few buckets, and each of them often.
_heads: dict[tuple[object, ...], bytes] = {}


class Reply:
    """A successful response, the members of its JSON, and the bucket among them, if it has one."""

    __slots__ = ("bucket", "members", "response")

    def __init__(self, members: dict[str, Any], response: Response) -> None:
        self.members, self.response = members, response
        self.bucket: Any = None

    @property
    def etag(self) -> str | None:
        """The ETag; None if no bucket is stored."""
        return self.response.etag


def call(
    method: str,
    target: str,
    *,
    path: str,
    headers: dict[str, str],
    body: bytes | None = None,
    timeout: float | None = None,
) -> Reply:
    """Make one request. Raise the BucketError of a refusal."""
    return checked(
        _transport.request(method, target, body=body, headers=headers, path=path, timeout=timeout)
    )


def checked(response: Response) -> Reply:
    """Return the reply in a response. Raise the BucketError of a refusal."""
    try:
        members = _json.loads(str(response.body, "utf-8"))
    except (ValueError, RecursionError):
        members = None
    if not isinstance(members, dict):
        raise error("internal", f"cannot read the response: {NOT_BUCKETD}", status=response.status)
    if response.status >= 400 or members.get("success") is not True:
        raise error(
            str(members.get("code", "internal")),
            str(members.get("error") or f"the daemon responded with status {response.status}"),
            status=response.status,
            details=members.get("details"),
            revision=members.get("revision"),
            request_id=response.headers.get("x-request-id"),
        )
    return Reply(members, response)


class BucketRequest:
    """One operation on one bucket: encode the request, and check the response."""

    __slots__ = ("data", "method", "path", "scope", "timeout")

    def __init__(
        self,
        scope: Scope,
        path: str,
        operation: Operation,
        timeout: float | None = None,
        below: str | None = None,
        query: tuple[str, ...] = (),
    ) -> None:
        """``below`` is the rest of the path for what is not the bucket itself, as ``/undo``."""
        method, body, *_ = operation
        self.scope, self.method, self.path, self.timeout = scope, method, path, timeout
        target = None if below is None else scope.below(below, query)
        self.data = with_body(_head(scope, operation, target), body)

    def reply(self, response: Response) -> Reply:
        """Return the reply, which holds the bucket as ``scope.label``. Raise as ``checked``."""
        reply = self._checked(response)
        reply.bucket = reply.members.get(self.scope.label)
        if not isinstance(reply.bucket, dict):
            raise error("internal", f"cannot read the response: it holds no {self.scope.label}")
        return reply

    def minimal_reply(self, response: Response) -> Reply:
        """Return the reply without the bucket, even if the daemon has sent the bucket."""
        reply = self._checked(response)
        reply.members.pop(self.scope.label, None)
        return reply

    def _checked(self, response: Response) -> Reply:
        try:
            return checked(response)
        except TooLarge as refusal:
            from ._advice import name_largest_keys

            name_largest_keys(refusal, self.data.partition(b"\r\n\r\n")[2])
            raise


def _head(scope: Scope, operation: Operation, target: str | None) -> bytes:
    method, _, media_type, keys, headers, defaults = operation
    which = (method, scope.identity, media_type)
    is_usual = not keys and not headers and not defaults and target is None
    if is_usual and (head := _heads.get(which)) is not None:
        return head
    content = {} if media_type is None else {"Content-Type": media_type}
    target = scope.target(keys, defaults) if target is None else target
    head = encode_head(method, target, {**scope.headers(method), **headers, **content})
    if is_usual:
        if len(_heads) >= _MAX_HEADS:
            _heads.clear()
        _heads[which] = head
    return head


def whole(data: Any) -> dict[str, Any]:
    """Return the data as a dict. Raise InvalidRequest for data that is not a mapping."""
    if not isinstance(data, dict):
        from collections.abc import Mapping

        if not isinstance(data, Mapping):
            kind = type(data).__name__
            raise error("invalid_request", f"cannot send a {kind}: the data must be a mapping")
    try:
        return dict(data)
    except Exception as problem:
        # A mapping of another library may raise any exception, with any value in its text.
        raise error(
            "invalid_request", f"cannot send the data: reading it raised {_kind(problem)}"
        ) from problem


def encode(data: Any) -> bytes:
    """Return the data as strict JSON.

    Raise InvalidRequest for data that has no JSON, or would come back as something else. The
    error names the place and the kind of the value, and never shows the value.
    """
    try:
        _check_keys(data, "")
        return _json.dumps(data, separators=(",", ":"), allow_nan=False).encode()
    except RecursionError:
        cause = "it is nested too deep, or contains itself"
    except (TypeError, ValueError) as problem:
        cause = why_no_json(data, "") or f"encoding it raised {_kind(problem)}"
    except Exception as problem:
        # The data's own methods may raise any exception; so may a change by another thread.
        cause = f"encoding it raised {_kind(problem)}"
    raise error("invalid_request", f"cannot send the data as JSON: {cause}")


def _check_keys(value: Any, pointer: str) -> None:
    """Raise TypeError for a key that is not a string.

    ``json`` would make a string of a number or None, so the key would not be found again.
    """
    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise TypeError
            if isinstance(inner, (dict, list, tuple)):
                _check_keys(inner, pointer)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            if isinstance(inner, (dict, list, tuple)):
                _check_keys(inner, pointer)


def why_no_json(value: Any, pointer: str) -> str | None:
    """Return why a value has no JSON, with the JSON Pointer of the cause."""
    where = f"at {_shown(pointer)!r}" if pointer else "at the top"
    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, str):
                return f"a key {where} is a {_kind(key)}, and must be a string"
            below = f"{pointer}/{key.replace('~', '~0').replace('/', '~1')}"
            if _has_surrogate(key):
                return f"the key {_shown(below)!r} {_SURROGATE}"
            if cause := why_no_json(inner, below):
                return cause
        return None
    if isinstance(value, (list, tuple)):
        found = (why_no_json(inner, f"{pointer}/{n}") for n, inner in enumerate(value))
        return next(filter(None, found), None)
    if isinstance(value, str):
        return f"the string {where} {_SURROGATE}" if _has_surrogate(value) else None
    if isinstance(value, float):
        is_finite = float("-inf") < value < float("inf")
        return None if is_finite else f"the number {where} is not finite"
    if value is None or isinstance(value, int):
        return None
    from ._advice import instead_of

    return f"the value {where} is a {_kind(value)}, which JSON does not have{instead_of(value)}"


_SURROGATE = (
    "contains a lone surrogate (U+D800 to U+DFFF), which UTF-8 cannot hold; "
    "store it escaped, for example as json.dumps(text), and unescape it after get"
)


def _has_surrogate(text: str) -> bool:
    return any("\ud800" <= char <= "\udfff" for char in text)


def _shown(pointer: str) -> str:
    return pointer if len(pointer) <= _MAX_POINTER else f"{pointer[:_MAX_POINTER]}…"


def _kind(value: object) -> str:
    return type(value).__name__
