"""The model of holds: any sequence of events, against a list that says who must hold.

States of an entry: *waiting*, *held*, *returning* (the daemon was started again, its holder is not
back yet), *ended*. The model is the list of entries in order; an entry is held once no earlier one
excludes it. Its clock is faked, and the wall clock jumps at will.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import Coroutine
from typing import Any
from unittest import mock

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from bucketd.core.holds import GRACE_SECONDS, HoldRequest, Holds, HoldStream
from bucketd.errors import Held, HoldLost, ShuttingDown
from bucketd.fs import files
from bucketd.model.bucket import BucketKey
from bucketd.store.file.holds import LocalHolds
from bucketd.store.holds import Hold, HoldQueue, Owner

OWNER = Owner("ada", 1000, 1)
JOBS, NAMES = (None, "a", "b"), ("", "login")
KEYS = [BucketKey("phone", job) for job in JOBS]


class Clock(asyncio.SelectorEventLoop):
    """An event loop whose time passes only when it is told so."""

    now = 1000.0

    def time(self) -> float:
        return self.now


class Taker:
    """One client: its request, and what has come back."""

    def __init__(self, key: BucketKey, name: str, exclusive: bool, ends: float) -> None:
        self.key, self.name, self.exclusive, self.ends = key, name, exclusive, ends
        self.task: asyncio.Task[HoldStream] | None = None
        self.fence: str | None = None
        self.returning = False

    def excludes(self, other: Taker) -> bool:
        related = None in (self.key.job, other.key.job) or self.key == other.key
        return related and self.name == other.name

    @property
    def stream(self) -> HoldStream:
        assert self.task is not None
        return self.task.result()


class HoldMachine(RuleBasedStateMachine):
    """Drive ``Holds`` and the model by the same events."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = Clock()
        self.home = tempfile.mkdtemp()
        self.root = files.open_root(self.home)
        self.queue: list[Taker] = []
        self.ended: list[str] = []
        self.files: list[Hold] = []
        self.start()

    def teardown(self) -> None:
        self.stop_daemon()
        self.loop.close()
        shutil.rmtree(self.home)

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(coroutine)

    def settle(self) -> None:
        """Let everything happen that can happen now, and the writer's thread finish."""
        for _ in range(3):
            self.run(self.loop_turns())
            self.holds._writer.submit(int).result()
        self.run(self.loop_turns())

    async def loop_turns(self) -> None:
        for _ in range(12):
            await asyncio.sleep(0)

    def start(self) -> None:
        async def build() -> None:
            self.store = LocalHolds(HoldQueue(), lambda: asyncio.sleep(0))
            self.holds = Holds(self.store, self.root, 100, 15.0, lambda *_: None)
            await self.holds.restore()

        self.run(build())

    def stop_daemon(self) -> None:
        self.loop.call_soon(self.holds.refuse_waiters)
        self.settle()
        for taker in self.queue:
            if taker not in self.held() and taker.task is not None:
                assert isinstance(taker.task.exception(), ShuttingDown)
        self.loop.call_soon(self.holds.close)
        self.settle()

    def held(self) -> list[Taker]:
        earlier = [self.queue[:i] for i in range(len(self.queue))]
        found = zip(self.queue, earlier, strict=True)
        return [t for t, before in found if not any(one.excludes(t) for one in before)]

    def end(self, taker: Taker) -> None:
        if taker.fence is not None:
            self.ended.append(taker.fence)
            self.files.append(taker.stream.hold)
        self.queue.remove(taker)

    @rule(key=st.sampled_from(KEYS), name=st.sampled_from(NAMES), exclusive=st.booleans(),
          wait=st.sampled_from([0, 1, 3600]))  # fmt: skip
    def take(self, key: BucketKey, name: str, exclusive: bool, wait: int) -> None:
        taker = Taker(key, name, exclusive and not name, self.loop.now + wait)
        wanted = HoldRequest(name, wait, taker.exclusive)
        taker.task = self.loop.create_task(self.holds.take(key, wanted, OWNER, True))
        self.queue.append(taker)
        self.settle()
        if wait == 0 and taker not in self.held():
            with pytest.raises(Held):
                taker.task.result()
            self.end(taker)

    @precondition(lambda self: self.queue)
    @rule(data=st.data(), how=st.sampled_from(["close", "break"]))
    def stop(self, data: st.DataObject, how: str) -> None:
        """The connection of a holder or waiter ends, or an operator ends what it has."""
        taker = data.draw(st.sampled_from(self.queue))
        if how == "break":
            entries = list(self.store.queue)
            ended = entries[self.queue.index(taker)]
            self.run(self.holds.end(ended.id))
            self.settle()
            if taker not in self.held():
                assert taker.task is not None
                assert isinstance(taker.task.exception(), Held)
        elif taker in self.held() and not taker.returning:
            self.loop.call_soon(taker.stream.close)
        elif taker.returning:
            return
        else:
            assert taker.task is not None
            taker.task.cancel()
        self.end(taker)
        self.settle()

    @rule(late=st.booleans())
    def crash(self, late: bool) -> None:
        """The daemon is killed and started again: waiters are gone, holders may come back.

        If it is ``late``, it has not removed the files of those that others hold since.
        """
        self.stop_daemon()
        for hold in self.files if late else ():
            if any(hold.excludes(taker.stream.hold) for taker in self.held()):
                self.holds._files.save(hold)
        self.queue = self.held()
        for taker in self.queue:
            taker.returning = True
            assert taker.fence is not None
        self.start()
        self.settle()
        self.restarted = self.loop.now

    @precondition(lambda self: any(taker.returning for taker in self.queue))
    @rule(data=st.data())
    def come_back(self, data: st.DataObject) -> None:
        taker = data.draw(st.sampled_from([one for one in self.queue if one.returning]))
        wanted = HoldRequest(fence=taker.fence)
        for other in KEYS:
            if other != taker.key:
                with pytest.raises(HoldLost):
                    self.run(self.holds.take(other, wanted, OWNER, True))
        taker.task = self.loop.create_task(self.holds.take(taker.key, wanted, OWNER, True))
        self.settle()
        assert taker.stream.hold.fence == taker.fence
        taker.returning = False

    @precondition(lambda self: self.ended)
    @rule(data=st.data(), key=st.sampled_from(KEYS))
    def come_back_late(self, data: st.DataObject, key: BucketKey) -> None:
        fence = data.draw(st.sampled_from(self.ended))
        with pytest.raises(HoldLost):
            self.run(self.holds.take(key, HoldRequest(fence=fence), OWNER, True))

    @rule(seconds=st.sampled_from([0.5, 2.0, GRACE_SECONDS]), jump=st.sampled_from([0, -9e8, 9e8]))
    def time_passes(self, seconds: float, jump: float) -> None:
        with mock.patch("time.time", return_value=time.time() + jump):
            self.loop.now += seconds
            self.settle()
        now = self.loop.now
        # Timers are due in their order, so a grace may end before a wait does.
        returning = [one for one in self.queue if one.returning]
        if returning and now >= self.restarted + GRACE_SECONDS:
            late = [t for t in self.queue if t not in self.held() and t.ends <= now]
            for taker in returning:
                self.end(taker)
            for taker in late:
                if taker.task is not None and taker.task.done() and taker.task.exception():
                    self.end(taker)
        for taker in [t for t in self.queue if t not in self.held() and t.ends <= now]:
            assert taker.task is not None
            with pytest.raises(Held):
                taker.task.result()
            self.end(taker)

    @initialize()
    def remember(self) -> None:
        self.restarted = self.loop.now

    @invariant()
    def the_right_ones_hold(self) -> None:
        held = self.held()
        for taker in held:
            if not taker.returning:
                taker.fence = taker.stream.hold.fence
                assert not taker.stream.ended.done()
        entries = list(self.store.queue)
        assert [e.key for e in entries] == [t.key for t in self.queue]
        assert [e.held for e in entries] == [t in held for t in self.queue]
        assert len({t.fence for t in held} | set(self.ended)) == len(held) + len(self.ended)

    @invariant()
    def writes_are_judged_by_it(self) -> None:
        held = self.held()
        exclusive = [t for t in held if t.exclusive]
        for key in KEYS:
            covering = [t for t in exclusive if t.key.job in (None, key.job)]
            assert self.refusal(key, None) is (Held if covering else None)
            for fence in self.ended:
                assert self.refusal(key, fence) is HoldLost
            for taker in held:
                good = taker.key.job in (None, key.job) or key.job is None
                barred = covering and taker not in covering
                expected = HoldLost if not good else Held if barred else None
                assert self.refusal(key, taker.fence) is expected

    def refusal(self, key: BucketKey, fence: str | None) -> type[Exception] | None:
        try:
            self.store.queue.check(key, () if fence is None else (fence,))
        except (Held, HoldLost) as error:
            return type(error)
        return None


TestHolds = HoldMachine.TestCase
TestHolds.settings = settings(max_examples=50, stateful_step_count=25)
