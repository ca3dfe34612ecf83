"""The commands on one bucket: get, set, unset, replace, clear."""

from __future__ import annotations

import sys

from .. import _api
from .._errors import NOT_BUCKETD, error
from . import output
from .commands import Options
from .parser import Usage
from .session import Session, Shown

TYPE_CHECKING = False  # see bucketd_client

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn


def get(options: Options) -> int:
    keys = options.arguments
    if options.has("raw") and len(keys) != 1:
        raise Usage("cannot use --raw: it goes with exactly one KEY")
    reply, bucket = _ask(options, "GET", keys=keys)
    if reply is None:
        return 0
    if (age := reply.members.get("stale_seconds")) is not None:
        output.warn(f"no majority of etcd answers: this is from {age:.0f} s ago, or newer")
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
    data, words = _data(options)
    if data is None and not words:
        raise Usage("cannot set: give KEY=TEXT, KEY:=JSON, --data OBJ, or - for standard input")
    return _write(options, "PATCH", data={**(data or {}), **dict(map(_assignment, words))})


def unset(options: Options) -> int:
    return _write(options, "DELETE", keys=options.arguments)


def replace(options: Options) -> int:
    data, words = _data(options)
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
) -> tuple[_api.Reply | None, dict[str, Any]]:
    """The answer and the bucket in it; None where a curl command was printed instead."""
    session = Session(options)
    scope = session.scope()
    headers = {**scope.headers(), **(headers or {})}
    body = None
    if data is not None:
        headers["Content-Type"] = _api.JSON
        body = _api.encode(data)
    try:
        reply = session.call(method, scope.target(keys or ()), headers=headers, body=body)
    except Shown:
        return None, {}
    bucket = reply.members.get(scope.label)
    if not isinstance(bucket, dict):
        raise error(
            "internal",
            f"cannot read the answer: {NOT_BUCKETD}",
        )
    return reply, bucket


def _assignment(word: str) -> tuple[str, Any]:
    """``KEY:=JSON`` or ``KEY=TEXT``, whichever sign comes first; so a key may have neither."""
    key, equals, value = word.partition("=")
    if not equals:
        raise Usage(f"cannot set {word!r}: it must be KEY=TEXT or KEY:=JSON")
    if not key.endswith(":"):
        return key, value
    key = key[:-1]
    return key, _json(value, f"the value of {key!r}", lambda: _quoted_or_text(key, value))


def _data(options: Options) -> tuple[dict[str, Any] | None, list[str]]:
    """What ``--data`` or ``-`` gives (None for neither), and the other words."""
    words = [word for word in options.arguments if word != "-"]
    dashes, text = len(options.arguments) - len(words), options.get("data")
    if dashes + (text is not None) > 1:
        raise Usage("cannot take the data twice: give --data OBJ, or - once")
    if dashes or text == "-":
        value = _json(_standard_input(), "the data")
    elif text is None:
        return None, words
    else:
        value = _json(text, "the data", lambda: _quoted(text, f"--data '{_EXAMPLE}'"))
    if not isinstance(value, dict):
        raise Usage("cannot use the data: it must be a JSON object, such as '{\"loggedIn\": true}'")
    return value, words


def _standard_input() -> str:
    if sys.stdin is None:
        raise Usage("cannot read the data: standard input is closed")
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as problem:
        raise Usage(f"cannot read the data: it is no UTF-8: {problem}") from None


_EXAMPLE = '{"a": 1}'


def _quoted_or_text(key: str, value: str) -> str:
    """The way out of a word that is none of KEY:=JSON; the value itself is not told."""
    from shlex import quote

    if value.lstrip()[:1] in ("{", "["):
        return _quoted(value, quote(f"{key}:={_EXAMPLE}"))
    return f"; a text is {quote(f'{key}=TEXT')}"


def _quoted(text: str, example: str) -> str:
    """The way out where a shell may have taken the quotes: it took all."""
    return "" if '"' in text else f"; put JSON in single quotes, such as {example}"


def _json(text: str, what: str, cure: Callable[[], str] = str) -> Any:
    """``cure`` tells what to do where it is none."""
    import json

    try:
        return json.loads(text, parse_constant=_refuse, parse_float=_float)
    except RecursionError:
        raise Usage(f"cannot read {what} as JSON: it is nested too deep") from None
    except ValueError as problem:
        raise Usage(f"cannot read {what} as JSON: {problem}{cure()}") from None


def _float(text: str) -> float:
    # Python would read it as infinity, which no JSON can hold.
    if float(text) in (float("inf"), float("-inf")):
        raise ValueError(f"{text} is too large for a number")
    return float(text)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")
