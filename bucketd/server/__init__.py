"""The socket and its connections: HTTP/1.1 requests in, responses and event streams out."""

from .limits import ServerLimits
from .listener import SocketError, bind, unbind
from .server import Server

__all__ = ["Server", "ServerLimits", "SocketError", "bind", "unbind"]
