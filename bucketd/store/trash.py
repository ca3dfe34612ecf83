"""Checks and refusals of the trash that both engines share."""

from __future__ import annotations

from ..errors import InvalidRequest, NotFound
from ..model.trashed import is_id


def not_in_trash(trash_id: str) -> NotFound:
    """Return the error for an id that is not in the trash, or not any more."""
    shown = trash_id if is_id(trash_id) else "one with this id"
    return NotFound(
        f"cannot find the deleted bucket {shown}: it is not in the trash; "
        "see what is there with bucketctl trash list"
    )


def checked_cursor(cursor: str | None) -> str | None:
    """Return a cursor, which is the id of the last row of a page. Raises InvalidRequest."""
    if cursor is None or is_id(cursor):
        return cursor
    raise InvalidRequest("cannot list from this cursor: use a next_cursor as it was given")
