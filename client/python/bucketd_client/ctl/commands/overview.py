"""``bucketctl list``: all stored buckets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .. import filters, output
from ..bucket_query import MEMBERS, BucketQuery, value_cell
from ..parser import Usage
from ..session import Session, Shown
from ..table.daily import Options
from .holds import Holders


def show(options: Options) -> int:
    session, query = Session(options), BucketQuery(options)
    if query.given:
        return _show_selected(session, query)
    pages = filters.pages(session, "/v1/buckets", "buckets", filters.whole_number(options, "limit"))
    output.end_with_reader()
    left_out = filters.LeftOut()
    try:
        if options.has("json"):
            joined = filters.joined(pages, "buckets")
            output.show(joined)
            left_out.note(joined)
        else:
            columns = COLUMNS
            is_table = output.for_people() and not options.has("curl")
            if is_table and (holders := Holders(session)):
                columns = {**COLUMNS, "HELD BY": holders.describe}
            output.show_rows(filters.rows(pages, "buckets", left_out), columns, "no buckets")
    except Shown:
        return 0
    return left_out.status


def _show_selected(session: Session, query: BucketQuery) -> int:
    """Show the buckets that more than their names select, or in another order or form."""
    options, left_out, most = (
        session.options,
        filters.LeftOut(),
        filters.whole_number(session.options, "limit"),
    )
    if options.has("curl"):
        raise Usage(
            "cannot show a curl command for --where, --stale, --sort or --columns: they are more "
            "than one request; leave them out"
        )
    rows = query.rows(session, left_out)[:most]
    names = query.columns
    if names is not None and "held" in names:
        holders = Holders(session)
        rows = [{**row, "held_by": holders.describe(row)} for row in rows]
    if output.for_people() or output.form == "tsv":
        columns = COLUMNS if names is None else {n.upper(): _column(n) for n in names}
        output.show_rows(rows, columns, "no buckets")
    else:
        found = map(query.members, rows)
        if options.has("json"):
            output.show({"success": True, "buckets": list(found), "next_cursor": None})
        else:
            output.show_rows(found, COLUMNS, "no buckets")
    return left_out.status


def _column(name: str) -> Callable[[dict[str, Any]], str]:
    if name == "held":
        return lambda row: str(row["held_by"])
    return COLUMNS[name.upper()] if name in MEMBERS else value_cell(name)


COLUMNS: output.Columns = {
    "DEVICE": lambda row: row["device"],
    "JOB": lambda row: output.job(row["job"]),
    "AUTOMATION": lambda row: output.name(row["automation"]),
    "REVISION": lambda row: output.number(row["revision"]),
    "SIZE": lambda row: output.size(row["size"]),
    "UPDATED": lambda row: output.age(row["updated_at"], output.STALE_DAYS),
}
