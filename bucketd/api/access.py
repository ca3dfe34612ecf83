"""Who asks, by the kernel's word and a token, and the four access rules.

Every route names its rule; nothing is allowed by default. A request with a token may do what the
token allows and nothing more, whoever sends it: an automation that happens to run as an operator's
user stays in its bucket.
"""

from __future__ import annotations

import asyncio
import grp
import os
import pwd
import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ..core.contexts import Context
from ..errors import Forbidden, NoJobContext

HOW_TO_START = "start it with: bucketctl run --device DEVICE --job JOB -- COMMAND"


@dataclass(frozen=True, slots=True)
class Peer:
    """The process at the other end of the socket, as the kernel reported it at connect time."""

    pid: int
    uid: int
    gids: frozenset[int]


@dataclass(frozen=True, slots=True)
class Operators:
    """The users and groups that may use operator routes; root and the daemon's own user always.

    ``group``: the name of the first group, which a user may be added to; empty without groups.
    """

    uids: frozenset[int]
    gids: frozenset[int]
    group: str = ""

    @classmethod
    def named(cls, users: Iterable[str], groups: Iterable[str]) -> Operators:
        """Return them by names or numbers; raise KeyError("user" or "group", name) if unknown."""
        uids = {_number("user", user, lambda name: pwd.getpwnam(name).pw_uid) for user in users}
        named = [*groups]
        gids = {_number("group", group, lambda name: grp.getgrnam(name).gr_gid) for group in named}
        return cls(frozenset({0, os.geteuid(), *uids}), frozenset(gids), "".join(named[:1]))

    def include(self, peer: Peer) -> bool:
        return peer.uid in self.uids or not self.gids.isdisjoint(peer.gids)

    @property
    def how_to_join(self) -> str:
        """Return what a user has to do to become an operator."""
        if self.group:
            command = f"sudo usermod -aG {shlex.quote(self.group)} $USER"
            return f"or become an operator: {command}, then log in again"
        return "or be added to operator_users or operator_groups in [access]"


_user_names: dict[int, str] = {}


def known_user_name(uid: int) -> str | None:
    """Return what ``user_name`` would, without a wait; None if the user was not looked up yet."""
    return _user_names.get(uid)


async def user_name(uid: int) -> str:
    """Return the name of a user, or the number of one that has no name.

    The first time a worker thread looks it up, since users may be in a directory on the network.
    """
    if uid not in _user_names:
        _user_names[uid] = await asyncio.to_thread(_look_up_user, uid)
    return _user_names[uid]


def _look_up_user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _number(kind: str, name: str, find: Callable[[str], int]) -> int:
    try:
        return int(name) if name.isdecimal() else find(name)
    except KeyError:
        raise KeyError(kind, name) from None


# A rule gets the operators, who asks, whether a token was sent, and what that opens.
Rule = Callable[[Operators, Peer, bool, Context | None], None]


def anyone(_operators: Operators, _peer: Peer, _token_sent: bool, _context: Context | None) -> None:
    """Allow everybody."""


def operator(operators: Operators, peer: Peer, token_sent: bool, _context: Context | None) -> None:
    """Allow an operator who sends no token."""
    if not operators.include(peer):
        raise Forbidden(
            "cannot use an operator route: your user is no operator of this daemon; "
            f"use a job's token on /v1/bucket, {operators.how_to_join}"
        )
    if token_sent:
        raise NoJobContext(
            "cannot use an operator route with a token: a token opens its own bucket on "
            "/v1/bucket and /v1/device/bucket; leave the Authorization header out"
        )


def any_context(
    _operators: Operators, _peer: Peer, token_sent: bool, context: Context | None
) -> None:
    """Allow a valid token, of a job or of a device alone."""
    if context is not None:
        return
    if token_sent:
        raise NoJobContext(
            "no job context: the token is unknown, revoked or expired; get a new one, or "
            f"{HOW_TO_START}"
        )
    raise NoJobContext(f"no job context: the request carries no token; {HOW_TO_START}")


def job_context(
    operators: Operators, peer: Peer, token_sent: bool, context: Context | None
) -> None:
    """Allow a valid token of a (device, job) pair."""
    any_context(operators, peer, token_sent, context)
    if context is not None and context.job is None:
        raise NoJobContext(
            "no job context: the token is for a device alone, so it opens only "
            f"/v1/device/bucket; {HOW_TO_START}"
        )
