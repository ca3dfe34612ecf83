"""The commands on the trash: list, restore, empty."""

from __future__ import annotations

from ... import _context
from ..._errors import NotFound
from .. import filters, output
from ..parser import Usage
from ..prompts import ask, counted
from ..session import Session, Shown
from ..table.daily import Options

TYPE_CHECKING = False  # see bucketd_client

if TYPE_CHECKING:
    from typing import Any

PATH = "/v1/trash"
EMPTY = "the trash is empty"


def show(options: Options) -> int:
    session, left_out = Session(options), filters.LeftOut()
    found = filters.pages(session, PATH, "trash", filters.whole_number(options, "limit"))
    try:
        if options.has("json"):
            members = filters.joined(found, "trash")
            output.show(members)
            left_out.note(members)
        else:
            output.show_rows(filters.rows(found, "trash", left_out), COLUMNS, EMPTY)
    except Shown:
        return 0
    return left_out.status


def restore(options: Options) -> int:
    session = Session(options)
    try:
        reply = session.call("POST", f"{_path(options.arguments[0])}/restore")
    except Shown:
        return 0
    if options.has("json"):
        return output.show_answer(reply)
    label = "deviceBucket" if "deviceBucket" in reply.members else "bucket"
    if not output.for_people():
        return output.show(reply.members[label])
    output.write(f"restored, revision {reply.members['revision']}")
    return 0


def empty(options: Options) -> int:
    """Delete for good: what is named, or after a question all that matches."""
    session, left_out = Session(options), filters.LeftOut()
    ids = options.arguments
    if ids and filters.Filters(session).given:
        raise Usage("cannot empty by ID and by name at once: give one of the two")
    if not ids:
        rows = list(filters.rows(filters.pages(session, PATH, "trash"), "trash", left_out))
        if options.has("dry-run"):
            return output.show_rows(rows, COLUMNS, EMPTY) or left_out.status
        ids = [row["id"] for row in rows]
        if ids:
            ask(options, f"delete {counted(len(ids), 'bucket')} in the trash for good")
    elif options.has("dry-run"):
        raise Usage("cannot use --dry-run with an ID: bucketctl trash list shows them")
    named = bool(options.arguments)
    deleted = sum(_remove(session, trash_id, named) for trash_id in ids)
    if options.has("json") or not output.for_people():
        return output.show({"deleted": deleted}) or left_out.status
    output.write(f"{counted(deleted, 'bucket')} deleted for good" if deleted else EMPTY)
    return left_out.status


def _remove(session: Session, trash_id: str, named: bool) -> bool:
    try:
        session.call("DELETE", _path(trash_id))
    except NotFound:
        # Somebody restored or deleted it since it was listed.
        if named:
            raise
        return False
    return True


def _path(trash_id: str) -> str:
    return f"{PATH}/{_context.escape(trash_id)}"


def _by(row: dict[str, Any]) -> str:
    """Return in words who deleted a bucket."""
    by = row["by"]
    if by.get("retention"):
        return "retention"
    what = [by.get("user") or "unknown"]
    if by.get("run"):
        what.append(f"run {by['run']}")
    return ", ".join(what)


COLUMNS: output.Columns = {
    "ID": lambda row: row["id"],
    "DEVICE": lambda row: row["device"],
    "JOB": lambda row: output.job(row["job"]),
    "SIZE": lambda row: output.size(row["size"]),
    "DELETED": lambda row: output.age(row["deleted_at"]),
    "EXPIRES": lambda row: output.age(row["expires_at"]),
    "BY": _by,
}
