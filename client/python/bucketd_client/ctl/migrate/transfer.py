"""Copy the buckets of one daemon to another while both are in use, until both hold the same.

The lists of both daemons are compared, and buckets that differ in revision or times are copied,
until none differs. So an interrupted run needs no record: the next run copies the rest.
"""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

from ... import _api, _context
from ..._errors import BucketError, PreconditionFailed
from .. import filters, json_diff, output
from ..commands.import_buckets import OF_ONE
from ..progress import Progress
from ..refusals import status_of
from ..session import NEWEST, Session
from ..thread_pool import ThreadPool
from .state_file import Key, StateFile

# The limit of rounds; under steady writes some buckets always differ.
ROUNDS = 10
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", re.ASCII)
# The time of a bucket whose file was written by hand without a time.
EPOCH = "1970-01-01T00:00:00.000Z"


class Row(NamedTuple):
    """A bucket in a list; equal rows mean that both sides hold the same state."""

    revision: int
    updated_at: str
    size: int
    automation: str | None


class Plan(NamedTuple):
    """The differences. ``put``: by device, the buckets to copy, with the target's rows, if any."""

    put: dict[str, dict[Key, Row | None]]
    remove: dict[Key, Row]
    newer: list[Key]
    equal: int

    @property
    def size(self) -> int:
        return sum(map(len, self.put.values())) + len(self.remove)


