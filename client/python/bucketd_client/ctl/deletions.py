"""Deletions that go into the trash, or past it."""

from __future__ import annotations

from .._context import Scope
from .._errors import InvalidRequest
from .session import NO_TRASH, Session
from .table.daily import Options


def query(options: Options) -> list[str]:
    """Return the parameters of a deletion: with ``--no-trash`` it is for good."""
    return [NO_TRASH] if options.has("no-trash") else []


def how_to_restore(trash_id: str, scope: Scope) -> str:
    """Return how to bring back the bucket that was deleted."""
    who = "to bring it back" if scope.token is None else "an operator brings it back"
    return f"{who}: bucketctl trash restore {trash_id}"


def remove_moved(session: Session, scope: Scope, etag: str) -> None:
    """Remove a bucket that has been copied elsewhere, for good: nothing is lost by that."""
    headers = {"If-Match": etag}
    try:
        session.call("DELETE", scope.target(more=[NO_TRASH]), headers=headers)
    except InvalidRequest as problem:
        # An older daemon has no trash.
        if "'trash'" not in problem.message:
            raise
        session.call("DELETE", scope.target(), headers=headers)
