"""Whether two daemons hold the same buckets: their number, and a checksum of their contents."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from typing import Any

from .. import filters
from ..progress import Progress
from ..session import Session
from .state_file import Key
from .transfer import Move, Plan, envelopes

AGAIN = 5  # times that what changed while it was read is carried and read again

Digests = dict[Key, bytes]


class Verified:
    """What each side holds: SHA-256 of each bucket, with its names and its automation."""

    def __init__(self, move: Move, left_out: Iterable[Key]) -> None:
        self._move, self._left_out = move, {*left_out, *move.refused}
        self.here: Digests = {}
        self.there: Digests = {}

    def look(self, devices: Iterable[str] | None) -> list[Key]:
        """Read these devices (None: all) on both sides; the buckets that differ at last."""
        differ: list[Key] = []
        for _ in range(AGAIN):
            self._read(devices)
            differ = self._differing()
            if not differ or not self._move.plan().size:
                break
            self._move.carry()  # they changed between the two reads
            devices = {key[0] for key in differ}
        return differ

    def _read(self, devices: Iterable[str] | None) -> None:
        for session, digests in ((self._move.source, self.here), (self._move.target, self.there)):
            found = _all(session) if devices is None else _some(session, devices)
            for key in [key for key in digests if devices is None or key[0] in devices]:
                del digests[key]
            with Progress("verify") as progress:
                for envelope in found:
                    digests[envelope["device"], envelope["job"]] = digest(envelope)
                    progress.at(len(digests))

    def _differing(self) -> list[Key]:
        """Of those that are to be on both sides; others may be there of other hosts."""
        return [
            key
            for key, found in self.here.items()
            if key not in self._left_out and self.there.get(key) != found
        ]

    def mismatched(self, plan: Plan) -> list[Key]:
        """Those that differ although by their revisions they should not."""
        changing = {key for keys in plan.put.values() for key in keys} | plan.remove.keys()
        return [key for key in self._differing() if key not in changing]

    @property
    def count(self) -> int:
        return len(self.here.keys() - self._left_out)

    def checksum(self, digests: Digests) -> str:
        """One for all, in whatever order they were read."""
        total = 0
        for key in self.here.keys() - self._left_out:
            total ^= int.from_bytes(digests.get(key, b""), "big")
        return f"{total:064x}"


def digest(envelope: dict[str, Any]) -> bytes:
    """Revision and times are not in it: a side may have had a higher revision already."""
    members = [envelope[name] for name in ("device", "job", "automation", "bucket")]
    text = json.dumps(members, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).digest()


def _all(session: Session) -> Iterator[dict[str, Any]]:
    for members in filters.pages(session, "/v1/export", "envelopes"):
        yield from members["envelopes"]


def _some(session: Session, devices: Iterable[str]) -> Iterator[dict[str, Any]]:
    fitting = filters.Filters(session)
    for device in devices:
        yield from filter(fitting.fit, envelopes(session, device))
