"""Who asks, as the kernel and a token tell it, and the rules of who may.

Nothing is allowed by default: every route names its rule.

A request with a token has that token's reach and nothing more, whoever sends
it: an automation that happens to run as an operator's user stays in its bucket.
"""

from __future__ import annotations

import grp
import os
import pwd
import socket
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from ..core.contexts import Context
from ..errors import Forbidden, NoJobContext
from ..model.bucket import BucketKey

SO_PEERGROUPS = 59  # Linux 4.13, not in Python's socket module
_MAX_GROUPS = 65536
GET_ONE = "start it with: bucketctl run --device DEVICE --job JOB -- COMMAND"


@dataclass(frozen=True, slots=True)
class Peer:
    """The process at the other end of the socket, as the kernel saw it connect."""

    pid: int
    uid: int
    gids: frozenset[int]

    @classmethod
    def of(cls, sock: socket.socket) -> Peer:
        pid, uid, gid = struct.unpack(
            "3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        )
        return cls(pid, uid, frozenset((gid, *_groups(sock))))


def _groups(sock: socket.socket) -> tuple[int, ...]:
    """The peer's supplementary groups; few have more than 64, and the kernel says if so."""
    for most in (64, _MAX_GROUPS):
        try:
            raw = sock.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, 4 * most)
        except OSError:
            continue
        return struct.unpack(f"{len(raw) // 4}I", raw)
    return ()


@dataclass(frozen=True, slots=True)
class Operators:
    """The users and groups that may use operator routes; root and the daemon's own user always."""

    uids: frozenset[int]
    gids: frozenset[int]

    @classmethod
    def named(cls, users: Iterable[str], groups: Iterable[str]) -> Operators:
        """From names or numbers; raises KeyError ("user" or "group", name) for an unknown one."""
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


class Caller(NamedTuple):
    """One request's caller: ``context`` is what its token opens, if it sent one that does."""

    operator: bool
    token_sent: bool
    context: Context | None


Rule = Callable[[Caller], None]


def anyone(_caller: Caller) -> None:
    """No condition."""


def operator(caller: Caller) -> None:
    """A trusted local peer that speaks for itself, not through a token."""
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
    """A live token, of a job or of a device alone."""
    if caller.context is not None:
        return
    if caller.token_sent:
        raise NoJobContext(
            f"no job context: the token is unknown, revoked or expired; get a new one, or {GET_ONE}"
        )
    raise NoJobContext(f"no job context: the request carries no token; {GET_ONE}")


def job_context(caller: Caller) -> None:
    """A live token of a (device, job) pair."""
    any_context(caller)
    if caller.context is not None and caller.context.job is None:
        raise NoJobContext(
            "no job context: the token is for a device alone, so it opens only "
            f"/v1/device/bucket; {GET_ONE}"
        )


def key_of(context: Context | None, *, device_only: bool) -> BucketKey:
    """The bucket that a context opens: its job's, or its device's."""
    if context is None:
        raise NoJobContext("no job context")
    return BucketKey(context.device, None if device_only else context.job)
