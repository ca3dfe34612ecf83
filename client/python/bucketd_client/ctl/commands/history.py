"""``bucketctl history`` and ``undo``: who changed a bucket, and taking a change back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from ... import _api
from .. import colours, earlier, json_diff, output
from ..earlier import Entry
from ..filters import joined, whole_number
from ..session import Session, Shown
from ..table.daily import Options
from ..tables import Cell
from . import buckets


def history(options: Options) -> int:
    session = Session(options)
    scope = session.scope()
    more = [*(["values=true"] if options.has("values") else []), *session.mask]
    found = earlier.pages(session, scope, more, whole_number(options, "limit"))
    try:
        if options.has("json"):
            return output.show(joined(found, "history"))
        entries = (entry for members in found for entry in members["history"])
        if options.has("values") and output.for_people():
            return _show_values(session, entries)
        return output.show_rows(entries, COLUMNS, "no changes are known")
    except Shown:
        return 0


def _author(entry: Entry) -> str:
    """Return in words who has made a change."""
    by = entry["by"]
    if by.get("edit"):
        return "an edit of the file"
    if by.get("retention"):
        return "retention"
    return str(by.get("user") or "-")


COLUMNS: output.Columns = {
    "REVISION": lambda row: output.number(row["revision"]),
    "AT": lambda row: output.age(row["at"]),
    "BY": _author,
    "RUN": lambda row: output.name(row["by"].get("run")),
    "SET": lambda row: _keys(row["set"]),
    "REMOVED": lambda row: _keys(row["removed"]),
    "UNDOES": lambda row: Cell.of(str(row.get("undoes", "-")), row.get("undoes"), right=True),
}


def _keys(keys: list[str]) -> Cell:
    return Cell.of(", ".join(keys) or "-", keys or None)


def _touched(entry: Entry) -> str:
    """Return in words which keys a change touched."""
    words = [f"{w} {', '.join(entry[w])}" for w in ("set", "removed") if entry[w]]
    return output.plain("; ".join(words) or "changed")


def _show_values(session: Session, entries: Iterable[Entry]) -> int:
    """Show each change with its old and new values, from the newest state backwards."""
    after: dict[str, Any] | None = None
    is_lost = False
    for entry in entries:
        output.write(colours.paint(output.plain(_title(entry)), colours.BOLD))
        if entry.get("before_known") is False:
            output.write(f"  {_touched(entry)}; the values before are not known")
            # Earlier changes have their old values, but nothing says what they left.
            is_lost = True
            continue
        if is_lost:
            output.write(f"  {_touched(entry)}")
            continue
        if after is None:
            after = earlier.state_at(session, session.scope(), entry["revision"]).masked
        found, after = earlier.changes(entry, after)
        for line in json_diff.lines(found):
            output.write(line)
    if after is None and not is_lost:
        output.write("no changes are known")
    return 0


def _title(entry: Entry) -> str:
    run = entry["by"].get("run")
    parts = [f"revision {entry['revision']}", output.age(entry["at"]), f"by {_author(entry)}"]
    parts += [f"run {run}"] if run else []
    parts += [f"undoes {entry['undoes']}"] if "undoes" in entry else []
    return ", ".join(parts)


def undo(options: Options) -> int:
    session = Session(options)
    scope = session.scope()
    words = options.arguments
    body = {"revision": earlier.number(words[0])} if words else {}
    guard = {"If-Match": tag} if (tag := options.get("if-match")) is not None else {}
    quiet = _api.RETURN_MINIMAL if options.has("quiet") else {}
    headers = {**scope.headers("POST"), **guard, **quiet, "Content-Type": _api.JSON}
    try:
        target = earlier.path_below(scope, "undo", session.mask)
        reply = session.call("POST", target, headers=headers, body=_api.encode(body))
    except Shown:
        return 0
    if options.has("quiet"):
        return 0
    if options.has("json"):
        return output.show_answer(reply)
    output.show(reply.members[scope.label])
    if output.for_people():
        output.remark(f"{_undone(reply)}; {buckets.told(options, reply)}")
    return 0


def _undone(reply: _api.Reply) -> str:
    if "restored" in reply.members:
        return f"restored from the trash ({reply.members['restored']})"
    return f"revision {reply.members['undone']} is taken back"


def entries_of(session: Session, envelope: dict[str, Any], mask: list[str]) -> Iterator[Entry]:
    """Yield all changes of an exported bucket, with the values before them."""
    from ..._context import named

    scope = named(envelope["device"], envelope["job"], None, False)
    for members in earlier.pages(session, scope, ["values=true", *mask]):
        yield from members["history"]
