"""The commands on schemas: set, get, list, remove, check."""

from __future__ import annotations

from ... import _api
from ..._context import escape
from .. import output
from ..filters import LeftOut
from ..inputs import read_bytes
from ..session import Session, Shown
from ..table.daily import Options

VIOLATION = 5
_QUERY = {"force": "force=true", "tolerate": "existing=tolerate"}


def put(options: Options) -> int:
    query = "&".join(query for name, query in _QUERY.items() if options.has(name))
    reply = _send(options, f"?{query}" if query else "")
    if reply is None:
        return 0
    if options.has("json") or not output.for_people():
        output.show_answer(reply)
    else:
        output.write(f"the schema of {output.plain(options.arguments[0])} is set")
        if options.has("tolerate") and (count := reply.members["count"]):
            output.write(f"{count} stored buckets violate it, which is tolerated:")
        _show_violations(reply)
    return _not_checked(reply)


def check(options: Options) -> int:
    reply = _send(options, "?dry_run=true")
    if reply is None:
        return 0
    count = int(reply.members["count"])
    status = _not_checked(reply)
    if options.has("json") or not output.for_people():
        output.show_answer(reply)
    elif count:
        output.write(f"{count} stored buckets violate it:")
        _show_violations(reply)
    elif status:
        output.write("no stored bucket that can be read violates it")
    else:
        output.write("no stored bucket violates it")
    return VIOLATION if count else status


def get(options: Options) -> int:
    reply = _call(options, "GET", _path(options))
    if reply is None:
        return 0
    if options.has("json"):
        return output.show_answer(reply)
    if reply.members.get("existing") == "tolerate":
        output.warn("this schema tolerates what stood before: bucketctl schema set --tolerate")
    return output.show(reply.members["schema"])


def remove(options: Options) -> int:
    reply = _call(options, "DELETE", _path(options))
    if reply is None:
        return 0
    if options.has("json") or not output.for_people():
        return output.show_answer(reply)
    output.write(f"the schema of {output.plain(options.arguments[0])} is removed")
    return 0


def show(options: Options) -> int:
    reply = _call(options, "GET", "/v1/schemas")
    if reply is None:
        return 0
    if options.has("json"):
        return output.show_answer(reply)
    return output.show_rows(reply.members["schemas"], COLUMNS, "no schemas")


COLUMNS: output.Columns = {
    "AUTOMATION": lambda row: row["automation"],
    "SOURCE": lambda row: row["source"],
    "FORM": lambda row: output.name(row["form"]),
    # A daemon of an older version does not say it, and refuses.
    "EXISTING": lambda row: row.get("existing", "refuse"),
    "PROBLEM": lambda row: output.name(row["problem"]),
}


def _not_checked(reply: _api.Reply) -> int:
    """Name the stored buckets that could not be checked; return 1 where there are any."""
    left_out = LeftOut()
    left_out.note(reply.members, "not checked")
    return left_out.status


def _show_violations(reply: _api.Reply) -> None:
    for bucket in reply.members["details"]:
        for wrong in bucket["violations"]:
            where = f"{bucket['device']}, {bucket['job']}"
            place = wrong["path"] or "the bucket"
            output.write(output.plain(f"  {where}: {place} {wrong['message']}"))


def _send(options: Options, query: str) -> _api.Reply | None:
    headers = {"Content-Type": _api.JSON}
    return _call(options, "PUT", _path(options) + query, headers, read_bytes(options.arguments[1]))


def _call(
    options: Options,
    method: str,
    target: str,
    headers: dict[str, str] | None = None,
    body: bytes | None = None,
) -> _api.Reply | None:
    """Return the response; None if a curl command was printed instead."""
    try:
        return Session(options).call(method, target, headers=headers, body=body)
    except Shown:
        return None


def _path(options: Options) -> str:
    return f"/v1/schemas/{escape(options.arguments[0])}"
