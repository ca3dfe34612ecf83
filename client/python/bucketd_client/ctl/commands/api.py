"""``bucketctl api``: send any request, and print the response as it is."""

from __future__ import annotations

import json
import os

from ... import _api, _context, _transport
from .. import curl, inputs, output
from ..parser import Usage
from ..refusals import STATUS
from ..session import Session
from ..table.daily import Options

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
WITH_TOKEN = (
    *("/v1/bucket", "/v1/device/bucket", "/v1/context"),
    *("/v1/hold", "/v1/device/hold"),
)


def api(options: Options) -> int:
    """Send the request; a refusal is printed too, and sets the exit status as usual."""
    method, target = options.arguments[0].upper(), options.arguments[1]
    if method not in METHODS:
        raise Usage(f"cannot send {method}: it must be one of {', '.join(METHODS)}")
    if not target.startswith("/") or not target.isascii() or not target.isprintable():
        raise Usage(f"cannot send {target!r}: a path begins with / and has its names escaped")
    session, body = Session(options), _body(options)
    headers = _headers(options, method, target, body)
    if options.has("curl"):
        output.write(curl.command(session.path, method, target, headers, body))
        return 0
    headers.setdefault("User-Agent", session.user_agent)
    answer = _transport.request(
        method, target, body=body, headers=headers, path=session.path, timeout=session.timeout
    )
    output.changed = answer.status < 400 and method not in ("GET", "HEAD")
    _show(options, answer)
    return 0 if answer.status < 400 else _status(answer)


def _body(options: Options) -> bytes | None:
    words = options.arguments[2:]
    if not words and not options.has("data"):
        return None
    if not words and (text := options.get("data")) != "-":
        return (text or "").encode("utf-8", "surrogateescape")
    if words == ["-"] or not words:
        return inputs.standard_input()
    data, rest = inputs.data_and_words(Options(options.given, words))
    return _api.encode({**(data or {}), **inputs.assignments(rest)})


def _headers(options: Options, method: str, target: str, body: bytes | None) -> dict[str, str]:
    headers = {} if body is None else {"Content-Type": _api.JSON}
    if target.partition("?")[0].removesuffix("/events") in WITH_TOKEN:
        headers.update(_context.from_environment(os.environ).headers(method))
    for line in (options.get("header") or "").split("\n"):
        name, colon, value = line.partition(":")
        if line and not (colon and name.strip()):
            raise Usage(
                f"cannot use a --header of {len(line)} characters: it must be 'NAME: VALUE'"
            )
        if line:
            headers = {k: v for k, v in headers.items() if k.lower() != name.strip().lower()}
            headers[name.strip()] = value.strip()
    return headers


def _show(options: Options, answer: _transport.Response) -> None:
    if options.has("include"):
        output.write(answer.head.decode("latin-1").replace("\r\n", "\n") + "\n")
    if not answer.body:
        return
    if output.on_terminal() and "json" in answer.headers.get("content-type", ""):
        output.show(json.loads(answer.body))
    else:
        output.write(answer.body.decode("utf-8", "surrogateescape").removesuffix("\n"))


def _status(answer: _transport.Response) -> int:
    try:
        return STATUS.get(json.loads(answer.body)["code"], 1)
    except (ValueError, TypeError, KeyError):
        return 1
