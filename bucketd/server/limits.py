"""What one connection may take of the daemon: sizes, times, and a share of all connections."""

from __future__ import annotations

from typing import Protocol

MAX_LINE_BYTES = 32 * 1024  # two names of 128 emoji and a few keys, percent-encoded
MAX_HEADER_BYTES = 32 * 1024  # names and values together; lists in them take a while to parse
MAX_CHUNKED_BYTES = 16 * 1024  # of a chunked body at a time, since each byte may be a chunk
MAX_UNREAD_BYTES = 512 * 1024  # of a stream, waiting for its reader
MAX_USER_FRACTION = 4  # a user who is no operator may have a quarter of all connections
LINGER_SECONDS = 2.0  # how long a refused upload is read on, so that its sender sees the response
PEER_CHECK_SECONDS = 0.25  # how often a peer is looked after that is not read from
CLOSE_SECONDS = 1.0  # how long the last bytes of a connection may take at a stop


class ServerLimits(Protocol):
    """The limits that are settings."""

    @property
    def max_connections(self) -> int: ...
    @property
    def header_timeout_seconds(self) -> float: ...
    @property
    def idle_timeout_seconds(self) -> float: ...
