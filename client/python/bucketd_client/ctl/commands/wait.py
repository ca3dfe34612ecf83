"""``bucketctl wait``: wait until a bucket has a key, or a value there."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..._errors import error
from ..._events import Change
from ..._sync_watch import everything
from ..._watch_session import Watching
from .. import durations, json_diff, output, selection
from ..inputs import parse_json
from ..selection import ABSENT
from ..session import Session
from ..table.daily import Options


class Elapsed(Exception):
    """The time of ``--for`` is over."""


def wait(options: Options) -> int:
    key, wanted = _condition(options.arguments[0])
    limit = options.get("for")
    seconds = None if limit is None else durations.seconds(limit, "for")
    session = Session(options)
    try:
        with _alarm(seconds):
            change, value = _reached(session, key, wanted)
    except Elapsed:
        what = "has no such key" if wanted is ABSENT else "has another value there"
        raise error(
            "not_found", f"cannot see {key!r} so within {limit}: the bucket {what}"
        ) from None
    _show(session, key, change, value)
    return 0


def _condition(word: str) -> tuple[str, Any]:
    """Split ``KEY`` or ``KEY=JSON``; KEY:=JSON is the same, as in set."""
    key, equals, text = word.partition("=")
    if not equals:
        return key, ABSENT
    key = key.removesuffix(":")
    return key, parse_json(text, f"the value of {key!r}", lambda: f"; a string is '{key}=\"TEXT\"'")


def _reached(session: Session, key: str, wanted: Any) -> tuple[Change, Any]:
    """Return the first change with which the bucket is as wanted, and the value there."""
    keys = tuple(selection.keys([key]))
    watching = Watching(session.scope(), session.path, keys, True, None, session.timeout)
    bucket: dict[str, Any] = {}
    for change in everything(watching):
        if not isinstance(change, Change):
            continue
        kept = {} if change.gap else {k: v for k, v in bucket.items() if k not in change.removed}
        bucket = {**kept, **change.set}
        value = selection.value_at(bucket, key)
        if value is not ABSENT and (wanted is ABSENT or json_diff.same(value, wanted)):
            return change, value
    raise AssertionError("a watch does not end by itself")


@contextmanager
def _alarm(seconds: float | None) -> Iterator[None]:
    """Raise Elapsed in the block after some seconds."""
    if seconds is None:
        yield
        return

    def ring(*_: object) -> None:
        raise Elapsed

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _show(session: Session, key: str, change: Change, value: Any) -> None:
    options = session.options
    if session.mask:
        # A terminal shows a secret as a mask, which only the daemon can tell.
        scope = session.scope()
        target = scope.target(selection.keys([key]), more=session.mask)
        reply = session.call("GET", target, headers=scope.headers())
        shown = selection.value_at(reply.members[scope.label], key)
        value = None if shown is ABSENT else shown
    if options.has("json"):
        output.show({"success": True, "key": key, "value": value, "revision": change.revision})
    elif options.has("raw") and isinstance(value, str):
        output.write(value)
    else:
        output.show(value)
