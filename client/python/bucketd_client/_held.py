"""Keep the state of a hold, and who may use it, for both held buckets."""

from __future__ import annotations

import os
import warnings

from ._errors import BucketError, error
from ._hold_session import HoldEnded, HoldSession, check_wait, wanted

# See _bucket.
__tracebackhide__ = True

TYPE_CHECKING = False  # see bucketd_client

if TYPE_CHECKING:
    from typing import Any, Callable

    from ._context import Scope
    from ._operations import BaseBucket


class Keeper:
    """Keep one hold in this process until it is released or lost.

    A held bucket refers to its keeper, never the other way round, so that a held bucket that is
    forgotten is collected, and its hold released.
    """

    def __init__(self, session: HoldSession, on_lost: Callable[[], object] | None) -> None:
        self.session, self.pid = session, os.getpid()
        # The message of the error that says why the hold was lost.
        self.loss: str | None = None
        self.is_released = False
        self._on_lost = on_lost

    @property
    def is_over(self) -> bool:
        return self.is_released or self.loss is not None

    def check(self) -> None:
        """Raise HoldLost unless this process has the hold."""
        if self.pid != os.getpid():
            raise error(
                "hold_lost",
                f"cannot use the bucket: process {self.pid} has its hold, and this process was "
                "forked from it; take a hold of its own here",
            )
        if self.is_released:
            raise error("hold_lost", "cannot use the bucket: its hold was released")
        if self.loss is not None:
            raise error("hold_lost", self.loss)

    @property
    def fenced(self) -> Scope:
        """Return the scope that was held, with the fence."""
        return self.session.scope.fenced(self.session.members["fence"])

    def lose(self, cause: BucketError) -> None:
        """Note the loss, and call back; a loss after the release is none."""
        if self.is_over:
            return
        ended = cause if isinstance(cause, HoldEnded) else HoldEnded(cause.message)
        self.loss = ended.message
        if self._on_lost is not None:
            self._on_lost()

    def abandon(self) -> None:
        """Release the hold from any thread, without waiting."""
        raise NotImplementedError


class HoldOptions:
    """Keep what a hold was asked for: request, time to wait, whom to notify of its loss."""

    def __init__(
        self,
        name: str,
        wait: float,
        exclusive: bool,
        label: str | None,
        on_lost: Callable[[], object] | None,
    ) -> None:
        self.wanted, self.wait = wanted(name, exclusive, label), check_wait(wait)
        self.on_lost = on_lost

    def session(self, scope: Scope, path: str, timeout: float | None) -> HoldSession:
        return HoldSession(scope, path, self.wanted, self.wait, timeout)


class HeldState:
    """The part of a held bucket that makes no request."""

    _keeper: Any = None
    _of: BaseBucket[Any, Any, Any]
    _options: HoldOptions
    _fenced: Scope | None = None
    # True while a with statement uses the hold.
    _is_entered = False

    @property
    def id(self) -> str:
        """The id of the hold, for ``bucketctl hold``."""
        return str(self._members["id"])

    @property
    def fence(self) -> str:
        """The fence, which never repeats; a process started with it in BUCKETD_FENCE sends it."""
        return str(self._members["fence"])

    @property
    def name(self) -> str:
        """The name of the hold; empty for the unnamed one."""
        return str(self._members["name"])

    @property
    def since(self) -> str:
        """When the hold was taken, for people."""
        return str(self._members["since"])

    @property
    def lost(self) -> bool:
        """Whether the hold has ended before its release; every call then raises HoldLost."""
        return self.loss is not None

    @property
    def loss(self) -> str | None:
        """Why the hold was lost, in a sentence; None if it was not."""
        found: str | None = None if self._keeper is None else self._keeper.loss
        return found

    @property
    def _is_held(self) -> bool:
        return self._keeper is not None and not self._keeper.is_over

    def _enters_held(self) -> bool:
        """Report, at the beginning of a with statement, whether ``acquire`` has taken the hold."""
        is_held, was_entered, self._is_entered = self._is_held, self._is_entered, True
        if is_held and was_entered:
            raise _held_already()
        return is_held

    @property
    def _members(self) -> dict[str, Any]:
        found: dict[str, Any] = {} if self._keeper is None else self._keeper.session.members
        if not found:
            raise _not_held()
        return found

    def _new_session(self, timeout: float | None) -> HoldSession:
        """Return the session of a new hold. Raise InvalidRequest while there is one."""
        if self._is_held:
            self._keeper.check()
            raise _held_already()
        return self._options.session(self._of._scope(), self._of._path(), timeout)

    def _checked_scope(self) -> Scope:
        """Return the scope with the fence. Raise unless this process has the hold."""
        if self._keeper is None or self._fenced is None:
            raise _not_held()
        self._keeper.check()
        return self._fenced

    def __del__(self) -> None:
        keeper = self._keeper
        if keeper is not None and not keeper.is_over and keeper.pid == os.getpid():
            warnings.warn(f"unreleased hold of {self!r}", ResourceWarning, 2, self)
            keeper.abandon()


def call_login(login: Callable[..., object], bucket: object) -> object:
    """Call ``login`` with the bucket, or without arguments if it takes none."""
    from inspect import signature

    try:
        signature(login).bind(bucket)
    except TypeError:
        return login()
    except ValueError:
        # A function in C may have no signature.
        return login(bucket)
    return login(bucket)


def new_session(returned: object) -> object:
    """Return what ``login`` returned. Raise InvalidRequest for None, which would set nothing."""
    if returned is None:
        raise error("invalid_request", "cannot refresh: login returned None, not the keys to set")
    return returned


def _held_already() -> Exception:
    return error(
        "invalid_request",
        "cannot hold: this one is held already; release it before, or take one more by hold()",
    )


def _not_held() -> Exception:
    return error("invalid_request", "cannot use the hold: it is not held; use with, or acquire()")
