"""Open a thousand streams of one bucket, and print when the last of them received each change.

Arguments: the socket, the path of the stream, and the number of changes to wait for. The output is
"ready", then a JSON array of monotonic times.
"""

from __future__ import annotations

import json
import selectors
import socket
import sys
import time

WATCHERS = 1000


def main(path: str, target: str, changes: int) -> None:
    selector = selectors.EpollSelector()
    for _ in range(WATCHERS):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.connect(path)
        sock.sendall(f"GET {target} HTTP/1.1\r\nHost: b\r\n\r\n".encode())
        text = b""
        while b"\nid: " not in text:
            text += sock.recv(65536)
        selector.register(sock, selectors.EVENT_READ)
    print("ready", flush=True)
    told = 0
    heard: list[float] = []
    while len(heard) < changes:
        for key, _ in selector.select():
            told += key.fileobj.recv(65536).count(b"event: bucket\n")  # type: ignore[union-attr]
        while told >= (len(heard) + 1) * WATCHERS:
            heard.append(time.monotonic())
    print(json.dumps(heard), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
