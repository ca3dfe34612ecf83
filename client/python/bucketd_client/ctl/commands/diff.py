"""``bucketctl diff``: a bucket beside a file, or beside another bucket."""

from __future__ import annotations

import sys
from typing import Any

from ... import _context
from .. import json_diff, output
from ..parser import Usage
from ..session import Session
from ..table.daily import Options
from .buckets import _json as read_json


def diff(options: Options) -> int:
    found = list(json_diff.changes(_stored(Session(options)), _other(options)))
    if options.has("json"):
        output.show({"equal": not found, "changes": json_diff.as_data(found)})
    else:
        for line in json_diff.lines(found):
            output.write(line)
    return 1 if found and options.has("exit-code") else 0


def _stored(session: Session, scope: _context.Scope | None = None) -> dict[str, Any]:
    scope = scope or session.scope()
    reply = session.call("GET", scope.target(), headers=scope.headers())
    bucket: dict[str, Any] = reply.members[scope.label]
    return bucket


def _other(options: Options) -> dict[str, Any]:
    device, job = options.get("to-device"), options.get("to-job")
    if bool(options.arguments) == (device is not None or job is not None):
        raise Usage("cannot compare: give either FILE, or --to-device and --to-job")
    if options.arguments:
        return read_object(options.arguments[0])
    device = options.get("device") if device is None else device
    if device is None:
        raise Usage("cannot compare: name the other device with --to-device")
    return _stored(Session(options), _context.named(device, job, None, False))


def read_object(name: str) -> dict[str, Any]:
    """The JSON object in a file (``-``: standard input); of a bucket's file, the bucket in it."""
    value = read_json(read_text(name), f"what {name} holds")
    if isinstance(value, dict) and value.get("format") == "bucketd/1":
        value = value.get("bucket")
    if not isinstance(value, dict):
        raise Usage(f"cannot use {name}: it holds no JSON object")
    return value


def read_text(name: str) -> str:
    try:
        if name == "-":
            return sys.stdin.buffer.read().decode()
        with open(name, encoding="utf-8") as file:
            return file.read()
    except OSError as problem:
        raise Usage(f"cannot read {name}: {problem.strerror}") from None
    except UnicodeDecodeError:
        raise Usage(f"cannot read {name}: it is no UTF-8") from None
