"""The commands on the quarantine: list, show, drop."""

from __future__ import annotations

import base64

from ... import _context
from .. import output, prompts
from ..parser import Usage
from ..prompts import counted
from ..session import Session, Shown
from ..table.daily import Options

HIDDEN = "the content may have secrets, so a terminal shows it only with --reveal"


def show_all(options: Options) -> int:
    try:
        reply = Session(options).call("GET", "/v1/quarantine")
    except Shown:
        return 0
    if options.has("json"):
        return output.show_answer(reply)
    return output.show_rows(reply.members["quarantine"], COLUMNS, "the quarantine is empty")


COLUMNS: output.Columns = {
    "ID": lambda row: row["id"],
    "KIND": lambda row: row["kind"],
    "SIZE": lambda row: output.size(row["size"]),
    "KEPT": lambda row: output.age(row["kept_at"]),
}


def show(options: Options) -> int:
    """Write the content of an entry, byte for byte; a terminal shows it as text."""
    try:
        reply = Session(options).call("GET", _target(options.arguments[0]))
    except Shown:
        return 0
    members, hidden = reply.members, output.on_terminal() and not options.has("reveal")
    if options.has("json") or output.form:
        return output.show({**members, **({"text": None, "base64": None} if hidden else {})})
    if members["kind"] != "file":
        raise Usage(f"cannot show {members['id']}: it is no file; look into <state>/quarantine")
    if hidden:
        output.write(f"{output.size(members['size'])}, kept {output.age(members['kept_at'])}")
        output.warn(HIDDEN)
        return 0
    text = members["text"]
    content = base64.b64decode(members["base64"]) if text is None else text.encode()
    if not output.on_terminal():
        output.put(content, flush=True)
        return 0
    for line in content.decode(errors="backslashreplace").splitlines():
        output.write(output.plain(line))
    return 0


def drop(options: Options) -> int:
    """Remove entries for good, which nobody can take back, so it asks."""
    session, names = Session(options), list(dict.fromkeys(options.arguments))
    found = {row["id"]: row for row in session.call("GET", "/v1/quarantine").members["quarantine"]}
    if options.has("all") == bool(names):
        raise Usage("cannot drop: give either the ids that quarantine list shows, or --all")
    if unknown := [name for name in names if name not in found]:
        raise Usage(f"cannot drop {unknown[0]}: there is no such entry; see quarantine list")
    wanted = list(found) if options.has("all") else names
    if options.has("dry-run"):
        return output.show_rows([found[name] for name in wanted], COLUMNS, "nothing to drop")
    if wanted:
        what = f"remove {len(wanted)} of {counted(len(found), 'file')} in the quarantine for good"
        prompts.ask(options, what)
    for name in wanted:
        session.call("DELETE", _target(name))
    if options.has("json") or not output.for_people():
        return output.show({"dropped": len(wanted)})
    output.write(f"{len(wanted)} dropped")
    return 0


def _target(name: str) -> str:
    return f"/v1/quarantine/{_context.escape(name)}"
