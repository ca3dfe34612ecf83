"""Whether a concurrent history of one bucket could have happened one operation after another.

The algorithm is the search of Wing & Gong ("Testing and verifying concurrent objects", 1993)
with the memoization of Lowe ("Testing for linearizability", 2017), as in Knossos and Porcupine:
go through the orders that agree with real time (an operation may come next only if no other one
that is still to come was answered before it was invoked), apply each to a sequential model, and
never visit the same pair (operations done, state of the model) twice.

An operation without an answer may take effect at any time after its invocation, or never. So it
has no end, and the search may leave it out.

The model is a dictionary with a revision and an ETag. The ETag that an operation without an
answer gave is not known until somebody reads it. Nobody can have guarded by it before that.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

Items = tuple[tuple[str, int], ...]
FOREVER = 1 << 63


@dataclass(frozen=True, slots=True)
class Operation:
    """What one client asked, when, and what it was told; ``answered`` None: the outcome is open.

    ``kind`` is get, set, replace, remove (``keys``), clear, or swap (a replace that is guarded by
    ``guard``, an ETag). ``bucket``, ``revision`` and ``etag`` are of the answer.
    """

    kind: str
    invoked: int
    answered: int | None = None
    data: dict[str, int] = field(default_factory=dict)
    keys: tuple[str, ...] = ()
    guard: str | None = None
    status: int = 200
    bucket: dict[str, int] = field(default_factory=dict)
    revision: int = 0
    etag: str | None = None

    @property
    def end(self) -> int:
        return FOREVER if self.answered is None else self.answered

    @classmethod
    def of(cls, record: dict[str, Any]) -> Operation:
        """From the log of a client."""
        return cls(**{**record, "keys": tuple(record.get("keys", ()))})


@dataclass(frozen=True, slots=True)
class State:
    """The sequential model: what is stored (None: nothing), its revision, its ETag where known."""

    items: Items | None = None
    revision: int = 0
    etag: str | None = None


ABSENT = State()


def after(state: State, operation: Operation) -> State | None:
    """The state when the operation has been applied; None where its guard fails."""
    if operation.kind == "swap" and (state.items is None or state.etag != operation.guard):
        return None
    stored = None if state.items is None else dict(state.items)
    wanted = outcome(stored, operation)
    if wanted == stored:
        return state
    if wanted is None:
        return ABSENT
    return State(tuple(sorted(wanted.items())), state.revision + 1)


def outcome(stored: dict[str, int] | None, operation: Operation) -> dict[str, int] | None:
    match operation.kind:
        case "get":
            return stored
        case "set":
            return {**(stored or {}), **operation.data}
        case "replace" | "swap":
            return operation.data
        case "remove":
            kept = {k: v for k, v in (stored or {}).items() if k not in operation.keys}
            return kept if stored is not None else None
        case "clear":
            return None
    raise ValueError(operation.kind)


def step(state: State, operation: Operation, used: frozenset[str]) -> State | None:
    """The state after it, if its answer is the one that the model gives; else None.

    ``used`` are the ETags of all operations before it, of which a new state may have none.
    """
    reached = after(state, operation)
    if operation.answered is None:
        return state if reached is None else reached
    if reached is None:
        refused = operation.status == 412 and operation.revision == state.revision
        return state if refused else None
    told = (operation.status, operation.revision, operation.bucket)
    if told != (200, reached.revision, dict(reached.items or ())):
        return None
    return with_etag(reached, operation.etag, used)


def with_etag(state: State, etag: str | None, used: frozenset[str]) -> State | None:
    """The state, of which this ETag has been told; None if it cannot have that."""
    if state.items is None or state.etag is not None:
        return state if state.etag == etag else None
    return None if etag is None or etag in used else replace(state, etag=etag)


def linearizable(history: Iterable[Operation]) -> bool:
    """Whether there is an order of the operations that explains every answer."""
    operations = sorted(history, key=lambda operation: operation.invoked)
    must = sum(1 << i for i, operation in enumerate(operations) if operation.answered is not None)
    stack, seen = [(0, ABSENT)], {(0, ABSENT)}
    while stack:
        done, state = stack.pop()
        if done & must == must:
            return True
        for further in successors(operations, done, state):
            if further not in seen:
                seen.add(further)
                stack.append(further)
    return False


def successors(operations: list[Operation], done: int, state: State) -> Iterable[tuple[int, State]]:
    """The operations that may come next, applied; those without an answer are tried last."""
    waiting = [i for i in range(len(operations)) if not done >> i & 1]
    horizon = min(operations[i].end for i in waiting)
    past = (op.etag for i, op in enumerate(operations) if done >> i & 1)
    used = frozenset(etag for etag in past if etag is not None)
    possible = [i for i in waiting if operations[i].invoked <= horizon]
    # The stack gives back first what is put there last.
    for i in sorted(possible, key=lambda i: operations[i].end, reverse=True):
        reached = step(state, operations[i], used)
        if reached is not None:
            yield done | 1 << i, reached
