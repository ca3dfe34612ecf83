"""What a migration would do: the new state of each bucket, checked by the new schema."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeVar

from ..._errors import ConnectionLost, Timeout
from .. import colours, filters, json_diff, output
from ..migrate.transfer import name_of
from ..preflight import check_bucket
from ..progress import Progress
from ..prompts import counted
from ..secret_values import SecretValues
from ..session import Session
from ..thread_pool import ThreadPool
from .backup import envelopes, pages
from .record import Key
from .transform import Bucket, Refused, Transform

# How many buckets are shown with their changes, and how many refused ones are named.
SHOWN = 3
NAMED = 20
# Bytes of new states that are kept, so that they need not be computed again.
MAX_KEPT = 64 * 1024 * 1024
TRIES = 3
VIOLATION = 5
T = TypeVar("T")


class Refusal(NamedTuple):
    """A bucket that cannot be migrated, and why."""

    key: Key
    message: str
    status: int

    def as_data(self) -> dict[str, Any]:
        return {"device": self.key[0], "job": self.key[1], "problem": self.message}


class Computer:
    """Compute the new state of a bucket, and have the daemon check it by the new schema.

    ``planned`` has the buckets that existed when the migration began, with their times of creation;
    it is None before that. Whoever creates a bucket later may know the new form, so a later one
    that the new schema allows stays as it is.
    """

    def __init__(
        self, session: Session, automation: str, transform: Transform, schema: Any, most: int | None
    ) -> None:
        self._session, self._automation = session, automation
        self._transform, self._schema, self._most = transform, schema, most
        self.planned: dict[Key, str | None] | None = None
        # By bucket: a digest of the old state, and the new one, which is known to be valid.
        self._kept: dict[Key, tuple[bytes, Bucket]] = {}
        self._size = 0
        self._lock = threading.Lock()

    def after(self, key: Key, created_at: str | None, before: Bucket) -> Bucket:
        """Return the new state. Raises Refused if there is none, or none that is valid."""
        is_later = self.planned is not None and self.planned.get(key, "") != created_at
        if is_later and not self.violations(before):
            return before
        digest = hashlib.sha256(_compact(before)).digest()
        kept = self._kept.get(key)
        if kept is not None and kept[0] == digest:
            return kept[1]
        after = self._transform(key, before)
        size = len(_compact(after))
        if self._most is not None and size > self._most:
            raise Refused(f"it would have {size} bytes, allowed are {self._most}")
        if found := self.violations(after):
            raise Refused(found, VIOLATION)
        with self._lock:
            if self._size + size <= MAX_KEPT:
                self._size += size
                self._kept[key] = (digest, after)
        return after

    def violations(self, bucket: Bucket) -> str:
        """Return what the new schema refuses in a bucket; empty if it allows the bucket."""
        schema = {self._automation: self._schema}
        found = repeated(lambda: check_bucket(self._session, self._automation, bucket, schema))
        return "; ".join(found.refused)


class Plan:
    """The numbers of buckets by what becomes of them, and examples of the changes."""

    def __init__(self, secrets: SecretValues) -> None:
        self.changed = self.same = self.before = 0
        self.refused: list[Refusal] = []
        self.unreadable = filters.LeftOut()
        self._examples: dict[Key, list[json_diff.Change]] = {}
        self._secrets = secrets
        self._lock = threading.Lock()

    @property
    def count(self) -> int:
        return self.changed + self.same + len(self.refused)

    def fill(
        self, session: Session, automation: str, computer: Computer, done: Iterable[Key]
    ) -> None:
        """Compute the new state of each stored bucket but those that are done."""
        skipped, total = set(done), 0
        for members in pages(session, "/v1/buckets", automation):
            total += len(members["buckets"])
        with Progress("plan") as progress:

            def compute(envelope: dict[str, Any]) -> None:
                key = (envelope["device"], envelope["job"])
                self._add(key, envelope, computer)
                with self._lock:
                    done = self.count + self.before
                    progress.at(done, done / total if total else None)

            pool: ThreadPool[dict[str, Any]] = ThreadPool(compute)
            for envelope in envelopes(session, automation, self._note_unreadable):
                key = (envelope["device"], envelope["job"])
                if key in skipped:
                    self.before += 1
                else:
                    pool.put(key, envelope)
            pool.finish()

    def _note_unreadable(self, members: dict[str, Any]) -> None:
        self.unreadable.note(members, "left alone")

    def _add(self, key: Key, envelope: dict[str, Any], computer: Computer) -> None:
        before = envelope["bucket"]
        try:
            after = computer.after(key, envelope["created_at"], before)
        except Refused as problem:
            with self._lock:
                self.refused.append(Refusal(key, str(problem), problem.status))
            return
        found = list(json_diff.changes(before, after))
        with self._lock:
            self.changed += bool(found)
            self.same += not found
            if found and len(self._examples) < SHOWN:
                self._examples[key] = [self._secrets.masked(change) for change in found]

    def counts(self) -> dict[str, int]:
        counts = {"changed": self.changed, "unchanged": self.same, "refused": len(self.refused)}
        return {**counts, "done_before": self.before} if self.before else counts

    def as_data(self) -> dict[str, Any]:
        examples = [
            {"device": key[0], "job": key[1], "changes": json_diff.as_data(found)}
            for key, found in self._examples.items()
        ]
        refused = [refusal.as_data() for refusal in self.refused[:NAMED]]
        return {**self.counts(), "examples": examples, "problems": refused}

    def show(self) -> None:
        """Show the changes of a few buckets, and the numbers of all."""
        for key, found in self._examples.items():
            output.write(colours.paint(output.plain(f"~ {name_of(key)}"), colours.BOLD))
            for line in json_diff.lines(found):
                output.write(f"  {line}")
        if self.changed > len(self._examples):
            output.write(f"… and {counted(self.changed - len(self._examples), 'bucket')} more")
        numbers = [f"{number} {what.replace('_', ' ')}" for what, number in self.counts().items()]
        output.write(", ".join(numbers))

    def warn_of_refused(self) -> None:
        for refusal in self.refused[:NAMED]:
            output.warn(f"{name_of(refusal.key)}: {refusal.message}", before="  ")
        if len(self.refused) > NAMED:
            output.warn(f"and {counted(len(self.refused) - NAMED, 'bucket')} more", before="  ")


def repeated(call: Callable[[], T]) -> T:
    """Return what a call that changes nothing returns, also if a daemon restarts meanwhile."""
    for _ in range(TRIES - 1):
        try:
            return call()
        except (ConnectionLost, Timeout):
            pass
    return call()


def _compact(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
