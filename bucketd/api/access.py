"""Who asks, by the kernel's word and a token, and the four access rules.

Every route names its rule; nothing is allowed by default. A request with a token may do what the
token allows and nothing more, whoever sends it: an automation that happens to run as an operator's
user stays in its bucket.
"""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ..core.contexts import Context
from ..errors import Forbidden, NoJobContext
from ..model.bucket import BucketKey

HOW_TO_START = "start it with: bucketctl run --device DEVICE --job JOB -- COMMAND"


@dataclass(frozen=True, slots=True)
class Peer:
    """The process at the other end of the socket, as the kernel reported it at connect time."""

    pid: int
    uid: int
    gids: frozenset[int]


@dataclass(frozen=True, slots=True)
class Operators:
    """The users and groups that may use operator routes; root and the daemon's own user always."""

    uids: frozenset[int]
    gids: frozenset[int]

    @classmethod
    def named(cls, users: Iterable[str], groups: Iterable[str]) -> Operators:
        """Return them by names or numbers; raise KeyError("user" or "group", name) if unknown."""
        uids = {_number("user", user, lambda name: pwd.getpwnam(name).pw_uid) for user in users}
        gids = {_number("group", group, lambda name: grp.getgrnam(name).gr_gid) for group in groups}
        return cls(frozenset({0, os.geteuid(), *uids}), frozenset(gids))

    def include(self, peer: Peer) -> bool:
        return peer.uid in self.uids or not self.gids.isdisjoint(peer.gids)


def _number(kind: str, name: str, find: Callable[[str], int]) -> int:
    try:
        return int(name) if name.isdecimal() else find(name)
    except KeyError:
        raise KeyError(kind, name) from None


@dataclass(slots=True)
class Caller:
    """Who sends one request; ``context`` is what its token opens, if it sent a valid one."""

    operator: bool
    token_sent: bool
    context: Context | None


Rule = Callable[[Caller], None]


def anyone(_caller: Caller) -> None:
    """Allow everybody."""


def operator(caller: Caller) -> None:
    """Allow an operator who sends no token."""
    if not caller.operator:
        raise Forbidden(
            "cannot use an operator route: your user is no operator of this daemon; "
            "use a job's token on /v1/bucket, or be added to operator_users or operator_groups"
        )
    if caller.token_sent:
        raise NoJobContext(
            "cannot use an operator route with a token: a token opens its own bucket on "
            "/v1/bucket and /v1/device/bucket; leave the Authorization header out"
        )


def any_context(caller: Caller) -> None:
    """Allow a valid token, of a job or of a device alone."""
    if caller.context is not None:
        return
    if caller.token_sent:
        raise NoJobContext(
            "no job context: the token is unknown, revoked or expired; get a new one, or "
            f"{HOW_TO_START}"
        )
    raise NoJobContext(f"no job context: the request carries no token; {HOW_TO_START}")


def job_context(caller: Caller) -> None:
    """Allow a valid token of a (device, job) pair."""
    any_context(caller)
    if caller.context is not None and caller.context.job is None:
        raise NoJobContext(
            "no job context: the token is for a device alone, so it opens only "
            f"/v1/device/bucket; {HOW_TO_START}"
        )


def key_of(context: Context | None, *, device_only: bool) -> BucketKey:
    """Return the bucket that a context opens: its job's, or its device's."""
    if context is None:
        raise NoJobContext("no job context")
    return BucketKey(context.device, None if device_only else context.job)
