"""The true age of a time stamp, even if somebody sets the wall clock.

A board without a battery clock boots years in the past until NTP sets its clock; another clock
jumps months ahead for a few seconds. Neither may make retention remove a bucket. So the daemon
counts elapsed time, which nobody can set, in ``<state>/clock.json``, and records what the wall
clock said: one *era* for as long as wall clock and elapsed time advance together, and another era
after each jump.

The age of a time stamp is the smallest that these readings give:

    the wall clock now                    now - stamp
    an era that the stamp lies in         the time elapsed since that moment of the era
    an era of the last time (``within``)  what its clock would say now - stamp

The third is for stamps older than the record: after a jump ahead, the new reading counts only once
that much time has elapsed under it. An era whose clock was behind that of an earlier era is not
used here, since its clock was certainly wrong.
Time for which the host was off is not counted, since nothing distinguishes it from a jump.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import threading
import time
from dataclasses import dataclass
from typing import Any

import orjson

from ..fs import clock, files

log = logging.getLogger(__name__)
FILE = "clock.json"
OBSERVE_SECONDS = 1.0
SAVE_SECONDS = 3600.0
# A larger difference is a jump; a smaller one comes from a clock that runs fast or slow.
JUMP_SECONDS = 5.0
# A kill loses what was not saved, so an era may have begun earlier and ended later than recorded.
SLACK_SECONDS = 86400.0
MAX_ERAS = 1000


@dataclass(slots=True)
class Era:
    """``start`` and ``end`` in elapsed seconds; ``offset`` is wall clock minus elapsed time."""

    start: float
    end: float
    offset: float

    def contains(self, stamp: float) -> bool:
        """Report whether the wall clock may have shown this time in the era."""
        elapsed = stamp - self.offset
        return self.start - SLACK_SECONDS <= elapsed <= self.end + SLACK_SECONDS


class ClockRecord:
    """The eras of this state directory. ``root`` is a descriptor of it. Safe for all threads."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._lock = threading.Lock()
        self._problem: str | None = None
        self._eras: list[Era] = []
        # The elapsed time of earlier boots, to add to the time since this boot.
        self._base = 0.0
        self._saved_at = float("-inf")
        # True once this process has read the clocks.
        self._observed = False
        self._load()
        self.observe()

    def age(self, stamp: float, within: float) -> float:
        """Return the smallest age of a Unix time, in seconds, by all readings of the clock."""
        with self._lock:
            self._observe()
            now = self._elapsed()
            ages = [time.time() - stamp]
            # The latest time that the wall clock had shown before the era.
            latest = float("-inf")
            for era in self._eras:
                behind = era.end + era.offset < latest
                latest = max(latest, era.end + era.offset)
                if era.contains(stamp):
                    moment = min(max(stamp - era.offset, era.start), era.end)
                    ages.append(now - moment)
                elif not behind and now - era.end <= within:
                    ages.append(now + era.offset - stamp)
            return min(ages)

    def observe(self) -> None:
        """Read the clocks, and start another era if the wall clock has jumped."""
        with self._lock:
            self._observe()

    def problems(self) -> list[str]:
        """Return why the record cannot be saved, if so."""
        return [] if self._problem is None else [self._problem]

    async def keep(self, stop: asyncio.Event) -> None:
        """Observe the clocks until ``stop``; save the record at intervals and at the end."""
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), OBSERVE_SECONDS)
            self.observe()
            if time.monotonic() - self._saved_at >= SAVE_SECONDS or stop.is_set():
                await asyncio.to_thread(self._save)

    def _elapsed(self) -> float:
        return self._base + clock.boottime()

    def _observe(self) -> None:
        now = self._elapsed()
        offset = time.time() - now
        newest = self._eras[-1] if self._eras else None
        observed, self._observed = self._observed, True
        if newest is not None and abs(offset - newest.offset) <= JUMP_SECONDS:
            newest.end = now
            return
        if newest is not None:
            # A jump between two runs of the daemon may only mean that the host was off.
            level = logging.WARNING if observed else logging.DEBUG
            log.log(level, "the wall clock has jumped by %.0f s", offset - newest.offset)
        self._eras.append(Era(now, now, offset))
        del self._eras[:-MAX_ERAS]
        self._write()

    def _load(self) -> None:
        try:
            saved: dict[str, Any] = orjson.loads(files.read(self._root, (), FILE).text)
            elapsed, boottime = float(saved["elapsed"]), float(saved["boottime"])
            eras = [
                Era(float(e["start"]), float(e["end"]), float(e["offset"])) for e in saved["eras"]
            ]
            same_boot = clock.is_this_boot(str(saved["boot"]), boottime)
        except FileNotFoundError:
            return
        except (OSError, ValueError, TypeError, KeyError) as error:
            cause = error.strerror if isinstance(error, OSError) else "it is damaged"
            log.warning("cannot read %s: %s; elapsed time is counted from now on", FILE, cause)
            return
        self._base = elapsed - boottime if same_boot else elapsed
        self._eras = eras

    def _save(self) -> None:
        with self._lock:
            self._write()

    def _write(self) -> None:
        record = {
            "elapsed": self._elapsed(),
            "boottime": clock.boottime(),
            "boot": clock.boot_id(),
            "eras": [{"start": e.start, "end": e.end, "offset": e.offset} for e in self._eras],
        }
        text = json.dumps(record).encode() + b"\n"
        self._saved_at = time.monotonic()
        try:
            files.write(self._root, (), FILE, lambda _birth: text)
        except OSError as error:
            problem = f"cannot save {FILE}, which retention needs: {error.strerror}"
            if self._problem is None:
                log.warning("%s", problem)
            self._problem = problem
        else:
            self._problem = None
