"""The process at the other end of a unix socket, as the kernel reports it."""

from __future__ import annotations

import select
import socket
import struct

from ..api import Peer

SO_PEERGROUPS = 59  # Linux 4.13, not in Python's socket module
MAX_GROUPS = 65536


def peer_of(sock: socket.socket) -> Peer:
    """Return process, user and groups of the peer, as of the moment it connected."""
    pid, uid, gid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return Peer(pid, uid, frozenset((gid, *_supplementary_groups(sock))))


def _supplementary_groups(sock: socket.socket) -> tuple[int, ...]:
    # Few users have more than 64 groups, and the kernel refuses a buffer that is too small.
    for most in (64, MAX_GROUPS):
        try:
            raw = sock.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, 4 * most)
        except OSError:
            continue
        return struct.unpack(f"{len(raw) // 4}I", raw)
    return ()


def has_hung_up(sock: socket.socket) -> bool:
    """Report whether the peer has closed its socket, and not only its sending half."""
    poll = select.poll()
    poll.register(sock.fileno(), 0)
    return any(event & select.POLLHUP for _, event in poll.poll(0))
