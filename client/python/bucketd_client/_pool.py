"""Connections that are idle, kept for the next call of any thread."""

from __future__ import annotations

import os
import select
import socket
import threading

KEPT = 8  # for each socket path; whoever comes with more closes them


class Pool:
    """Idle connections by path. A fork leaves the child none of its parent's."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: dict[str, list[socket.socket]] = {}
        self._pid = os.getpid()

    def take(self, path: str) -> socket.socket | None:
        """A connection that the daemon has not closed; None where there is none."""
        if self._pid != os.getpid():
            self.forget()
        with self._lock:
            idle = self._idle.get(path, [])
            while idle:
                sock = idle.pop()
                if _is_quiet(sock):
                    return sock
                sock.close()
        return None

    def give(self, path: str, sock: socket.socket) -> None:
        """Keep a connection whose last answer was read to its end."""
        with self._lock:
            idle = self._idle.setdefault(path, [])
            if self._pid == os.getpid() and len(idle) < KEPT:
                idle.append(sock)
                return
        sock.close()

    def forget(self) -> None:
        """In a forked child: the connections are the parent's, and so may be the lock."""
        theirs, self._idle = self._idle, {}
        self._lock, self._pid = threading.Lock(), os.getpid()
        for sockets in theirs.values():
            for sock in sockets:
                sock.close()  # our copy of the descriptor; the parent's stays open


def _is_quiet(sock: socket.socket) -> bool:
    """Whether the other end neither closed an idle connection nor sent anything unasked."""
    try:
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        return not poll.poll(0)
    except (OSError, ValueError):
        return False
