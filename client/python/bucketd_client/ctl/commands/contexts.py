"""The commands on contexts: create, list, revoke."""

from __future__ import annotations

from contextlib import suppress

from ... import _api, _context
from ..._errors import InvalidRequest, NotFound
from .. import output, prompts
from ..filters import Filters
from ..parser import Usage
from ..prompts import counted
from ..session import Session, Shown, seconds
from ..table.daily import Options


def mint(session: Session, label: str | None = None) -> _api.Reply:
    """Create a context for the names given, with ``--label`` or else this label."""
    options = session.options
    device = options.get("device")
    if device is None:
        raise Usage("cannot create a context: name its device with --device D (and --job J)")
    names = {name: options.get(name) for name in ("device", "job", "automation")}
    body = {**names, "ttl_seconds": seconds(options, "ttl"), "label": options.get("label", label)}
    given = {name: value for name, value in body.items() if value is not None}
    try:
        return _create(session, given)
    except InvalidRequest:
        if label is None or options.has("label"):
            raise
        # A daemon of an earlier version has no labels, and nobody has asked for this one.
        del given["label"]
        return _create(session, given)


def _create(session: Session, body: dict[str, str | float]) -> _api.Reply:
    headers = {"Content-Type": _api.JSON}
    return session.call("POST", "/v1/contexts", headers=headers, body=_api.encode(body))


def create(options: Options) -> int:
    try:
        reply = mint(Session(options))
    except Shown:
        return 0
    if options.has("json") or not output.for_people():
        return output.show_answer(reply)
    members = reply.members
    where = ", ".join(f"{n} {output.plain(members[n])}" for n in _NAMES if members.get(n))
    output.write(f"context {members['id']} for {where}, until {members['expires_at']}")
    output.write(f"export BUCKETD_TOKEN={members['token']}")
    return 0


_NAMES = ("device", "job", "automation", "label")


def show(options: Options) -> int:
    try:
        reply = Session(options).call("GET", "/v1/contexts")
    except Shown:
        return 0
    if options.has("json"):
        return output.show_answer(reply)
    return output.show_rows(reply.members["contexts"], COLUMNS, "no contexts")


COLUMNS: output.Columns = {
    "ID": lambda row: row["id"],
    "DEVICE": lambda row: row["device"],
    "JOB": lambda row: output.name(row["job"]),
    "AUTOMATION": lambda row: output.name(row["automation"]),
    # A daemon of an earlier version has no labels.
    "LABEL": lambda row: output.name(row.get("label")),
    "CREATED": lambda row: output.age(row["created_at"]),
    "EXPIRES": lambda row: output.age(row["expires_at"]),
}


def revoke(options: Options) -> int:
    if options.has("device"):
        return _revoke_all(options)
    if not options.arguments or options.has("job") or options.has("dry-run"):
        raise Usage("cannot revoke: give the ID of a context, or --device D (and --job J)")
    context_id = options.arguments[0]
    try:
        reply = Session(options).call("DELETE", f"/v1/contexts/{_context.escape(context_id)}")
    except Shown:
        return 0
    if options.has("json") or not output.for_people():
        return output.show_answer(reply)
    output.write(f"context {output.plain(context_id)} revoked")
    return 0


def _revoke_all(options: Options) -> int:
    """End all contexts of the devices, and jobs, that are named or match."""
    if options.arguments or options.has("curl"):
        raise Usage("cannot revoke by --device with an ID or with --curl; leave that out")
    session = Session(options)
    names = Filters(session)
    rows = session.call("GET", "/v1/contexts").members["contexts"]
    wanted = [row for row in rows if names.select(row)]
    if options.has("dry-run"):
        return output.show_rows(wanted, COLUMNS, "no contexts")
    if wanted:
        prompts.ask(options, f"revoke {counted(len(wanted), 'context')}")
    for row in wanted:
        # One that has expired meanwhile is gone as well.
        with suppress(NotFound):
            session.call("DELETE", f"/v1/contexts/{row['id']}")
    if options.has("json") or not output.for_people():
        return output.show({"revoked": len(wanted)})
    output.write(f"{counted(len(wanted), 'context')} revoked")
    return 0
