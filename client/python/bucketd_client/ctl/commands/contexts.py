"""The commands on contexts: create, list, revoke."""

from __future__ import annotations

from ... import _api, _context
from ..._errors import InvalidRequest
from .. import output
from ..parser import Usage
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
    context_id = options.arguments[0]
    try:
        reply = Session(options).call("DELETE", f"/v1/contexts/{_context.escape(context_id)}")
    except Shown:
        return 0
    if options.has("json") or not output.for_people():
        return output.show_answer(reply)
    output.write(f"context {output.plain(context_id)} revoked")
    return 0
