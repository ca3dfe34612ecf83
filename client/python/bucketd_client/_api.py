"""From a scope and a verb to an answer, checked: what both faces of the client stand on."""

from __future__ import annotations

from . import _json, _transport
from ._errors import NO_ANSWER, error
from ._http11 import encode_head

TYPE_CHECKING = False  # see bucketd_client

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from ._context import Scope

JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"


_MOST_HEADS = 256
_heads: dict[tuple[str, tuple[object, ...], str | None], bytes] = {}  # of few buckets, asked often


class Reply:
    """A successful answer, and its members."""

    __slots__ = ("answer", "members")

    def __init__(self, members: dict[str, Any], answer: _transport.Answer) -> None:
        self.members, self.answer = members, answer

    @property
    def etag(self) -> str | None:
        """None where no bucket is stored."""
        return self.answer.etag


def call(
    method: str,
    target: str,
    *,
    path: str,
    headers: dict[str, str],
    body: bytes | None = None,
    timeout: float | None = None,
    began: float | None = None,
) -> Reply:
    """The members of a success; a refusal as its BucketError."""
    answer = _transport.request(
        method, target, body=body, headers=headers, path=path, timeout=timeout, began=began
    )
    return checked(answer)


def checked(answer: _transport.Answer) -> Reply:
    """The same of an answer that is there."""
    members = _members(answer)
    if answer.status >= 400 or members.get("success") is not True:
        raise error(
            str(members.get("code", "internal")),
            str(members.get("error") or f"the daemon answered with status {answer.status}"),
            status=answer.status,
            details=members.get("details"),
            revision=members.get("revision"),
            request_id=answer.headers.get("x-request-id"),
        )
    return Reply(members, answer)


def bucket_call(
    scope: Scope,
    method: str,
    *,
    path: str,
    body: bytes | None = None,
    media_type: str | None = None,
    keys: Iterable[str] = (),
    guard: dict[str, str] | None = None,
    timeout: float | None = None,
    began: float | None = None,
) -> Reply:
    """One verb on one bucket; its members, which hold the bucket as ``scope.label``."""
    if guard or keys:
        head = _head_of(method, scope, media_type, keys, guard or {})
    else:
        which = (method, scope.identity, media_type)
        head = _heads.get(which) or _keep_head(which, scope)
    end = b"\r\n" if body is None else b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    answer = _transport.exchange(method, head + end, path=path, timeout=timeout, began=began)
    reply = checked(answer)
    if not isinstance(reply.members.get(scope.label), dict):
        raise error("internal", f"cannot read the answer: it holds no {scope.label}")
    return reply


def _head_of(
    method: str, scope: Scope, media_type: str | None, keys: Iterable[str], guard: dict[str, str]
) -> bytes:
    headers = {**scope.headers(), **guard}
    if media_type is not None:
        headers["Content-Type"] = media_type
    return encode_head(method, scope.target(keys), headers)


def _keep_head(which: tuple[str, tuple[object, ...], str | None], scope: Scope) -> bytes:
    method, _, media_type = which
    head = _head_of(method, scope, media_type, (), {})
    if len(_heads) >= _MOST_HEADS:
        _heads.clear()
    _heads[which] = head
    return head


def whole(data: Any) -> dict[str, Any]:
    """The data as a dict; InvalidRequest for what is no mapping."""
    if not isinstance(data, dict):
        from collections.abc import Mapping

        if not isinstance(data, Mapping):
            kind = type(data).__name__
            raise error("invalid_request", f"cannot send a {kind}: the data must be a mapping")
    try:
        return dict(data)
    except Exception as problem:  # whatever a mapping of somebody else's may raise
        raise error("invalid_request", f"cannot send the data: {_said(problem)}") from problem


def encode(data: Any) -> bytes:
    """Strict JSON; InvalidRequest for what has none, or would come back as something else."""
    try:
        _check_keys(data, "")
        return _json.dumps(data, separators=(",", ":"), allow_nan=False).encode()
    except UnicodeEncodeError:
        cause = "it has a lone surrogate"
    except RecursionError:
        cause = "it is nested too deep, or contains itself"
    except Exception as problem:  # from the data's own methods, or changed by another thread
        cause = _said(problem)
    raise error("invalid_request", f"cannot send the data as JSON: {cause}")


def _check_keys(value: Any, place: str) -> None:
    """``json`` makes texts of numbers and of None, so such a key would not be found again."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise TypeError(f"the key {key!r} at {place!r} is no text")
            if isinstance(inner, (dict, list, tuple)):
                _check_keys(inner, f"{place}/{key}")
    elif isinstance(value, (list, tuple)):
        for index, inner in enumerate(value):
            if isinstance(inner, (dict, list, tuple)):
                _check_keys(inner, f"{place}/{index}")


def _said(problem: Exception) -> str:
    return str(problem) or type(problem).__name__


def _members(answer: _transport.Answer) -> dict[str, Any]:
    try:
        members = _json.loads(str(answer.body, "utf-8"))
    except (ValueError, RecursionError):
        members = None
    if not isinstance(members, dict):
        raise error(
            "internal",
            f"cannot read the answer: {NO_ANSWER}",
            status=answer.status,
        )
    return members
