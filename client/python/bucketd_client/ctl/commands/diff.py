"""``bucketctl diff``: compare a bucket with a file, or with another bucket."""

from __future__ import annotations

import json
from typing import Any

from ... import _context
from .. import json_diff, masks, output
from ..inputs import read_object
from ..parser import Usage
from ..session import Session
from ..table.daily import Options
from ..tables import Cell


def diff(options: Options) -> int:
    session = Session(options)
    mask = bool(session.mask)
    stored = masks.read(session, session.scope(), mask)
    other, other_masked = _other(session, stored)
    found = list(json_diff.changes(stored.bucket, other))
    if mask:
        found = list(masks.shown(found, stored.masked, other_masked))
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
