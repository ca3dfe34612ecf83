"""Verify that two daemons hold the same buckets, by their number and a checksum of the contents."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from typing import Any

from .. import filters
from ..progress import Progress
from ..session import Session
from .state_file import Key
from .transfer import Plan, Transfer, envelopes

# How often buckets that changed while they were read are copied and read again.
AGAIN = 5

Digests = dict[Key, bytes]


class Verified:
    """The SHA-256 of each bucket on both sides, with its names and its automation."""

    def __init__(self, move: Transfer, left_out: Iterable[Key]) -> None:
        self._move, self._left_out = move, {*left_out, *move.refused}
        self.here: Digests = {}
        self.there: Digests = {}

    def differing(self, devices: Iterable[str] | None) -> list[Key]:
        """Read these devices (None: all) on both sides; return the buckets that still differ."""
        differ: list[Key] = []
        for _ in range(AGAIN):
            self._read(devices)
            differ = self._differing()
            if not differ or not self._move.plan().size:
                break
            # These buckets changed between the two reads.
            self._move.copy_all()
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
        """Return the source's buckets that differ on the target, which may have further ones."""
        return [
            key
            for key, found in self.here.items()
            if key not in self._left_out and self.there.get(key) != found
        ]

    def mismatched(self, plan: Plan) -> list[Key]:
        """Return the buckets that differ although their revisions are equal."""
        changing = {key for keys in plan.put.values() for key in keys} | plan.remove.keys()
        return [key for key in self._differing() if key not in changing]

    @property
    def count(self) -> int:
        return len(self.here.keys() - self._left_out)

    def checksum(self, digests: Digests) -> str:
        """Return one checksum for all, independent of the order of reading."""
        total = 0
        for key in self.here.keys() - self._left_out:
            total ^= int.from_bytes(digests.get(key, b""), "big")
        return f"{total:064x}"


def digest(envelope: dict[str, Any]) -> bytes:
    """Return the SHA-256 of names and content; the target may have a higher revision."""
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
