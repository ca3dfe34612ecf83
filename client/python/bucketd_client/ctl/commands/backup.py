"""``bucketctl backup`` and ``restore``: all buckets and schemas, as files and back again."""

from __future__ import annotations

import json
import os
from datetime import datetime, timezone
from typing import Any

from ... import __version__, _api, _context
from ..._errors import NotFound
from .. import backups, json_diff, output, prompts
from ..archive import Envelope, Source
from ..filters import LeftOut, pages, whole_number
from ..progress import Progress
from ..prompts import counted
from ..session import Session
from ..table.daily import Options
from . import import_buckets
from .export import line_of, total

KEEP = 7
_JSON = {"Content-Type": _api.JSON}


def backup(options: Options) -> int:
    """Make a backup, remove those that are too many, and tell the daemon; 1 if one was left out."""
    home, keep = options.arguments[0], whole_number(options, "keep") or KEEP
    session, left_out = Session(options), LeftOut()
    with backups.new(home) as (name, part):
        files = {
            backups.BUCKETS: _write_buckets(session, part, left_out),
            backups.SCHEMAS: _write_schemas(session, part),
        }
        at = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        facts = {"at": at, "version": __version__, "left_out": left_out.count}
        backups.write_manifest(part, files, **facts)
    buckets, schemas = (files[file].lines for file in (backups.BUCKETS, backups.SCHEMAS))
    size = sum(file.bytes for file in files.values())
    _tell(session, {"buckets": buckets, "schemas": schemas, "bytes": size})
    kept = backups.keep_newest(home, keep)
    place = os.path.join(home, name)
    if options.has("json") or not output.for_people():
        counts = {"buckets": buckets, "schemas": schemas, "bytes": size}
        output.show({"path": place, **counts, "left_out": left_out.count, "kept": len(kept)})
    else:
        what = f"{counted(buckets, 'bucket')}, {counted(schemas, 'schema')}, {output.size(size)}"
        output.write(output.plain(f"{place}: {what}; {counted(len(kept), 'backup')} kept"))
    return left_out.status


def _write_buckets(session: Session, home: str, left_out: LeftOut) -> backups.Written:
    whole = total(session)
    with backups.line_file(home, backups.BUCKETS) as file, Progress("back up") as progress:
        for members in pages(session, "/v1/export", "envelopes"):
            for envelope in members["envelopes"]:
                file.write(line_of(envelope))
            progress.at(file.lines, file.lines / whole if whole else None)
            left_out.note(members)
        return file.written()


def _write_schemas(session: Session, home: str) -> backups.Written:
    """Write the schemas set through the API; those in files are settings, beside the others."""
    with backups.line_file(home, backups.SCHEMAS) as file:
        for row in session.call("GET", "/v1/schemas").members["schemas"]:
            if row["source"] == "api" and row["form"] is not None:
                found = session.call("GET", _schema(row["automation"])).members
                members = {name: found.get(name) for name in ("automation", "existing", "schema")}
                file.write(json.dumps(members, ensure_ascii=False).encode() + b"\n")
        return file.written()


def _schema(automation: str) -> str:
    return f"/v1/schemas/{_context.escape(automation)}"


def _tell(session: Session, counts: dict[str, int]) -> None:
    """Tell the daemon, whose status, metrics and doctor know the last backup."""
    try:
        session.call("PUT", "/v1/backup", headers=_JSON, body=_api.encode(counts))
    except NotFound:
        output.warn("the daemon is too old to note when its last backup was made")


class _Restorer(import_buckets.Importer):
    """Store buckets with the revisions and times that they had, whatever a schema says now."""

    def _target(self, scope: _context.Scope, envelope: Envelope) -> str:
        kept = [f"{name}={_context.escape(value)}" for name, value in envelope.kept.items()]
        return scope.target(more=kept)


def restore(options: Options) -> int:
    """Store the buckets of a backup and set its schemas; return the status of the first refusal."""
    home = options.arguments[0]
    manifest, dry_run = backups.checked(home), options.has("dry-run")
    session = Session(options)
    as_json = options.has("json") or not output.for_people()
    changed = [row for row in backups.schemas(home) if not _is_set(session, row)]
    if not dry_run:
        buckets = counted(manifest["files"][backups.BUCKETS]["lines"], "bucket")
        prompts.ask(options, f"store {buckets} and set {counted(len(changed), 'schema')}")
    importer = _Restorer(session, dry_run, as_json)
    source = Source(os.path.join(home, backups.BUCKETS))
    import_buckets.store(importer, source, "restore")
    # Afterwards, so that none refuses a bucket that it has tolerated before.
    for row in changed if not dry_run else []:
        query = "existing=tolerate" if row["existing"] == "tolerate" else "force=true"
        target = f"{_schema(row['automation'])}?{query}"
        session.call("PUT", target, headers=_JSON, body=_api.encode(row["schema"]))
    importer.show_counts(schemas=len(changed))
    return importer.status


def _is_set(session: Session, row: dict[str, Any]) -> bool:
    """Report whether a schema of the backup is in force, set through the API."""
    try:
        found = session.call("GET", _schema(row["automation"])).members
    except NotFound:
        return False
    same = json_diff.same(found["schema"], row["schema"])
    return same and found["source"] == "api" and found.get("existing") == row["existing"]
