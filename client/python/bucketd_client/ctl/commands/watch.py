"""``bucketctl watch``: print changes as they happen, as a diff for people or as lines of JSON."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from ... import _context
from ..._events import Change, Notice
from ..._sync_watch import everything
from ..._watch_session import Received, Watching
from .. import colours, json_diff, output
from ..filters import NAMES, Filters, whole_number
from ..parser import Usage
from ..session import Session
from ..table.daily import Options
from ..tables import Cell, row_lines
from .holds import holder


def watch(options: Options) -> int:
    _check(options)
    count = whole_number(options, "count")
    session = Session(options)
    watching = _watching(session)
    if options.has("curl"):
        return _show_curl(session, watching)
    filters = Filters(session) if options.has("all") else None
    show = _lines(options) if options.has("json") or not output.for_people() else Screen(options)
    output.end_with_reader()
    for event in everything(watching):
        if (filters is None or _fits(filters, event)) and show(event) and count is not None:
            count -= 1
            if not count:
                break
    return 0


def _fits(filters: Filters, event: Received) -> bool:
    """Report whether the filters of --all match; the daemon sends all notices."""
    if isinstance(event, Change):
        return event.gap or filters.fit(dict(event))
    names = {**dict.fromkeys(NAMES), **event.data}
    if event.event == "hold":
        names["automation"] = event.data["by"]["automation"]
    exact = {f"{name}={_context.escape(str(names[name]))}" for name in NAMES}
    return exact.issuperset(filters.query) and filters.fit(names)


def _check(options: Options) -> None:
    for one, other in (("all", "snapshot"), ("all", "device-bucket"), ("since", "snapshot")):
        if options.has(one) and options.has(other):
            raise Usage(f"cannot use --{other} with --{one}")
    automation = options.get("automation") or ""
    if options.has("all") and any(mark in automation for mark in "*?["):
        raise Usage("cannot watch a pattern of --automation: name one")


def _watching(session: Session) -> Watching:
    options, keys = session.options, tuple(session.options.arguments)
    since = options.get("since")
    if options.has("all"):
        named = [*Filters(session).query, *(f"key={_context.escape(key)}" for key in keys)]
        query = (*named, *_also(session))
        return Watching(None, session.path, since=since, timeout=session.timeout, query=query)
    # On a terminal the watch starts with the bucket, since a diff shows the values before.
    shown = output.for_people() and not options.has("json") and since is None
    whole = options.has("snapshot") or shown
    scope, query = session.scope(), _also(session)
    return Watching(scope, session.path, keys, whole, since, session.timeout, query)


def _also(session: Session) -> tuple[str, ...]:
    """Return the parameters of the request that are not about keys and names."""
    holds = ["holds=true"] if session.options.has("holds") else []
    return (*session.mask, *holds)


def _show_curl(session: Session, watching: Watching) -> int:
    from ..curl import command

    line = command(session.path, "GET", watching.target, watching.headers, None)
    output.write(f"{line} --no-buffer")
    return 0


def _lines(options: Options) -> Any:
    whole = options.has("json")

    def show(event: Received) -> bool:
        members = dict(event)
        id = members.pop("id")
        if isinstance(event, Notice):
            kind, data = event.event, event.data
        else:
            gap = members.pop("gap")
            kind, data = "bucket", {**members, "gap": True} if gap else members
        if output.form == "tsv":
            for line in row_lines([{"event": kind, **data}], COLUMNS, "tsv"):
                output.write(output.masks_shown(line) if output.on_terminal() else line)
        else:
            output.write_json({"event": kind, "id": id, "data": data} if whole else data)
        return True

    return show


COLUMNS: output.Columns = {
    "EVENT": lambda row: row["event"],
    "DEVICE": lambda row: output.name(row.get("device")),
    "JOB": lambda row: output.name(row.get("job")),
    "REVISION": lambda row: Cell.of("", row.get("revision")),
    "SET": lambda row: Cell.of("", row.get("set")),
    "REMOVED": lambda row: Cell.of("", row.get("removed")),
}


class Screen:
    """Show changes to people: old values in red, new values in green.

    Old values are known only if the watch is of one bucket and began with a snapshot.
    """

    def __init__(self, options: Options) -> None:
        self._first = options.has("snapshot")
        one = not options.has("all") and options.get("since") is None
        self._before: dict[str, Any] | None = {} if one else None
        self._begun = not one

    def __call__(self, event: Received) -> bool:
        """Show an event; return False for the state that a watch begins with."""
        if isinstance(event, Notice):
            self._head(_in_words(event))
            return True
        lines = list(self._lines(event))
        is_shown = self._begun or self._first
        if is_shown:
            self._head(_title(event))
            for line in lines:
                output.write(line)
        self._begun = True
        return is_shown

    def _lines(self, change: Change) -> list[str]:
        before = self._before
        if before is None:
            gone = [output.plain(f"- {json_diff.pointer(key)}") for key in change.removed]
            return [
                *(colours.paint(line, colours.RED) for line in gone),
                *json_diff.lines(list(json_diff.changes({}, change.set))),
            ]
        kept = {} if change.gap else {k: v for k, v in before.items() if k not in change.removed}
        self._before = {**kept, **change.set}
        found = list(json_diff.changes(before, self._before))
        if not change.gap:
            found += _masked_changes(before, change.set)
        return list(json_diff.lines(found))

    def _head(self, text: str) -> None:
        line = output.plain(f"{time.strftime('%H:%M:%S')} {text}")
        output.write(colours.paint(line, colours.BOLD))


def _masked_changes(before: dict[str, Any], set_: dict[str, Any]) -> Iterator[json_diff.Change]:
    """Yield the keys of which only a secret has changed, so that both sides look the same."""
    for key, value in set_.items():
        if key in before and json_diff.same(before[key], value):
            yield json_diff.Change(json_diff.pointer(key), value, value)


def _title(change: Change) -> str:
    where = [name for name in (change["device"], change.job) if name is not None]
    what = f"revision {change.revision}" if change.revision else "no bucket"
    missed = "changes were missed, now " if change.gap else ""
    return ", ".join([*where, f"{missed}{what}"]) if where else "changes were missed"


def _in_words(notice: Notice) -> str:
    data = notice.data
    if notice.event == "hold":
        return f"hold {data['change']} {data['id']}: {holder(data)}"
    names = ", ".join(str(data[name]) for name in NAMES if data.get(name) is not None)
    return f"{notice.event} {data.get('state', '')} {data.get('id', '')}: {names}"
