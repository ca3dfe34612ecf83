"""Plan a migration: the new state of each bucket, checked by the new schema."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, TypeVar

from ..._errors import ConnectionLost, Timeout
from .. import colours, filters, json_diff, output
from ..migrate.transfer import name_of
from ..preflight import Coming, check_bucket
from ..progress import Progress
from ..prompts import counted
from ..secret_values import SecretValues
from ..session import Session
from ..thread_pool import ThreadPool
from .backup import pages
from .record import Key
from .resources import resource
from .transform import Bucket, Refused, Transform

# How many buckets are shown with their changes, and how many refused ones are named.
SHOWN = 3
NAMED = 20
# The states that one request checks.
BATCH, BATCH_BYTES = 100, 256 * 1024
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


class State(NamedTuple):
    """The new state of a bucket, with a digest of the old one. ``is_valid``: it is checked."""

    key: Key
    digest: bytes
    after: Bucket
    size: int
    is_valid: bool


class Computer:
    """Compute the new state of a bucket, and have the daemon check it by the new schema.

    ``planned`` has the buckets that existed when the migration began, with their times of creation;
    it is None before that. Whoever creates a bucket later may know the new form, so a later one
    that the new schema allows stays as it is.
    """

    def __init__(
        self,
        session: Session,
        automation: str,
        transform: Transform,
        schemas: tuple[Any, Any],
        most: int | None,
    ) -> None:
        """Take the new schema as it was given, and as JSON Schema."""
        self._session, self._automation = session, automation
        self._transform, self._most = transform, most
        self._schema, self._resource = schemas[0], resource(schemas[1], "bucket")
        self.planned: dict[Key, str | None] | None = None
        # By bucket: a digest of the old state, and the new one, which is known to be valid.
        self._kept: dict[Key, tuple[bytes, Bucket]] = {}
        self._size = 0
        self._lock = threading.Lock()

    def after(self, key: Key, created_at: str | None, before: Bucket) -> Bucket:
        """Return the new state. Raises Refused if there is none, or none that is valid."""
        state = self.compute(key, created_at, before)
        if found := self.refused([state]):
            raise Refused(found[0].message, found[0].status)
        return state.after

    def compute(self, key: Key, created_at: str | None, before: Bucket) -> State:
        """Return the new state, which may not be checked. Raises Refused if there is none."""
        is_later = self.planned is not None and self.planned.get(key, "") != created_at
        if is_later and not self._violations(before):
            return State(key, b"", before, 0, is_valid=True)
        digest = hashlib.sha256(_compact(before)).digest()
        kept = self._kept.get(key)
        if kept is not None and kept[0] == digest:
            return State(key, digest, kept[1], 0, is_valid=True)
        after = self._transform(key, before)
        size = len(_compact(after))
        if self._most is not None and size > self._most:
            raise Refused(f"it would have {size} bytes, allowed are {self._most}")
        return State(key, digest, after, size, is_valid=False)

    def refused(self, states: list[State]) -> list[Refusal]:
        """Check new states by the new schema, all in one request where that allows them."""
        unchecked = [state for state in states if not state.is_valid]
        found = []
        if len(unchecked) < 2 or not self._are_all_valid(unchecked):
            for state in unchecked:
                if message := self._violations(state.after):
                    found.append(Refusal(state.key, message, VIOLATION))
        wrong = {refusal.key for refusal in found}
        with self._lock:
            for state in unchecked:
                if state.key not in wrong and self._size + state.size <= MAX_KEPT:
                    self._size += state.size
                    self._kept[state.key] = (state.digest, state.after)
        return found

    def _are_all_valid(self, states: list[State]) -> bool:
        """Report whether the new schema allows all of these, as the values of one object."""
        bucket = {str(number): state.after for number, state in enumerate(states)}
        return not self._violations(bucket, {"additionalProperties": self._resource})

    def _violations(self, bucket: Bucket, schema: Any = None) -> str:
        """Return what the new schema refuses in a bucket; empty if it allows the bucket."""
        wanted = Coming(self._schema if schema is None else schema, tolerates=False)
        coming = {self._automation: wanted}
        found = repeated(
            lambda: check_bucket(self._session, self._automation, bucket, None, coming)
        )
        # A request that is too large tells nothing of its buckets.
        unchecked = found.unchecked if schema is not None else None
        return "; ".join(found.refused) or unchecked or ""


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
            for members in pages(session, "/v1/export", automation):
                self.unreadable.note(members, "left alone")
                envelopes = [e for e in members["envelopes"] if key_of(e) not in skipped]
                self.before += len(members["envelopes"]) - len(envelopes)
                self._add(envelopes, computer)
                count = self.count + self.before
                progress.at(count, count / total if total else None)

    def _add(self, envelopes: list[dict[str, Any]], computer: Computer) -> None:
        """Add the buckets of one page."""
        states: dict[Key, State] = {}

        def compute(envelope: dict[str, Any]) -> None:
            key = key_of(envelope)
            try:
                states[key] = computer.compute(key, envelope["created_at"], envelope["bucket"])
            except Refused as problem:
                refuse([Refusal(key, str(problem), problem.status)])

        def refuse(found: list[Refusal]) -> None:
            with self._lock:
                self.refused += found

        each(compute, envelopes, key_of)
        each(lambda batch: refuse(computer.refused(batch)), _batches(states.values()), id)
        wrong = {refusal.key for refusal in self.refused}
        for envelope in envelopes:
            key = key_of(envelope)
            if key not in wrong:
                self._count(key, envelope["bucket"], states[key].after)

    def _count(self, key: Key, before: Bucket, after: Bucket) -> None:
        found = list(json_diff.changes(before, after))
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


def _batches(states: Iterable[State]) -> Iterator[list[State]]:
    """Yield the states in batches that one request can hold."""
    batch: list[State] = []
    size = 0
    for state in states:
        if batch and (size + state.size > BATCH_BYTES or len(batch) == BATCH):
            yield batch
            batch, size = [], 0
        batch.append(state)
        size += state.size
    if batch:
        yield batch


def key_of(envelope: dict[str, Any]) -> Key:
    return envelope["device"], envelope["job"]


def each(work: Callable[[T], None], items: Iterable[T], key: Callable[[T], object]) -> None:
    """Call ``work`` with each item, on several threads."""
    pool: ThreadPool[T] = ThreadPool(work)
    for item in items:
        pool.put(key(item), item)
    pool.finish()


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
