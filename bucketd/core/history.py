"""History: what changed in a bucket, its earlier states, and the change that takes one back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from ..errors import NotFound, NotKept, Overloaded, UndoConflict
from ..model import inverses
from ..model.bucket import BucketKey, Snapshot
from ..model.changes import Change
from ..model.document import Document
from ..model.inverses import Inverse
from ..model.revisions import History, Revision


class EarlierState(NamedTuple):
    """A state of a bucket, and the automations that it has been bound to since."""

    snapshot: Snapshot
    automations: frozenset[str | None]


def earlier_state(key: BucketKey, history: History, number: int) -> EarlierState:
    """Return the state that a revision left. Raises NotFound, and NotKept."""
    state = history.now
    automations = {state.automation}
    if number > state.revision:
        raise _not_made(f"read revision {number} of {key}", state.revision)
    for revision in history.revisions:
        # The state before a change is bound by the change that led to it.
        state = state._replace(automation=revision.automation)
        automations.add(revision.automation)
        inverse = revision.inverse
        if state.revision <= number or inverse is None or inverse.is_lost:
            break
        bucket = inverses.take_back(state.bucket, inverse)
        before, etag = revision.was
        state = state._replace(bucket=bucket, revision=before, etag=etag)
    if state.revision == number:
        return EarlierState(state, frozenset(automations))
    if state.revision < number:
        raise NotFound(f"cannot read revision {number} of {key}: there was none of this number")
    raise _not_kept(f"read revision {number} of {key}")


@dataclass(slots=True)
class _Search:
    """Walk from the newest revision to the one to take back, and note what was touched since."""

    target: int
    # The newest revision that touched each key, and the keys that are not as the target left them.
    touched: dict[str, int] = field(default_factory=dict)
    changed: set[str] = field(default_factory=set)
    taken_back: set[int] = field(default_factory=set)

    def find(self, revisions: Iterator[Revision]) -> Revision | None:
        """Return the revision; None if the history ends before it, or cannot tell what it was."""
        for revision in revisions:
            if revision.revision <= self.target or revision.inverse is None:
                return revision
            self._note(revision, revision.inverse)
        return None

    def _note(self, revision: Revision, inverse: Inverse) -> None:
        for key in inverse.keys:
            self.touched.setdefault(key, revision.revision)
        if revision.revision in self.taken_back:
            return
        if revision.undoes is not None:
            self.taken_back.add(revision.undoes)
            if revision.undoes > self.target:
                # Both together have left the keys as they were.
                return
        self.changed.update(inverse.keys)


class Undo(NamedTuple):
    """The change that takes back ``revision``."""

    change: Change
    revision: int


def undo_of(key: BucketKey, history: History, number: int | None, by_values: bool = False) -> Undo:
    """Return the change that takes one back, by default the last one.

    It is refused as ``moved`` if a change that the history does not have yet may have touched its
    keys; ``by_values``: of a bucket that is held as text, only if they have other values now.

    Raises NotFound, NotKept, and UndoConflict where later changes have touched its keys.
    """
    now = history.now
    target = now.revision if number is None else number
    doing = f"take back revision {target} of {key}"
    if target > now.revision:
        raise _not_made(doing, now.revision)
    if not now.revision:
        raise NotFound(f"cannot take back a change of {key}: none is stored; nothing was changed")
    search = _Search(target)
    found = search.find(history.revisions)
    if found is not None and found.revision < target:
        raise NotFound(f"cannot {doing}: there was none of this number; nothing was changed")
    if found is None or (found.inverse is None and found.revision > target):
        raise _not_kept(doing)
    if found.inverse is None or found.inverse.is_lost:
        raise NotKept(
            f"cannot {doing}: what it replaced is not kept, as it takes more than [history] bytes, "
            "or another program made it while the daemon was not running; nothing was changed"
        )
    keys = found.inverse.keys
    if conflicts := [name for name in keys if name in search.changed]:
        details = [{"key": name, "revision": search.touched[name]} for name in conflicts]
        raise UndoConflict(
            f"cannot {doing}: {_quoted(conflicts)} changed since; nothing was changed, "
            "take the later changes back first, or set the keys",
            details=details,
        )
    return Undo(_change(now, found.inverse, target, by_values), target)


def _change(made_for: Snapshot, inverse: Inverse, number: int, by_values: bool) -> Change:

    def apply(stored: Document | None) -> Document | None:
        if stored is None:
            return None
        after = inverses.take_back(stored, inverse)
        return stored if after.text == stored.text else after

    def upon(now: Snapshot) -> None:
        if now.etag == made_for.etag:
            return
        goes_on = now.created_at == made_for.created_at and now.revision > made_for.revision
        was, keys = made_for.bucket, inverse.keys
        if not (goes_on and inverses.are_untouched(keys, now.bucket, was, by_values)):
            raise Overloaded(
                f"cannot take back revision {number}: other requests change the bucket faster than "
                "its history can be read; nothing was changed, try again",
                moved=True,
            )

    return Change(apply, undoes=number, upon=upon)


def _quoted(keys: list[str]) -> str:
    shown = ", ".join(repr(key if len(key) <= 40 else key[:39] + "…") for key in keys[:3])
    return shown if len(keys) <= 3 else f"{shown} and {len(keys) - 3} more"


def _not_made(doing: str, newest: int) -> NotFound:
    cause = f"the newest is {newest}" if newest else "none is stored"
    return NotFound(f"cannot {doing}: {cause}")


def _not_kept(doing: str) -> NotKept:
    return NotKept(
        f"cannot {doing}: its history does not reach back so far any more; "
        "[history] revisions and bytes say how far it does"
    )