class Transfer:
    """Copy from one daemon to another; count the copies, and report failures."""

    def __init__(self, source: Session, target: Session, note: StateFile) -> None:
        self.source, self.target, self.note = source, target, note
        self.counts: Counter[str] = Counter(carried=0, again=0, removed=0)
        self.refused: dict[Key, str] = {}
        self.left_out = filters.LeftOut()
        # The exit status of the first error.
        self.status = 0
        # The devices with copied buckets.
        self.devices: set[str] = set()
        self._same: dict[Key, tuple[Row, Row | None]] = {}
        self._copied: set[Key] = set()
        self._lock = threading.Lock()

    def plan(self) -> Plan:
        there, _ = self._rows(self.target)
        here, is_complete = self._rows(self.source)
        plan = Plan({}, {}, [], 0)
        for key, row in here.items():
            held = there.get(key)
            if held == row or self._same.get(key) == (row, held):
                plan = plan._replace(equal=plan.equal + 1)
            elif (
                held is not None
                and held.updated_at > row.updated_at
                and not self._is_unchanged_copy(key, held)
            ):
                plan.newer.append(key)
            elif key not in self.refused:
                plan.put.setdefault(key[0], {})[key] = held
        # What cannot be read at the source was not removed there: its copy may be the last.
        for key in self.note.copied.keys() - here.keys() if is_complete else ():
            if key in there and self._is_unchanged_copy(key, there[key]):
                plan.remove[key] = there[key]
        return plan

    def copy_all(self) -> Plan:
        """Copy all buckets that differ, in several rounds; return those that still differ."""
        plan = self.plan()
        for _ in range(ROUNDS):
            if not plan.size:
                break
            self._copy(plan)
            plan = self.plan()
        return plan

    def _copy(self, plan: Plan) -> None:
        before = self._done
        with Progress("migrate") as progress:

            def copy(device: str) -> None:
                self._device(device, plan.put[device])
                with self._lock:
                    done = self._done - before
                    progress.at(done, done / plan.size)

            pool: ThreadPool[str] = ThreadPool(copy)
            for device in plan.put:
                pool.put(device, device)
            pool.finish()
            for key, held in plan.remove.items():
                self._remove(key, held)

    @property
    def _done(self) -> int:
        return sum(self.counts.values())

    def _device(self, device: str, wanted: dict[Key, Row | None]) -> None:
        for envelope in envelopes(self.source, device):
            key = (envelope["device"], envelope["job"])
            if key in wanted:
                self._put(key, envelope, wanted[key])

    def _put(self, key: Key, envelope: dict[str, Any], held: Row | None) -> None:
        try:
            guard = self._guard(key, envelope, held)
            if guard is None:
                return
            self.note.add(key, time_of(envelope["updated_at"]))
            self.devices.add(key[0])
            self._write(key, envelope, guard)
        except PreconditionFailed:
            # The target's bucket has changed since it was listed; the next round compares it again.
            return
        except BucketError as problem:
            self._refuse(key, problem)
            return
        with self._lock:
            self.counts["again" if key in self._copied else "carried"] += 1
            self._copied.add(key)

    def _guard(self, key: Key, envelope: dict[str, Any], held: Row | None) -> dict[str, str] | None:
        """Return the precondition of the write; None if there is nothing to write now."""
        if held is None:
            return {"If-None-Match": "*"}
        scope = _scope(key)
        reply = self.target.call("GET", scope.target(), headers=NEWEST)
        if reply.etag is None or reply.members["revision"] != held.revision:
            return None
        same = json_diff.same(reply.members[scope.label], envelope["bucket"])
        if same and held.automation == envelope["automation"]:
            self._same[key] = (row_of(envelope, held.size), held)
            return None
        return {"If-Match": reply.etag}

    def _write(self, key: Key, envelope: dict[str, Any], guard: dict[str, str]) -> None:
        target = _scope(key, envelope["automation"]).target()
        stamp = f"revision={envelope['revision']}&updated_at={time_of(envelope['updated_at'])}"
        stamp += f"&created_at={time_of(envelope['created_at'])}"
        target += ("&" if "?" in target else "?") + stamp
        headers = {**guard, "Content-Type": _api.JSON}
        self.target.call("PUT", target, headers=headers, body=_api.encode(envelope["bucket"]))

    def _refuse(self, key: Key, problem: BucketError) -> None:
        if problem.code not in OF_ONE:
            raise problem
        with self._lock:
            self.refused[key] = problem.message
            self.status = self.status or status_of(problem)
            output.warn(f"{name_of(key)}: {problem.message}")

    def _remove(self, key: Key, held: Row) -> None:
        target = _scope(key).target()
        reply = self.target.call("GET", target, headers=NEWEST)
        if reply.etag is None or reply.members["revision"] != held.revision:
            return
        try:
            self.target.call("DELETE", target, headers={"If-Match": reply.etag})
        except PreconditionFailed:
            return
        self.counts["removed"] += 1

    def _is_unchanged_copy(self, key: Key, held: Row) -> bool:
        """Report whether the target's bucket is the copy of an earlier run, and unchanged."""
        return self.note.copied.get(key) == held.updated_at

    def _rows(self, session: Session) -> tuple[dict[Key, Row], bool]:
        """Return the buckets of a daemon, and whether these are all of them."""
        rows: dict[Key, Row] = {}
        is_complete = True
        for members in filters.pages(session, "/v1/buckets", "buckets"):
            for row in members["buckets"]:
                rows[row["device"], row["job"]] = row_of(row, row["size"])
            self.left_out.note(members)
            is_complete = is_complete and not members.get("unreadable")
        return rows, is_complete


def envelopes(session: Session, device: str) -> Iterator[dict[str, Any]]:
    """Yield all buckets of a device with their contents."""
    path, cursor = f"/v1/export?device={_context.escape(device)}", ""
    while cursor is not None:
        members = session.call("GET", path + (f"&cursor={cursor}" if cursor else "")).members
        yield from members["envelopes"]
        cursor = members["next_cursor"]


def row_of(row: dict[str, Any], size: int) -> Row:
    return Row(row["revision"], time_of(row["updated_at"]), size, row["automation"])


def time_of(text: str | None) -> str:
    """Return a time, or the epoch for a time that a daemon would refuse."""
    return text if text is not None and _TIME.fullmatch(text) else EPOCH


def name_of(key: Key) -> str:
    device, job = key
    return f"{device} (device)" if job is None else f"{device}, {job}"


def _scope(key: Key, automation: str | None = None) -> _context.Scope:
    return _context.named(key[0], key[1], automation, False)
