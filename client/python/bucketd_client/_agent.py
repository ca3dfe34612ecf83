"""``agent.utils.bucket`` and ``agent.utils.deviceBucket``: results, never exceptions.

Each call reads the context from the environment, so a module may be imported before a context
exists.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Callable, Generic

from . import _context, _operations, _transport
from ._api import BucketRequest, whole
from ._errors import BucketError
from ._http11 import Response
from ._results import (
    BucketResult,
    BucketSuccess,
    DeviceBucketResult,
    DeviceBucketSuccess,
    Failure,
    HistoryResult,
    HistorySuccess,
    HoldResult,
    HoldSuccess,
    WriteResult,
    WriteSuccess,
)

if TYPE_CHECKING:
    from typing import Literal, overload

    from typing_extensions import TypeVar

    from ._events import Change
    from ._held_bucket import HeldBucket
    from ._operations import Operation

    B = TypeVar("B", bound=Mapping[str, Any], default=dict[str, Any])
    P = TypeVar("P", bound=Mapping[str, Any], default=Mapping[str, Any])
    D = TypeVar("D", bound=Mapping[str, Any], default=B)
else:
    from typing import TypeVar, overload

    B, P, D = TypeVar("B"), TypeVar("P"), TypeVar("D")

S = TypeVar("S")
Success = Callable[[Mapping[str, Any]], S]


class Call:
    """One call of an agent: its request, and the result that the response becomes.

    Every step raises BucketError, which ``Failure.of`` makes a result.
    """

    def __init__(
        self,
        kind: Success[Any],
        device_bucket: bool,
        operation: Operation,
        below: str | None = None,
        query: tuple[str, ...] = (),
    ) -> None:
        scope = _context.from_environment(os.environ, device_bucket)
        path = _context.socket_path(os.environ)
        self._kind = kind
        self.request = BucketRequest(scope, path, operation, None, below, query)

    def result(self, response: Response) -> Any:
        if self._kind is WriteSuccess:
            return WriteSuccess(self.request.minimal_reply(response).members)
        return self._kind(self.request.reply(response).members)


def get_call(kind: Success[Any], device_bucket: bool, defaults: bool = False) -> Call:
    return Call(kind, device_bucket, _operations.read((), defaults))


def set_call(kind: Success[Any], device_bucket: bool, data: Any, returning: bool) -> Call:
    operation = _operations.merge(whole(data), {}, _operations.UNGUARDED, returning)
    return Call(kind if returning else WriteSuccess, device_bucket, operation)


def undo_call(kind: Success[Any], device_bucket: bool, revision: int | None) -> Call:
    from ._history import undoing

    return Call(kind, device_bucket, undoing(revision, _operations.UNGUARDED), "/undo")


def at_call(kind: Success[Any], device_bucket: bool, revision: int) -> Call:
    from ._history import reading_at

    operation, query = reading_at(revision)
    return Call(kind, device_bucket, operation, "", query)


def _result(call: Callable[..., Call], *args: Any) -> Any:
    """Make one call, and return its result: a success, or a Failure with the error."""
    try:
        prepared = call(*args)
        request = prepared.request
        return prepared.result(_transport.exchange(request.method, request.data, request.path))
    except BucketError as cause:
        return Failure.of(cause)


def _hold(device_bucket: bool, name: str, *options: Any) -> Any:
    """Take a hold, and return its result."""
    from ._bucket import Bucket

    wait, exclusive, label, on_lost = options
    try:
        hold = Bucket(device_bucket=device_bucket).hold(
            name, wait=wait, exclusive=exclusive, label=label, on_lost=on_lost
        )
        return HoldSuccess({"success": True, "held": hold.acquire()})
    except BucketError as cause:
        return Failure.of(cause)


def _refresh(kind: Success[Any], device_bucket: bool, *refreshing: Any) -> Any:
    """Refresh the bucket, and return the result."""
    from ._bucket import Bucket

    try:
        return kind(Bucket(device_bucket=device_bucket)._refresh(*refreshing).members)
    except BucketError as cause:
        return Failure.of(cause)


def _history(device_bucket: bool, limit: int | None, values: bool) -> HistoryResult:
    """Read the history, and return the result."""
    from ._bucket import Bucket

    try:
        bucket: Bucket = Bucket(device_bucket=device_bucket)
        found = bucket.history(limit=limit, values=values)
        return HistorySuccess({"success": True, "history": found})
    except BucketError as cause:
        return Failure.of(cause)


def watch(device_bucket: bool, keys: tuple[str, ...], snapshot: bool) -> Iterator[Change | Failure]:
    """Yield the changes; the last item is a Failure with the reason why the watch ended."""
    from ._sync_watch import changes
    from ._watch_session import Watching

    try:
        scope = _context.from_environment(os.environ, device_bucket)
        path = _context.socket_path(os.environ)
        yield from changes(Watching(scope, path, keys, snapshot))
    except BucketError as cause:
        yield Failure.of(cause)


class BucketOfJob(Generic[B, P, D]):
    """The bucket of this job on this device.

    ``B`` types its content, ``P`` the data of ``set``, and ``D`` the content that defaults have
    completed.
    """

    @overload
    def get(self, *, defaults: Literal[False] = False) -> BucketResult[B]: ...
    @overload
    def get(self, *, defaults: Literal[True]) -> BucketResult[D]: ...
    def get(self, *, defaults: bool = False) -> Any:
        """Return the whole bucket, ``{}`` if none is stored yet.

        With ``defaults`` it has the defaults of its schema for the keys that it lacks.
        """
        return _result(get_call, BucketSuccess, False, defaults)

    @overload
    def set(self, data: P, *, returning: Literal[True] = True) -> BucketResult[B]: ...
    @overload
    def set(self, data: P, *, returning: Literal[False]) -> WriteResult: ...
    def set(self, data: P, *, returning: bool = True) -> BucketResult[B] | WriteResult:
        """Set these keys, keep all others, and return the whole bucket.

        With ``returning=False`` the result has no bucket, which saves the transfer of a large one.
        """
        result: BucketResult[B] = _result(set_call, BucketSuccess, False, data, returning)
        return result

    def history(self, *, limit: int | None = 50, values: bool = False) -> HistoryResult:
        """Return the last changes, the newest first; see ``Bucket.history``."""
        return _history(False, limit, values)

    def undo(self, revision: int | None = None) -> BucketResult[B]:
        """Take one change back, the last one or that of a revision; see ``Bucket.undo``."""
        result: BucketResult[B] = _result(undo_call, BucketSuccess, False, revision)
        return result

    def at(self, revision: int) -> BucketResult[B]:
        """Return the bucket as it was at a revision; see ``Bucket.at``."""
        result: BucketResult[B] = _result(at_call, BucketSuccess, False, revision)
        return result

    def hold(
        self,
        name: str = "",
        *,
        wait: float = 60.0,
        exclusive: bool = False,
        label: str | None = None,
        on_lost: Callable[[], object] | None = None,
    ) -> HoldResult[HeldBucket[B, P, D]]:
        """Hold the bucket: ``with result.held as held:``; see ``Bucket.hold``.

        The calls of ``held`` return dicts, and raise BucketError, as those of ``Bucket``.
        """
        result: HoldResult[HeldBucket[B, P, D]] = _hold(
            False, name, wait, exclusive, label, on_lost
        )
        return result

    def refresh(
        self,
        fresh: Callable[[B], object],
        login: Callable[[B], P] | Callable[[], P],
        *,
        name: str = "login",
        wait: float = 300.0,
    ) -> BucketResult[B]:
        """Return the bucket if ``fresh``, else log in one at a time; see ``Bucket.refresh``.

        What ``fresh`` or ``login`` raises is raised.
        """
        result: BucketResult[B] = _refresh(BucketSuccess, False, fresh, login, name, wait)
        return result

    def watch(self, *keys: str, snapshot: bool = False) -> Iterator[Change | Failure]:
        """Yield every change by any client, from the first step on; see ``Bucket.watch``.

        The last item is a Failure; ``success`` distinguishes it from a Change.
        """
        return watch(False, keys, snapshot)


class BucketOfDevice:
    """The bucket that all jobs on this device share."""

    def get(self) -> DeviceBucketResult:
        """Return the whole device bucket, ``{}`` if none is stored yet."""
        result: DeviceBucketResult = _result(get_call, DeviceBucketSuccess, True)
        return result

    @overload
    def set(
        self, data: Mapping[str, Any], *, returning: Literal[True] = True
    ) -> DeviceBucketResult: ...
    @overload
    def set(self, data: Mapping[str, Any], *, returning: Literal[False]) -> WriteResult: ...
    def set(
        self, data: Mapping[str, Any], *, returning: bool = True
    ) -> DeviceBucketResult | WriteResult:
        """Set these keys, keep all others, and return the whole device bucket.

        With ``returning=False`` the result has no bucket.
        """
        result: DeviceBucketResult = _result(set_call, DeviceBucketSuccess, True, data, returning)
        return result

    def history(self, *, limit: int | None = 50, values: bool = False) -> HistoryResult:
        """Return the last changes, the newest first; see ``Bucket.history``."""
        return _history(True, limit, values)

    def undo(self, revision: int | None = None) -> DeviceBucketResult:
        """Take one change back, the last one or that of a revision; see ``Bucket.undo``."""
        result: DeviceBucketResult = _result(undo_call, DeviceBucketSuccess, True, revision)
        return result

    def at(self, revision: int) -> DeviceBucketResult:
        """Return the bucket as it was at a revision; see ``Bucket.at``."""
        result: DeviceBucketResult = _result(at_call, DeviceBucketSuccess, True, revision)
        return result

    def hold(
        self,
        name: str = "",
        *,
        wait: float = 60.0,
        exclusive: bool = False,
        label: str | None = None,
        on_lost: Callable[[], object] | None = None,
    ) -> HoldResult[HeldBucket]:
        """Hold the whole device: ``with result.held as held:``; see ``Bucket.hold``.

        The calls of ``held`` return dicts, and raise BucketError, as those of ``Bucket``.
        """
        result: HoldResult[HeldBucket] = _hold(True, name, wait, exclusive, label, on_lost)
        return result

    def refresh(
        self,
        fresh: Callable[[dict[str, Any]], object],
        login: Callable[[dict[str, Any]], Mapping[str, Any]] | Callable[[], Mapping[str, Any]],
        *,
        name: str = "login",
        wait: float = 300.0,
    ) -> DeviceBucketResult:
        """Return the bucket if ``fresh``, else log in one at a time; see ``Bucket.refresh``.

        What ``fresh`` or ``login`` raises is raised.
        """
        result: DeviceBucketResult = _refresh(DeviceBucketSuccess, True, fresh, login, name, wait)
        return result

    def watch(self, *keys: str, snapshot: bool = False) -> Iterator[Change | Failure]:
        """Yield every change by any client, from the first step on."""
        return watch(True, keys, snapshot)


class Utils(Generic[B, P, D]):
    """``agent.utils``."""

    bucket: BucketOfJob[B, P, D] = BucketOfJob()
    deviceBucket = device_bucket = BucketOfDevice()  # noqa: N815  (the same name in every language)


class Agent(Generic[B, P, D]):
    """``agent``, the entry point of an automation. ``bucketctl types`` writes a typed one."""

    utils: Utils[B, P, D] = Utils()


agent: Agent = Agent()
