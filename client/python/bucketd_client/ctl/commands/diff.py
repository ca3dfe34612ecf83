"""``bucketctl diff``: compare a bucket with a file, or with another bucket."""

from __future__ import annotations

from typing import Any

from ... import _context
from .. import json_diff, output
from ..inputs import read_object
from ..parser import Usage
from ..session import Session
from ..table.daily import Options


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
