"""Check that a concurrent history of one bucket is linearizable.

The algorithm is the search of Wing & Gong ("Testing and verifying concurrent objects", 1993)
with the memoization of Lowe ("Testing for linearizability", 2017), as in Knossos and Porcupine:
go through the orders that agree with real time (an operation may come next only if no other one
that is still to come was answered before it was invoked), apply each to a sequential model, and
never visit the same pair (operations done, state of the model) twice.

An operation without a response may take effect at any time after its invocation, or never. So it
has no end, and the search may leave it out.

The model is a dictionary with a revision and an ETag, and the fence of its holder. A take needs
that there is no holder, and a write with another fence has to be refused; a take without a response
is no operation, since nobody has its fence. The ETag of an operation without a response is unknown
until a client reads it, and no client can use it in a precondition before that.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

Items = tuple[tuple[str, int], ...]
FOREVER = 1 << 63


@dataclass(frozen=True, slots=True)
class Operation:
    """One request of a client, its times, and its response; ``answered`` None: no response.

    ``kind`` is get, set, replace, remove (``keys``), clear, swap (a replace with If-Match
    ``guard``, an ETag), or take and release of the hold with a ``fence``, which all others may
    carry. ``bucket``, ``revision``, ``etag`` and ``code`` are those of the response.
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
    fence: str | None = None
    code: str = ""

    @property
    def end(self) -> int:
        return FOREVER if self.answered is None else self.answered

    @classmethod
    def of(cls, record: dict[str, Any]) -> Operation:
        """Return the operation in a record of a client's log."""
        return cls(**{**record, "keys": tuple(record.get("keys", ()))})


@dataclass(frozen=True, slots=True)
class State:
    """The state of the model: the bucket (None: none stored), its revision, its ETag if known, and
    the fence of the hold that lives.
    """

    items: Items | None = None
    revision: int = 0
    etag: str | None = None
    holder: str | None = None


ABSENT = State()


def after(state: State, operation: Operation) -> State | None:
    """Return the state after an operation; None if its precondition fails."""
    if operation.kind == "take":
        return None if state.holder is not None else replace(state, holder=operation.fence)
    if operation.kind == "release":
        return state if state.holder != operation.fence else replace(state, holder=None)
    if operation.fence is not None and operation.fence != state.holder:
        return None
    if operation.kind == "swap" and (state.items is None or state.etag != operation.guard):
        return None
    stored = None if state.items is None else dict(state.items)
    wanted = outcome(stored, operation)
    if wanted == stored:
        return state
    if wanted is None:
        return replace(ABSENT, holder=state.holder)
    return State(tuple(sorted(wanted.items())), state.revision + 1, holder=state.holder)


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
    """Return the state after an operation; None if its response contradicts the model.

    ``used`` has the ETags of all operations before; a new state may have none of them.
    """
    reached = after(state, operation)
    if operation.answered is None:
        return state if reached is None else reached
    if operation.kind in ("take", "release"):
        return reached
    is_lost = operation.fence is not None and operation.fence != state.holder
    if is_lost or operation.code == "hold_lost":
        return state if is_lost and operation.code == "hold_lost" else None
    if reached is None:
        refused = operation.status == 412 and operation.revision == state.revision
        return state if refused else None
    told = (operation.status, operation.revision, operation.bucket)
    if told != (200, reached.revision, dict(reached.items or ())):
        return None
    return with_etag(reached, operation.etag, used)


def with_etag(state: State, etag: str | None, used: frozenset[str]) -> State | None:
    """Return the state with an ETag that a response has shown; None if that is impossible."""
    if state.items is None or state.etag is not None:
        return state if state.etag == etag else None
    return None if etag is None or etag in used else replace(state, etag=etag)


def linearizable(history: Iterable[Operation]) -> bool:
    """Report whether an order of the operations explains every response."""
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
    """Return the states after each possible next operation; those without a response come last."""
    waiting = [i for i in range(len(operations)) if not done >> i & 1]
    horizon = min(operations[i].end for i in waiting)
    past = (op.etag for i, op in enumerate(operations) if done >> i & 1)
    used = frozenset(etag for etag in past if etag is not None)
    possible = [i for i in waiting if operations[i].invoked <= horizon]
    # The search takes the last item of the stack first.
    for i in sorted(possible, key=lambda i: operations[i].end, reverse=True):
        reached = step(state, operations[i], used)
        if reached is not None:
            yield done | 1 << i, reached
