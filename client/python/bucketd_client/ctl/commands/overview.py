"""``bucketctl list``: all stored buckets."""

from __future__ import annotations

from .. import filters, output
from ..session import Session, Shown
from ..table.daily import Options
from .holds import Holders


def show(options: Options) -> int:
    session = Session(options)
    pages = filters.pages(session, "/v1/buckets", "buckets", filters.limit(options))
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


COLUMNS: output.Columns = {
    "DEVICE": lambda row: row["device"],
    "JOB": lambda row: output.job(row["job"]),
    "AUTOMATION": lambda row: output.name(row["automation"]),
    "REVISION": lambda row: output.number(row["revision"]),
    "SIZE": lambda row: output.size(row["size"]),
    "UPDATED": lambda row: output.age(row["updated_at"], output.STALE_DAYS),
}
