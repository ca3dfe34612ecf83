"""A TCP port on loopback that leads to a unix socket, for a tool that knows only URLs."""

from __future__ import annotations

import contextlib
import select
import socket
import socketserver
import threading
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def relayed(path: str, listener: socket.socket) -> Iterator[None]:
    """While it lasts, whoever connects to the listener reaches the server of the socket."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as there:
                there.connect(path)
                _relay(self.request, there)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

        def handle_error(self, *_about: Any) -> None:
            """One end has gone; the other hears of it."""

    with Server(listener.getsockname(), Handler, bind_and_activate=False) as server:
        server.socket.close()
        server.socket = listener.dup()  # a module may come to its fixture twice
        serving = threading.Thread(target=server.serve_forever, args=(0.05,))
        serving.start()
        try:
            yield
        finally:
            server.shutdown()
            serving.join()


def _relay(one: socket.socket, other: socket.socket) -> None:
    peer_of = {one: other, other: one}
    while True:
        for sock in select.select(list(peer_of), [], [])[0]:
            chunk = sock.recv(65536)
            if not chunk:
                return
            peer_of[sock].sendall(chunk)
