"""From a scope and a verb to an answer, checked: what both faces of the client stand on."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, NamedTuple

from . import _wire
from ._context import Scope
from ._errors import error

JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"


class Reply(NamedTuple):
    """A successful answer: its members, and the ETag where a bucket is stored."""

    members: dict[str, Any]
    etag: str | None


def call(
    method: str,
    target: str,
    *,
    path: str,
    headers: dict[str, str],
    body: bytes | None = None,
    timeout: float | None = None,
) -> Reply:
    """The members of a success; a refusal as its BucketError."""
    answer = _wire.request(method, target, body=body, headers=headers, path=path, timeout=timeout)
    members = _members(answer)
    if answer.status >= 400 or members.get("success") is not True:
        raise error(
            str(members.get("code", "internal")),
            str(members.get("error") or f"the daemon answered with status {answer.status}"),
            status=answer.status,
            details=members.get("details"),
            revision=members.get("revision"),
        )
    return Reply(members, answer.headers.get("etag"))


def bucket_call(
    scope: Scope,
    method: str,
    *,
    path: str,
    data: Any = None,
    media_type: str | None = None,
    keys: Iterable[str] = (),
    guard: dict[str, str] | None = None,
    timeout: float | None = None,
) -> Reply:
    """One verb on one bucket; ``data`` is sent as JSON where a ``media_type`` is given."""
    headers = {**scope.headers(), **(guard or {})}
    body = None
    if media_type is not None:
        headers["Content-Type"] = media_type
        body = encode(data)
    return call(method, scope.target(keys), path=path, headers=headers, body=body, timeout=timeout)


def encode(data: Any) -> bytes:
    """Strict JSON; InvalidRequest for what has none: NaN, sets, cycles, keys that are no texts."""
    if isinstance(data, dict) and not all(isinstance(key, str) for key in data):
        raise error("invalid_request", "cannot send the data: its keys must be texts")
    try:
        return json.dumps(data, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        cause = "it has a lone surrogate"
    except RecursionError:
        cause = "it is nested too deep, or contains itself"
    except (TypeError, ValueError) as problem:
        cause = str(problem)
    raise error("invalid_request", f"cannot send the data as JSON: {cause}")


def _members(answer: _wire.Answer) -> dict[str, Any]:
    try:
        members = json.loads(answer.body)
    except ValueError:
        members = None
    if not isinstance(members, dict):
        raise error(
            "internal", "cannot read the answer: this is no answer of bucketd", status=answer.status
        )
    return members
