"""``bucketctl migrate``: copy all buckets to a daemon on another engine, while both are in use."""

from __future__ import annotations

from typing import Any

from ... import _api, _context
from ..._errors import BucketError
from .. import output
from ..json_diff import same
from ..parser import Usage
from ..prompts import counted
from ..session import Session
from ..table.daily import Options
from .state_file import StateFile
from .transfer import Plan, Transfer, name_of
from .verify import Verified

ENGINES = ("file", "etcd")
# The ``source`` of a schema that was set through the API.
OWN = "api"


def migrate(options: Options) -> int:
    """Return 0 if both hold the same buckets; else 1, or the exit status of the first error."""
    source, target = _sides(options)
    if options.has("dry-run"):
        return _show_plan(
            options, Transfer(source, target, StateFile(options.get("note"), keep=False))
        )
    move = Transfer(source, target, StateFile(options.get("note")))
    plan = _copy_all(move)
    verified = Verified(move, plan.newer)
    differ = verified.differing(move.devices if options.has("quick") else None)
    plan = move.plan()
    schemas, kept = _copy_schemas(source, target)
    _warn_of_differences(plan, verified, kept)
    found: dict[str, Any] = {**move.counts, "refused": len(move.refused), "newer": len(plan.newer)}
    found |= {"pending": plan.size, "schemas": schemas, "verified": verified.count - len(differ)}
    found |= {"differing": len(differ), "checksum": verified.checksum(verified.here)}
    found["checksum_there"] = verified.checksum(verified.there)
    _summary(options, found)
    wrong = differ or plan.size or move.left_out.count
    return move.status or int(bool(wrong))


def _copy_all(move: Transfer) -> Plan:
    """Copy all buckets that differ; after a failure, report how many were copied."""
    try:
        return move.copy_all()
    except BucketError:
        if made := sum(move.counts.values()):
            output.warn(f"{counted(made, 'bucket')} copied or removed, then:")
        raise


def _sides(options: Options) -> tuple[Session, Session]:
    """Return the sessions of both daemons. Raises Usage if they have other engines."""
    engines, there = (options.get("from"), options.get("to")), options.get("to-socket")
    if sorted(map(str, engines)) != sorted(ENGINES):
        raise Usage("cannot migrate: give --from file --to etcd, or --from etcd --to file")
    if there is None:
        raise Usage("cannot migrate: name the socket of the daemon to copy to with --to-socket")
    source = Session(options)
    target = Session(
        Options({**options.given, "socket": there}, options.arguments, options.command)
    )
    for session, engine in zip((source, target), engines):
        found = session.call("GET", "/v1/status").members["store"]["engine"]
        if found != engine:
            raise Usage(
                f"cannot migrate: the daemon at {session.path} is on {found}, not on {engine}; "
                "--socket is the daemon to copy from, --to-socket the one to copy to"
            )
    return source, target


def _copy_schemas(source: Session, target: Session) -> tuple[int, list[str]]:
    """Copy schemas set through the API; return their number, and those that the target keeps."""
    count, kept = 0, []
    for row in source.call("GET", "/v1/schemas").members["schemas"]:
        if row["source"] != OWN or row["problem"]:
            continue
        path = f"/v1/schemas/{_context.escape(row['automation'])}"
        wanted = _schema_at(source, path)
        if wanted is None:
            # It was removed meanwhile.
            continue
        stored = _schema_at(target, path)
        if stored is None:
            headers = {"Content-Type": _api.JSON}
            schema, tolerates = wanted
            # The source has buckets that violate the schema, and they have been copied.
            query = "?existing=tolerate" if tolerates else "?force=true"
            target.call("PUT", path + query, headers=headers, body=_api.encode(schema))
            count += 1
        elif not (same(stored[0], wanted[0]) and stored[1] == wanted[1]):
            kept.append(row["automation"])
    return count, kept


def _schema_at(session: Session, path: str) -> tuple[Any, bool] | None:
    """Return a schema, and whether it tolerates what stood before; None if there is none."""
    try:
        found = session.call("GET", path).members
        # A daemon of an older version does not say the mode, and refuses.
        return found["schema"], found.get("existing") == "tolerate"
    except BucketError as problem:
        if problem.code != "not_found":
            raise
        return None


def _warn_of_differences(plan: Plan, verified: Verified, kept: list[str]) -> None:
    """Warn of all differences that remain, with how to fix them."""
    for key in plan.newer:
        output.warn(f"{name_of(key)}: the target's bucket was written later, so it stays")
    for key in verified.mismatched(plan):
        output.warn(
            f"{name_of(key)}: its checksum on the target is not that of the copy; find out what "
            "else writes to the target, remove the bucket there, and run this again"
        )
    for automation in kept:
        output.warn(f"the target has another schema of {automation}, which stays; set the right")
    if plan.size:
        output.warn(
            f"{counted(plan.size, 'bucket')} changed meanwhile: run this again without writers"
        )


def _show_plan(options: Options, move: Transfer) -> int:
    """Show names without values, which may be secrets."""
    plan = move.plan()
    signs = {
        key: "+" if held is None else "~"
        for keys in plan.put.values()
        for key, held in keys.items()
    }
    signs |= dict.fromkeys(plan.remove, "-") | dict.fromkeys(plan.newer, "!")
    if options.has("json") or not output.for_people():
        for key, sign in signs.items():
            output.show_line({"device": key[0], "job": key[1], "change": _WORDS[sign]})
    else:
        for key, sign in signs.items():
            output.write(output.plain(f"{sign} {name_of(key)}"))
    counts = {word: sum(sign == its for its in signs.values()) for sign, word in _WORDS.items()}
    _summary(options, {**counts, "unchanged": plan.equal})
    return move.left_out.status


_WORDS = {"+": "created", "~": "replaced", "-": "removed", "!": "newer"}


def _summary(options: Options, found: dict[str, Any]) -> None:
    if options.has("json") or not output.for_people():
        output.show_line(found)
        return
    numbers = {what: number for what, number in found.items() if "checksum" not in what}
    output.write(", ".join(f"{number} {what}" for what, number in numbers.items()))
    if "checksum" in found:
        here, there = found["checksum"], found["checksum_there"]
        output.write(f"SHA-256 of all: {here}" + ("" if here == there else f", there {there}"))
