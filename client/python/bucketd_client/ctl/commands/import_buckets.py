"""``bucketctl import``: store the buckets of an export. A second run changes nothing."""

from __future__ import annotations

import threading
from collections import Counter

from ... import _api, _context
from ..._errors import BucketCorrupt, BucketError, PreconditionFailed
from .. import json_diff, output
from ..archive import Envelope, Source
from ..parser import Usage
from ..preflight import rebinding
from ..progress import Progress
from ..prompts import counted
from ..refusals import status_of
from ..session import NEWEST, Session
from ..table.daily import Options
from ..thread_pool import ThreadPool

# Errors of one bucket, after which the others are still tried.
OF_ONE = {"schema_violation", "too_large", "invalid_request", "invalid_json", "bucket_corrupt"}
Outcome = tuple[str, list[json_diff.Change]]
OUTCOMES = ("created", "changed", "unchanged", "refused")


class Importer:
    """Store buckets from several threads, and count the outcomes."""

    def __init__(self, session: Session, dry_run: bool, as_json: bool) -> None:
        self.counts = Counter(dict.fromkeys(OUTCOMES, 0))
        # The exit status of the first error.
        self.status = 0
        self._session, self._dry_run, self._as_json = session, dry_run, as_json
        self._lock = threading.Lock()

    @property
    def done(self) -> int:
        return sum(self.counts.values())

    @property
    def stored(self) -> int:
        return 0 if self._dry_run else self.counts["created"] + self.counts["changed"]

    def take(self, envelope: Envelope) -> None:
        try:
            outcome, found = self._put(envelope)
        except BucketError as problem:
            if problem.code not in OF_ONE:
                raise
            self.refuse(f"{envelope.where} ({envelope.name}): {problem.message}", problem)
            return
        with self._lock:
            self.counts[outcome] += 1
            if self._dry_run and outcome != "unchanged":
                _show(envelope, outcome, found, self._as_json)

    def refuse(self, message: str, problem: BucketError | None = None) -> None:
        with self._lock:
            self.counts["refused"] += 1
            self.status = self.status or (2 if problem is None else status_of(problem))
            output.warn(message)

    def _put(self, envelope: Envelope) -> Outcome:
        scope = _context.named(envelope.device, envelope.job, envelope.automation, False)
        if not self._dry_run:
            try:
                self._write(scope, envelope, {"If-None-Match": "*"})
                return "created", []
            except (PreconditionFailed, BucketCorrupt):
                # A bucket exists already.
                pass
        outcome, found = self._compared(scope, envelope)
        if outcome != "unchanged" and not self._dry_run:
            self._write(scope, envelope, {})
        return outcome, found

    def _compared(self, scope: _context.Scope, envelope: Envelope) -> Outcome:
        wanted = envelope.bucket
        try:
            reply = self._session.call("GET", scope.target(), headers=NEWEST)
        # The daemon keeps the unreadable file in its quarantine.
        except BucketCorrupt:
            return "changed", list(json_diff.changes({}, wanted))
        found = list(json_diff.changes(reply.members[scope.label], wanted))
        if reply.etag is None:
            return "created", found
        found = found or rebinding(self._session, envelope)
        return "changed" if found else "unchanged", found

    def _write(self, scope: _context.Scope, envelope: Envelope, guard: dict[str, str]) -> None:
        headers = {**guard, "Content-Type": _api.JSON}
        body, target = _api.encode(envelope.bucket), self._target(scope, envelope)
        self._session.call("PUT", target, headers=headers, body=body)

    def _target(self, scope: _context.Scope, _envelope: Envelope) -> str:
        """Return where to put a bucket, with a new revision and new times."""
        return scope.target()

    def show_counts(self, **more: int) -> None:
        """Show what was done, or with a dry run would be."""
        counts = {**{outcome: self.counts[outcome] for outcome in OUTCOMES}, **more}
        if not self._as_json:
            would = "would be " if self._dry_run else ""
            output.write(", ".join(f"{count} {would}{what}" for what, count in counts.items()))
        else:
            output.show_line(counts)


def import_(options: Options) -> int:
    """Store all buckets; return the exit status of the first refusal, or 0."""
    source = Source(options.arguments[0] if options.arguments else "-")
    session, dry_run = Session(options), options.has("dry-run")
    as_json = options.has("json") or not output.for_people()
    importer = Importer(session, dry_run, as_json)
    store(importer, source, "import")
    importer.show_counts()
    return importer.status


def store(importer: Importer, source: Source, what: str) -> None:
    """Store all buckets of a source; one that is refused is named, and counted."""
    pool = ThreadPool(importer.take)
    try:
        with Progress(what) as progress:
            for envelope in source.envelopes():
                if isinstance(envelope, Usage):
                    importer.refuse(str(envelope))
                else:
                    pool.put((envelope.device, envelope.job), envelope)
                progress.at(importer.done, source.part)
            pool.finish()
    except (BucketError, Usage):
        # Other buckets may have been stored before the error.
        if made := importer.stored:
            output.warn(f"{counted(made, 'bucket')} stored, then:")
        raise


def _show(envelope: Envelope, outcome: str, found: list[json_diff.Change], as_json: bool) -> None:
    """Show names and places without values, which may be secrets."""
    places = [change.path for change in found]
    if not as_json:
        sign = "+" if outcome == "created" else "~"
        output.write(output.plain(f"{sign} {envelope.name}: {', '.join(places)}"))
    else:
        names = {"device": envelope.device, "job": envelope.job}
        output.show_line({**names, "change": outcome, "places": places})
