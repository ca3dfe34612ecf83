"""The commands on one bucket: get, set, unset, replace, clear."""

from __future__ import annotations

from ... import _api
from ..._errors import NOT_BUCKETD, error
from .. import output
from ..parser import Usage
from ..session import Session, Shown
from ..table.daily import Options

TYPE_CHECKING = False  # see bucketd_client

if TYPE_CHECKING:
    from typing import Any


def get(options: Options) -> int:
    keys = options.arguments
    if options.has("raw") and len(keys) != 1:
        raise Usage("cannot use --raw: it goes with exactly one KEY")
    reply, bucket = _ask(options, "GET", keys=keys)
    if reply is None:
        return 0
    if (age := reply.members.get("stale_seconds")) is not None:
        output.warn(f"no majority of etcd answers: this value is at most {age:.0f} s old")
    if options.has("json"):
        return output.show_answer(reply)
    if len(keys) != 1:
        return output.show(bucket)
    if keys[0] not in bucket:
        raise error("not_found", f"cannot get {keys[0]!r}: the bucket has no such key")
    value = bucket[keys[0]]
    if options.has("raw") and isinstance(value, str):
        output.write(value)
        return 0
    return output.show(value)


def set_keys(options: Options) -> int:
    from ..inputs import assignments, data_and_words

    data, words = data_and_words(options)
    if data is None and not words:
        raise Usage("cannot set: give KEY=TEXT, KEY:=JSON, --data OBJ, or - for standard input")
    return _write(options, "PATCH", data={**(data or {}), **assignments(words)})


def unset(options: Options) -> int:
    return _write(options, "DELETE", keys=options.arguments)


def replace(options: Options) -> int:
    from ..inputs import data_and_words

    data, words = data_and_words(options)
    if data is None or words:
        raise Usage("cannot replace: give --data OBJ, or - to read it from standard input")
    return _write(options, "PUT", data=data)


def clear(options: Options) -> int:
    if options.has("all"):
        from .bulk import clear as clear_all

        return clear_all(options)
    if alone := next((name for name in ("dry-run", "yes") if options.has(name)), None):
        raise Usage(f"cannot use --{alone}: it goes with --all")
    return _write(options, "DELETE")


def _write(options: Options, method: str, **more: Any) -> int:
    headers = {"If-Match": tag} if (tag := options.get("if-match")) is not None else {}
    is_quiet = options.has("quiet")
    if is_quiet and options.has("json"):
        raise Usage("cannot use --quiet with --json: one prints nothing, the other the response")
    if is_quiet:
        headers |= _api.RETURN_MINIMAL
    reply, bucket = _ask(options, method, headers=headers, **more)
    if reply is None or is_quiet:
        return 0
    return output.show_answer(reply) if options.has("json") else output.show(bucket)


def _ask(
    options: Options,
    method: str,
    *,
    data: dict[str, Any] | None = None,
    keys: list[str] | None = None,
    headers: dict[str, str] | None = None,
) -> tuple[_api.Reply | None, dict[str, Any]]:
    """Return the response and its bucket; None if a curl command was printed instead."""
    session = Session(options)
    scope = session.scope()
    headers = {**scope.headers(), **(headers or {})}
    body = None
    if data is not None:
        headers["Content-Type"] = _api.JSON
        body = _api.encode(data)
    try:
        reply = session.call(
            method, scope.target(keys or (), session.mask), headers=headers, body=body
        )
    except Shown:
        return None, {}
    # A response that was asked for without the bucket has none.
    bucket = reply.members.get(scope.label, {} if "Prefer" in headers else None)
    if not isinstance(bucket, dict):
        raise error(
            "internal",
            f"cannot read the answer: {NOT_BUCKETD}",
        )
    return reply, bucket
