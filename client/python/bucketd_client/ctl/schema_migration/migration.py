"""``bucketctl schema migrate``: change all buckets of an automation, and set its new schema.

Everything is computed and checked before the first change. Then a schema that allows both forms is
set, each bucket is changed by a compare-and-swap that is recorded before and after, and at last the
new schema is set. So after a kill at any point the same command continues, and at no point the
daemon refuses what it allowed before, unless the new schema refuses it as well.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from ..._errors import BucketError, error
from .. import filters, output, prompts
from ..inputs import parse_json, read_text
from ..json_diff import same
from ..migrate.transfer import name_of
from ..parser import Usage
from ..prompts import counted
from ..secret_values import SecretValues
from ..session import Session
from ..table.daily import Options
from . import transform
from .backup import Backup, envelope_of, pages, planned_in
from .plan import Computer, Plan, Refusal
from .record import CHANGED, FORMAT, REMOVED, SUFFIX, UNKNOWN, Key, Record
from .transition import InForce, Schemas, anything, both, id_of, mark_of
from .writer import Writer

# How often buckets are looked for that appear while the migration runs.
ROUNDS = 10
VIOLATION = 5
_AGAIN = "give the same command again to continue"


def migrate(options: Options) -> int:
    try:
        return Migration(options).run()
    finally:
        transform.end_all()


class Migration:
    """One command line, and the story of its migration."""

    def __init__(self, options: Options) -> None:
        path = options.get("to")
        if path is None:
            raise Usage("cannot migrate: give the new schema with --to NEW.json")
        self.options, self.automation = options, options.arguments[0]
        self.session = Session(options)
        self.transform = transform.chosen(self.session, self.automation)
        self.wanted = parse_json(read_text(path), f"what {path} holds")
        self.schemas = Schemas(self.session, self.automation)
        self.as_json = options.has("json") or not output.for_people()
        id = id_of(self.automation, self.wanted)
        given = options.get("backup") or f"bucketd-migration-{id}.ndjson"
        self.backup_path = os.path.abspath(given)
        self.head = {"format": FORMAT, "automation": self.automation, "id": id}
        self.mark = mark_of(id, self.backup_path)

    def run(self) -> int:
        """Return 0 if all buckets are migrated; else the exit status of the first refusal."""
        json_schema = self.schemas.checked(self.wanted)
        in_force = self.schemas.in_force()
        record = Record(self.backup_path + SUFFIX, self.head, keep=False)
        self._check_state(record, in_force)
        if record.finished:
            return self._nothing_left(record)
        secrets = SecretValues(in_force.json_schema, json_schema)
        new = (self.wanted, json_schema)
        computer = Computer(self.session, self.automation, self.transform, new, self._most_bytes())
        if record.planned is not None:
            computer.planned = planned_in(self.backup_path, record.planned)
        plan = Plan(secrets)
        plan.fill(self.session, self.automation, computer, _settled(record))
        if self.options.has("dry-run") or plan.refused or not self.as_json:
            self._show(plan)
        if plan.refused:
            return self._refuse(plan, record)
        if self.options.has("dry-run"):
            return plan.unreadable.status
        self._ask(plan, record)
        head = {**self.head, "schema": in_force.document}
        record = Record(self.backup_path + SUFFIX, head)
        try:
            return self._carry_out(plan, computer, record, in_force, json_schema)
        except (BucketError, Usage, OSError):
            # An error must not be told as one after everything was done.
            output.changed = False
            output.warn(f"the migration is not complete, {_AGAIN}; the cause:")
            raise

    # --- before the first change

    def _check_state(self, record: Record, in_force: InForce) -> None:
        """Raise Usage unless the schema in force belongs to this migration, or to none."""
        if in_force.mark is not None and in_force.mark != self.mark:
            raise Usage(
                f"cannot migrate: another migration has begun, see the $comment of its schema "
                f"({in_force.mark}); continue that one, with the same --to and --backup"
            )
        if in_force.mark is not None and not record.resumed:
            raise Usage(
                f"cannot continue the migration: {record.path} is missing, which says what "
                "is changed already; restore it, or go back to the backup by hand"
            )
        if not record.resumed and os.path.exists(self.backup_path):
            raise Usage(f"cannot write the backup: {self.backup_path} exists; name another file")
        if not record.resumed or in_force.mark is not None or record.finished:
            return
        expected = (record.head["schema"], self.wanted)
        if not any(same(in_force.document, document) for document in expected):
            raise Usage(
                f"cannot continue the migration: the schema of {self.automation} was changed "
                f"since; set the one in {record.path}, or the new one, and try again"
            )

    def _most_bytes(self) -> int | None:
        """Return the daemon's size limit of a bucket; None if this daemon does not tell."""
        settings = self.session.call("GET", "/v1/status").members.get("settings", {})
        value = settings.get("limits.max_bucket_bytes", {}).get("value")
        return value if isinstance(value, int) else None

    def _ask(self, plan: Plan, record: Record) -> None:
        verb = "go on to change" if record.resumed else "change"
        what = f"{verb} {counted(plan.changed, 'bucket')} and set the schema of {self.automation}"
        prompts.ask(self.options, what)

    def _refuse(self, plan: Plan, record: Record) -> int:
        count = counted(len(plan.refused), "bucket")
        done = "nothing more was changed" if record.resumed else "nothing was changed"
        output.warn(f"cannot migrate {self.automation}: {count} cannot be changed; {done}")
        plan.warn_of_refused()
        return plan.refused[0].status

    def _nothing_left(self, record: Record) -> int:
        output.warn(
            f"this migration is complete, its backup is {self.backup_path}; to change the buckets "
            "again, give --backup another file"
        )
        return self._summary(record, 0)

    def _show(self, plan: Plan) -> None:
        if self.as_json:
            output.show({"automation": self.automation, **plan.as_data()})
        else:
            plan.show()

    # --- the changes

    def _carry_out(
        self, plan: Plan, computer: Computer, record: Record, in_force: InForce, json_schema: Any
    ) -> int:
        backup = Backup(self.session, self.backup_path, record)
        computer.planned = backup.planned
        output.warn(f"the buckets as they were are in {self.backup_path}")
        # With the new schema in force already, only what was left is changed.
        if in_force.mark is None and not same(in_force.document, self.wanted):
            self._allow_both(in_force, json_schema)
        writer = Writer(self.session, computer, backup, record, plan.count + plan.before)
        writer.settle_all()
        self._change_all(writer, record)
        status = self._set_new(writer, record) if not writer.refused else 0
        return self._end(plan, writer, record, status)

    def _allow_both(self, in_force: InForce, json_schema: Any) -> None:
        if in_force.document is None:
            self.schemas.put(anything(self.mark))
            return
        # What the old schema tolerates, the alternative of both would refuse as a whole.
        document = None
        if not in_force.tolerates:
            document = both(in_force.json_schema, json_schema, self.mark)
        try:
            if document is not None:
                self.schemas.put(document, "?force=true")
                return
        except BucketError as problem:
            if problem.code not in ("invalid_request", "too_large"):
                raise
        output.warn(
            "the old schema (tolerate, or the same $id) and the new one cannot be combined, so the "
            "daemon allows any bucket until all are changed"
        )
        self.schemas.put(anything(self.mark))

    def _change_all(self, writer: Writer, record: Record) -> None:
        """Change all stored buckets, and those that appear meanwhile."""
        for _ in range(ROUNDS):
            before = len(record.outcomes)
            writer.change(self._rows(writer, record))
            if len(record.outcomes) == before:
                return

    def _rows(self, writer: Writer, record: Record) -> Iterator[dict[str, Any]]:
        """Yield the buckets without an outcome, or with that of a bucket that was removed."""
        for members in pages(self.session, "/v1/buckets", self.automation):
            for row in members["buckets"]:
                key = (row["device"], row["job"])
                outcome = record.outcomes.get(key)
                if key not in writer.refused and (outcome is None or outcome.what == REMOVED):
                    yield row

    def _set_new(self, writer: Writer, record: Record) -> int:
        """Set the new schema; return 5 if stored buckets violate it that were changed already."""
        for _ in range(ROUNDS):
            try:
                self.schemas.put(self.wanted)
                # A bucket may have been created between the daemon's check and the new schema.
                found = self.schemas.violations(self.wanted)
                if not found["count"]:
                    return 0
            except BucketError as problem:
                if problem.code != "schema_conflict":
                    raise
                found = {"details": problem.details}
            todo = self._changeable(found["details"], record)
            if not todo:
                self._warn_of_violations(found["details"])
                return VIOLATION
            writer.change(todo)
            if writer.refused:
                return 0
        raise error(
            "precondition_failed",
            f"cannot set the schema of {self.automation}: buckets in the old form go on to appear; "
            f"update what writes them, then {_AGAIN}",
        )

    def _changeable(self, details: list[Any], record: Record) -> list[dict[str, Any]]:
        """Return the buckets of violations that were created since their turn, as rows."""
        found = []
        for detail in details:
            key: Key = (detail["device"], detail["job"])
            envelope = envelope_of(self.session, key)
            outcome = record.outcomes.get(key)
            if envelope is not None and (
                outcome is None or outcome.created_at != envelope["created_at"]
            ):
                found.append(envelope)
        return found

    def _warn_of_violations(self, details: list[Any]) -> None:
        output.warn(
            f"cannot set the schema of {self.automation}: buckets were written since their change "
            f"that violate it; correct them (bucketctl edit), then {_AGAIN}"
        )
        for detail in details[: filters.PAGE]:
            output.warn(f"{detail['device']}, {detail['job']}", before="  ")

    # --- the end

    def _end(self, plan: Plan, writer: Writer, record: Record, status: int) -> int:
        unknown = [key for key, outcome in record.outcomes.items() if outcome.what == UNKNOWN]
        for key in unknown:
            output.warn(
                f"{name_of(key)}: the change was interrupted, and others have changed the same "
                f"keys since, so it is unknown whether it was made; compare it with the backup"
            )
        refusals: list[Refusal] = list(writer.refused.values())
        if refusals:
            what = f"{counted(len(refusals), 'bucket')} could not be changed, and the new schema "
            output.warn(f"{what}is not set; correct them, then {_AGAIN}")
            for refusal in refusals:
                output.warn(f"{name_of(refusal.key)}: {refusal.message}", before="  ")
        status = status or (refusals[0].status if refusals else 0)
        record.finish(not status and not plan.unreadable.status)
        return self._summary(record, status or plan.unreadable.status or int(bool(unknown)))

    def _summary(self, record: Record, status: int) -> int:
        whats = [outcome.what for outcome in record.outcomes.values()]
        counts = {"changed": whats.count(CHANGED), "unchanged": whats.count("same")}
        counts |= {"removed": whats.count(REMOVED), "unknown": whats.count(UNKNOWN)}
        if self.as_json:
            more: dict[str, object] = {"backup": self.backup_path, "state": record.path}
            names = {"automation": self.automation, "complete": record.finished}
            output.show_line({**names, **counts, **more})
        else:
            output.write(", ".join(f"{number} {what}" for what, number in counts.items()))
            if not status:
                output.write(f"the schema of {output.plain(self.automation)} is set")
        return status


def _settled(record: Record) -> list[Key]:
    """Return the buckets with an outcome, and those whose change may have been made."""
    return [*record.outcomes, *record.pending]
