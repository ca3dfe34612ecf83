"""Completion words from the daemon: devices, jobs, automations, keys, and ids."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from .._context import escape
from .._errors import BucketError
from .parser import Usage
from .session import Session
from .table.daily import Options

# The time limit, since a person waits at a prompt.
SECONDS = 1.0
Given = dict[str, str]


def values(option: str, given: Given) -> Iterable[str]:
    """Return the values of an option; none if the daemon does not respond."""
    name = option.removeprefix("to-")
    if name in ("device", "job"):
        wanted = {"device": given.get(option.replace("job", "device"))} if name == "job" else {}
        return _safely(lambda session: _of_buckets(session, name, wanted), given)
    if option in ("columns", "sort"):
        from .bucket_query import MEMBERS

        return MEMBERS
    return _safely(_automations, given) if name == "automation" else ()


def buckets(given: Given) -> Iterable[str]:
    """Return the names of all buckets as DEVICE/JOB; of those with slashes that cannot be told."""
    return _safely(_places, given)


def _places(session: Session) -> Iterator[str]:
    for row in _rows(session, {}):
        if "/" not in f"{row['device']}{row['job'] or ''}":
            yield f"{row['device']}/{row['job'] or ''}"


def arguments(command: str, count: int, given: Given) -> Iterable[str]:
    """Return the words for the argument after ``count`` others."""
    if (ask := OF_EACH.get(command)) is not None:
        return _safely(ask, given)
    if count:
        return ()
    if command.startswith("device "):
        return _safely(lambda session: _of_buckets(session, "device", {}), given)
    if command.startswith("schema ") or command == "types":
        return _safely(_automations, given)
    ask = OF_FIRST.get(command)
    return () if ask is None else _safely(ask, given)


def _safely(ask: Callable[[Session], Iterable[str]], given: Given) -> Iterable[str]:
    names = ("device", "job", "automation", "socket")
    chosen = {name: given[name] for name in names if name in given}
    try:
        return list(ask(Session(Options({**chosen, "timeout": str(SECONDS)}, []))))
    except (BucketError, Usage, OSError):
        return ()


def _of_buckets(session: Session, name: str, only: dict[str, str | None]) -> Iterator[str]:
    """Yield the names in the list of buckets."""
    for row in _rows(session, only):
        if row[name] is not None:
            yield row[name]


def _rows(session: Session, only: dict[str, str | None]) -> Iterator[dict[str, Any]]:
    """Yield the rows of the list of buckets, as many as arrive within ``SECONDS``."""
    query = "".join(f"&{k}={escape(v)}" for k, v in only.items() if v is not None)
    until, cursor = time.monotonic() + SECONDS, ""
    while cursor is not None and time.monotonic() < until:
        target = f"/v1/buckets?limit=1000{query}" + (f"&cursor={cursor}" if cursor else "")
        members: dict[str, Any] = session.call("GET", target).members
        yield from members["buckets"]
        cursor = members["next_cursor"]


def _automations(session: Session) -> Iterator[str]:
    for row in session.call("GET", "/v1/schemas").members["schemas"]:
        yield row["automation"]


def _ids(session: Session) -> Iterator[str]:
    for row in session.call("GET", "/v1/contexts").members["contexts"]:
        yield row["id"]


def _holds(session: Session) -> Iterator[str]:
    members = session.call("GET", "/v1/holds").members
    for row in (*members["holds"], *members["waiting"]):
        yield row["id"]


def _kept_files(session: Session) -> Iterator[str]:
    for row in session.call("GET", "/v1/quarantine").members["quarantine"]:
        yield row["id"]


def _deleted(session: Session) -> Iterator[str]:
    for row in session.call("GET", "/v1/trash").members["trash"]:
        yield row["id"]


def _revisions(session: Session) -> Iterator[str]:
    from .earlier import pages

    for members in pages(session, session.scope()):
        yield from (str(entry["revision"]) for entry in members["history"])


def _keys(session: Session) -> Iterator[str]:
    scope = session.scope()
    yield from session.call("GET", scope.target(), headers=scope.headers()).members[scope.label]


# The words for each argument of a command, and those for the first one alone.
OF_EACH = {
    **dict.fromkeys(("get", "unset", "wait", "watch"), _keys),
    **dict.fromkeys(("quarantine show", "quarantine drop"), _kept_files),
    "trash empty": _deleted,
    "undo": _revisions,
}
OF_FIRST = {"context revoke": _ids, "hold break": _holds, "trash restore": _deleted}
