"""The commands on holds: list, break; and who holds what, in words."""

from __future__ import annotations

from ... import _context
from ..._errors import NotFound
from .. import output
from ..filters import Filters
from ..session import Session, Shown
from ..table.daily import Options

TYPE_CHECKING = False  # see bucketd_client

if TYPE_CHECKING:
    from typing import Any


def show(options: Options) -> int:
    session = Session(options)
    filters = Filters(session)
    query = "?" + "&".join(filters.query) if filters.query else ""
    try:
        reply = session.call("GET", f"/v1/holds{query}")
    except Shown:
        return 0
    if options.has("json"):
        return output.show_answer(reply)
    rows = [*reply.members["holds"], *reply.members["waiting"]]
    fitting = [row for row in rows if filters.fit(row)]
    return output.show_rows(fitting, COLUMNS, "nobody holds anything")


def _state(row: dict[str, Any]) -> str:
    if row["state"] == "held" and not row["connected"]:
        return "held, away"
    return "held, exclusive" if row["exclusive"] and row["state"] == "held" else row["state"]


def _process(row: dict[str, Any]) -> str:
    return f"{row['by']['user']}, process {row['by']['pid']} on {row['host']}"


COLUMNS: output.Columns = {
    "ID": lambda row: row["id"],
    "DEVICE": lambda row: row["device"],
    "JOB": lambda row: output.job(row["job"]),
    "NAME": lambda row: output.name(row["name"]),
    "STATE": _state,
    "BY": _process,
    "SINCE": lambda row: output.age(row["since"]),
    "LABEL": lambda row: output.name(row["label"]),
}


def holder(row: dict[str, Any]) -> str:
    """Return in words what is held, and by whom."""
    names = (row["device"], row["job"], f"as {row['name']}" if row["name"] else None)
    what = ", ".join(name for name in names if name is not None)
    label = f" ({row['label']})" if row["label"] else ""
    return f"{what}, by {_process(row)}{label}"


def end(options: Options) -> int:
    hold_id = options.arguments[0]
    try:
        reply = Session(options).call("DELETE", f"/v1/holds/{_context.escape(hold_id)}")
    except Shown:
        return 0
    if options.has("json") or not output.for_people():
        return output.show_answer(reply)
    what = "hold" if reply.members["state"] == "held" else "wait"
    output.write(f"{what} {output.plain(hold_id)} ended")
    return 0


class Holders:
    """Find who holds which bucket now, for the list of buckets."""

    def __init__(self, session: Session) -> None:
        self._rows: dict[tuple[str, str | None], list[dict[str, Any]]] = {}
        try:
            rows = session.call("GET", "/v1/holds").members.get("holds", [])
        except NotFound:
            # An older daemon has no holds.
            rows = []
        for row in rows:
            self._rows.setdefault((row["device"], row["job"]), []).append(row)

    def __bool__(self) -> bool:
        return bool(self._rows)

    def describe(self, row: dict[str, Any]) -> str:
        """Return who holds a bucket, or its device, for its row in a table."""
        keys = dict.fromkeys([(row["device"], None), (row["device"], row["job"])])
        found = [hold for key in keys for hold in self._rows.get(key, [])]
        named = [f" as {hold['name']}" if hold["name"] else "" for hold in found]
        return "; ".join(_process(hold) + name for hold, name in zip(found, named)) or "-"
