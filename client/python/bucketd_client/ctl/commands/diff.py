"""``bucketctl diff``: compare a bucket with a file, another bucket, or an earlier state."""

from __future__ import annotations

import json
from typing import Any

from ... import _context
from .. import earlier, json_diff, masks, output
from ..inputs import read_object
from ..parser import Usage
from ..session import Session
from ..table.daily import Options
from ..tables import Cell


def diff(options: Options) -> int:
    session = Session(options)
    mask = bool(session.mask)
    if options.arguments and earlier.is_number(options.arguments[0]):
        return _of_revisions(session)
    if len(options.arguments) > 1:
        raise Usage("cannot compare: give one FILE, or @REVISION and @REVISION")
    stored = masks.read(session, session.scope(), mask)
    other, other_masked = _other(session, stored)
    found = list(json_diff.changes(stored.bucket, other))
    if mask:
        found = list(masks.shown(found, stored.masked, other_masked))
    return _show(options, found)


def _of_revisions(session: Session) -> int:
    """Compare an earlier state with another one, or with the state now."""
    options, scope = session.options, session.scope()
    if any(map(options.has, ("to-device", "to-job"))):
        raise Usage("cannot compare: give either @REVISION, or --to-device and --to-job")
    numbers = [earlier.number(word) for word in options.arguments]
    before = earlier.state_at(session, scope, numbers[0])
    if len(numbers) == 1:
        after = earlier.state_now(session, scope)
    else:
        after = earlier.state_at(session, scope, numbers[1])
    found = list(json_diff.changes(before.bucket, after.bucket))
    if session.mask:
        found = list(masks.shown(found, before.masked, after.masked))
    return _show(options, found)


def _show(options: Options, found: list[json_diff.Change]) -> int:
    if options.has("json"):
        output.show({"equal": not found, "changes": json_diff.as_data(found)})
    elif output.form not in ("", "table"):
        output.show_rows(json_diff.as_data(found), COLUMNS, "")
    else:
        for line in json_diff.lines(found):
            output.write(line)
    return 1 if found and options.has("exit-code") else 0


def _other(session: Session, stored: masks.Read) -> tuple[dict[str, Any], Any]:
    """Return the other side, and its masked form if the terminal shows masks."""
    options = session.options
    device, job = options.get("to-device"), options.get("to-job")
    if bool(options.arguments) == (device is not None or job is not None):
        raise Usage("cannot compare: give either FILE, or --to-device and --to-job")
    if options.arguments:
        bucket = read_object(options.arguments[0])
        if not stored.marks_secrets:
            return bucket, bucket
        return bucket, masks.of_file(session, bucket)
    device = options.get("device") if device is None else device
    if device is None:
        raise Usage("cannot compare: name the other device with --to-device")
    there = masks.read(session, _context.named(device, job, None, False), bool(session.mask))
    return there.bucket, there.masked


COLUMNS: output.Columns = {
    "PATH": lambda row: row["path"],
    "BEFORE": lambda row: _side(row, "before"),
    "AFTER": lambda row: _side(row, "after"),
}


def _side(row: dict[str, Any], side: str) -> Cell:
    """Return a value as JSON, and nothing where that side has none."""
    text = json.dumps(row[side], ensure_ascii=False) if side in row else None
    return output.name(text)
