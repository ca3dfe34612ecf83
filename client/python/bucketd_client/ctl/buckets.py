"""The commands on one bucket: get, set, unset, replace, clear."""

from __future__ import annotations

import json
import sys
from typing import Any

from .. import _calls
from . import output
from .commands import Options
from .parser import Usage
from .session import Session, Shown


def get(options: Options) -> int:
    keys = options.arguments
    if options.has("raw") and len(keys) != 1:
        raise Usage("cannot use --raw: it goes with exactly one KEY")
    reply, bucket = _ask(options, "GET", keys=keys)
    if reply is None:
        return 0
    if options.has("json"):
        return output.show_answer(reply)
    if len(keys) != 1:
        return output.show(bucket)
    if keys[0] not in bucket:
        from .._errors import error

        raise error("not_found", f"cannot get {keys[0]!r}: the bucket has no such key")
    value = bucket[keys[0]]
    if options.has("raw") and isinstance(value, str):
        output.write(value)
        return 0
    return output.show(value)


def set_keys(options: Options) -> int:
    data = _data(options)
    for word in options.arguments:
        key, value = _assignment(word)
        data[key] = value
    if not data and options.get("data") is None:
        raise Usage("cannot set: give KEY=TEXT, KEY:=JSON or --data OBJ")
    return _write(options, "PATCH", data=data)


def unset(options: Options) -> int:
    return _write(options, "DELETE", keys=options.arguments)


def replace(options: Options) -> int:
    if options.arguments not in ([], ["-"]) or (options.arguments and options.has("data")):
        raise Usage("cannot replace: give --data OBJ, or - to read it from standard input")
    if options.arguments:
        options.given["data"] = "-"
        options.arguments.clear()
    if not options.has("data"):
        raise Usage("cannot replace: give --data OBJ, or - to read it from standard input")
    return _write(options, "PUT", data=_data(options))


def clear(options: Options) -> int:
    return _write(options, "DELETE")


def _write(options: Options, method: str, **more: Any) -> int:
    guard = {"If-Match": tag} if (tag := options.get("if-match")) is not None else {}
    reply, bucket = _ask(options, method, headers=guard, **more)
    if reply is None:
        return 0
    return output.show_answer(reply) if options.has("json") else output.show(bucket)


def _ask(
    options: Options,
    method: str,
    *,
    data: dict[str, Any] | None = None,
    keys: list[str] | None = None,
    headers: dict[str, str] | None = None,
) -> tuple[_calls.Reply | None, dict[str, Any]]:
    """The answer and the bucket in it; None where a curl command was printed instead."""
    session = Session(options)
    scope = session.scope()
    headers = {**scope.headers(), **(headers or {})}
    body = None
    if data is not None:
        headers["Content-Type"] = _calls.JSON
        body = _calls.encode(data)
    try:
        reply = session.call(method, scope.target(keys or ()), headers=headers, body=body)
    except Shown:
        return None, {}
    return reply, reply.members[scope.label]


def _assignment(word: str) -> tuple[str, Any]:
    """``KEY:=JSON`` or ``KEY=TEXT``, whichever sign comes first; so a key may have neither."""
    key, equals, value = word.partition("=")
    if not equals:
        raise Usage(f"cannot set {word!r}: it must be KEY=TEXT or KEY:=JSON")
    if not key.endswith(":"):
        return key, value
    return key[:-1], _json(value, f"the value of {key[:-1]!r}")


def _data(options: Options) -> dict[str, Any]:
    if options.arguments == ["-"] and not options.has("data"):
        options.arguments.clear()
        options.given["data"] = "-"
    text = options.get("data")
    if text is None:
        return {}
    value = _json(sys.stdin.read() if text == "-" else text, "the data")
    if not isinstance(value, dict):
        raise Usage("cannot use the data: it must be a JSON object, such as '{\"loggedIn\": true}'")
    return value


def _json(text: str, what: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as problem:
        raise Usage(f"cannot read {what} as JSON: {problem}") from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
