"""Call etcd's v3 JSON gateway: one call, failover between endpoints, and what its errors mean.

The connections are asyncio's streams, kept open between calls, with one call at a time. A session
of aiohttp would take 0.2 ms more processor time per call, which doubles the cost of a call.

Source: https://etcd.io/docs/v3.5/dev-guide/api_grpc_gateway/. Keys and values travel as base64,
numbers as strings.
"""

from __future__ import annotations

import asyncio
import base64
import errno
import os
import socket
import ssl
from collections import deque
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import orjson

from ...errors import BucketdError, Internal, Overloaded, StorageFull, TooLarge
from ...model.revisions import NO_HISTORY, HistoryLimits

RETRY_PAUSE_SECONDS = 0.05
_MAX_IDLE_SECONDS = 15.0
_READ_BYTES = 1024 * 1024
_FAILURES = (OSError, EOFError, ValueError, asyncio.LimitOverrunError)
_OK = 200
# A token from before a change of any user or role is refused with this message.
_OLD_TOKEN = "revision of auth store is old"  # noqa: S105
_GRPC_CODES = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND",
    "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED",
    "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
)  # fmt: skip
_TRANSIENT = {"CANCELLED", "DEADLINE_EXCEEDED", "ABORTED", "INTERNAL", "UNAVAILABLE"}


@dataclass(frozen=True, slots=True)
class EtcdOptions:
    """Where the cluster is, how to log in, and what to keep there; times in seconds.

    Every key begins with ``prefix``. While the cluster does not answer, a read may return a value
    up to ``stale_seconds`` old; at most ``stale_bytes`` of such values are cached. ``history`` has
    the limits of the histories of buckets.
    """

    endpoints: tuple[str, ...]
    prefix: str
    timeout: float
    tls: ssl.SSLContext | None = None
    user: str = ""
    password: str = field(default="", repr=False)
    stale_seconds: float = 0.0
    stale_bytes: int = 0
    history: HistoryLimits = NO_HISTORY


class Unavailable(Exception):
    """No valid answer came; with ``maybe_applied`` the request may have been applied, or may still
    be.
    """

    def __init__(self, cause: str, maybe_applied: bool = True) -> None:
        super().__init__(cause)
        self.maybe_applied = maybe_applied


class LeaseExpired(Exception):
    """Nothing was put, since the lease of the request has expired."""


class _Connection:
    """One HTTP/1.1 connection: a request, its response, then perhaps the next request."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._keep_alive = False
        self.idle_since = 0.0

    @property
    def reusable(self) -> bool:
        return self._keep_alive and not (self._reader.at_eof() or self._writer.is_closing())

    async def request(self, request: bytes) -> tuple[int, AsyncGenerator[bytes, None]]:
        """Send a request, and return the response's status and its body, piece by piece."""
        self._keep_alive = False
        self._writer.write(request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        version, status, *_ = first.split(" ")
        if not version.startswith("HTTP/1."):
            raise ValueError("not an HTTP response")
        fields = (line.partition(":") for line in lines)
        headers = {name.lower(): value.strip().lower() for name, _, value in fields}
        return int(status), self._body(headers, version)

    async def _body(self, headers: dict[str, str], version: str) -> AsyncGenerator[bytes, None]:
        reader = self._reader
        ends_with_connection = False
        if headers.get("transfer-encoding", "identity") != "identity":
            while size := int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16):
                yield await reader.readexactly(size)
                await reader.readexactly(2)
            while await reader.readuntil(b"\r\n") != b"\r\n":
                pass  # a trailer field
        elif "content-length" in headers:
            yield await reader.readexactly(int(headers["content-length"]))
        else:
            ends_with_connection = True
            while piece := await reader.read(_READ_BYTES):
                yield piece
        closes = "close" in headers.get("connection", "") or version == "HTTP/1.0"
        self._keep_alive = not (ends_with_connection or closes)

    def close(self) -> None:
        """Close at once, and drop the bytes that were not sent."""
        self._writer.transport.abort()


class _Endpoint:
    """One node of the cluster, and the idle connections to it."""

    def __init__(self, url: str, tls: ssl.SSLContext | None) -> None:
        parts = urlsplit(url)
        encrypted = parts.scheme.lower() == "https"
        self._host = parts.hostname
        self._port = parts.port or (443 if encrypted else 80)
        self._tls = (tls or True) if encrypted else None
        self._path = parts.path.rstrip("/")
        self._host_field = parts.netloc.rpartition("@")[2]
        self._idle: deque[_Connection] = deque()

    async def connect(self) -> _Connection:
        """Return the connection that was used last, or a new one."""
        while self._idle:
            connection = self._idle.pop()
            if connection.reusable:
                return connection
            connection.close()
        return _Connection(
            *await asyncio.open_connection(self._host, self._port, ssl=self._tls, limit=_READ_BYTES)
        )

    def request(self, path: str, token: str, body: bytes) -> bytes:
        authorization = f"Authorization: {token}\r\n" if token else ""
        head = (
            f"POST {self._path}{path} HTTP/1.1\r\nHost: {self._host_field}\r\n"
            f"{authorization}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    def release(self, connection: _Connection) -> None:
        """Keep a connection for the next call, if it can be used again."""
        if not connection.reusable:
            connection.close()
            return
        connection.idle_since = now = asyncio.get_running_loop().time()
        self._idle.append(connection)
        while self._idle[0].idle_since < now - _MAX_IDLE_SECONDS:
            self._idle.popleft().close()

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()


class EtcdClient:
    """Call the endpoint that answered last. Use from one event loop, and ``close`` when done."""

    def __init__(self, options: EtcdOptions) -> None:
        self.options = options
        self._endpoints = [_Endpoint(url, options.tls) for url in options.endpoints]
        self._current = 0
        self._token = ""

    @property
    def endpoints(self) -> str:
        """Return all endpoints, for a message to an operator."""
        return ", ".join(self.options.endpoints)

    def deadline(self) -> float:
        """Return the deadline of a call that starts now, by the loop's clock."""
        return asyncio.get_running_loop().time() + self.options.timeout

    async def call(
        self, path: str, body: dict[str, Any], deadline: float, once: bool = False
    ) -> dict[str, Any]:
        """Return etcd's answer; without one, call the next endpoint until ``deadline``.

        With ``once``, call only one endpoint. Raises Unavailable without an answer, LeaseExpired,
        and BucketdError for a refusal that another attempt would not change.
        """
        encoded = orjson.dumps(body)
        while True:
            asked = self._current
            try:
                if self.options.user and not self._token:
                    await self._log_in(deadline)
                status, answer = await self._post(path, encoded, deadline)
                if status == _OK:
                    return answer
                raise self._refusal(answer)
            except Unavailable:
                self._leave(asked)
                loop = asyncio.get_running_loop()
                if once or loop.time() + RETRY_PAUSE_SECONDS >= deadline:
                    raise
                await asyncio.sleep(RETRY_PAUSE_SECONDS)

    async def stream(
        self, path: str, body: dict[str, Any], deadline: float
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Yield the results of an endless response, which has to begin by ``deadline``.

        Raises Unavailable where it breaks off, and BucketdError for a refusal.
        """
        if self.options.user and not self._token:
            await self._log_in(deadline)
        asked, connection = self._current, None
        endpoint = self._endpoints[asked]
        try:
            async with asyncio.timeout_at(deadline):
                connection = await endpoint.connect()
                request = endpoint.request(path, self._token, orjson.dumps(body))
                _, pieces = await connection.request(request)
            async for line in _lines(pieces):
                message = orjson.loads(line)
                if "result" not in message:
                    error = message.get("error")
                    raise self._refusal(error if isinstance(error, dict) else message)
                yield message["result"]
            raise Unavailable("cannot follow changes in etcd: it ended the stream")
        except GeneratorExit:
            # The caller has stopped reading, which says nothing about the endpoint.
            raise
        except BaseException as error:
            self._leave(asked)
            if isinstance(error, _FAILURES):
                raise Unavailable(_cause(error)) from error
            raise
        finally:
            if connection is not None:
                connection.close()

    def forget_token(self) -> None:
        """Log in before the next call: a refusal may be due to an old token."""
        self._token = ""

    async def close(self) -> None:
        for endpoint in self._endpoints:
            endpoint.close()
        # The event loop closes the sockets in its next iteration.
        await asyncio.sleep(0)

    def _leave(self, asked: int) -> None:
        """Switch to the next endpoint, unless another call has already done so."""
        if self._current == asked:
            self._current = (asked + 1) % len(self._endpoints)

    async def _log_in(self, deadline: float) -> None:
        login = orjson.dumps({"name": self.options.user, "password": self.options.password})
        try:
            status, answer = await self._post("/v3/auth/authenticate", login, deadline)
            if status != _OK:
                raise self._refusal(answer)
        except Unavailable as error:
            # The request itself was not sent; only the login may have been applied.
            raise Unavailable(str(error), maybe_applied=False) from error
        self._token = str(answer["token"])

    async def _post(self, path: str, body: bytes, deadline: float) -> tuple[int, dict[str, Any]]:
        """Return one endpoint's status and answer; raise Unavailable without one.

        The time limit is this endpoint's share of the time, so that a hung endpoint leaves some
        for the others.
        """
        left = deadline - asyncio.get_running_loop().time()
        share = max(self.options.timeout / (len(self._endpoints) + 1), 0.1)
        endpoint, connection = self._endpoints[self._current], None
        try:
            async with asyncio.timeout(max(min(left, share), 0.001)):
                connection = await endpoint.connect()
                status, pieces = await connection.request(endpoint.request(path, self._token, body))
                answer = orjson.loads(b"".join([piece async for piece in pieces]))
            if not isinstance(answer, dict):
                raise ValueError("not a JSON object")  # noqa: TRY004
        except BaseException as error:
            if connection is not None:
                # The rest of this response would be taken for the response to another request.
                connection.close()
            if isinstance(error, _FAILURES):
                raise Unavailable(_cause(error), connection is not None) from error
            raise
        endpoint.release(connection)
        return status, answer

    def _refusal(self, answer: dict[str, Any]) -> BucketdError | Unavailable | LeaseExpired:
        """Return the error for etcd's refusal, without etcd's message, which may name a key."""
        code = answer.get("code", answer.get("grpc_code"))
        message = str(answer.get("message") or answer.get("error") or "")
        known = isinstance(code, int) and 0 <= code < len(_GRPC_CODES)
        name = _GRPC_CODES[code] if known and code is not None else "UNKNOWN"
        if self._token and (name == "UNAUTHENTICATED" or _OLD_TOKEN in message):
            self._token = ""
            return Unavailable("cannot call etcd: it asks for another login", maybe_applied=False)
        if "space exceeded" in message:
            return StorageFull(
                "cannot write the bucket: etcd is at its space limit; nothing was changed; "
                "compact and defragment it, or raise its quota, then disarm its alarm"
            )
        if "too large" in message:
            return TooLarge(
                "cannot write the bucket: it exceeds etcd's limit for one request; "
                "nothing was changed; store less, or raise --max-request-bytes of etcd"
            )
        if "lease not found" in message:
            return LeaseExpired("the lease of this host has expired")
        words = name.lower().replace("_", " ")
        if name in _TRANSIENT or "no leader" in message:
            return Unavailable(words)
        if "too many requests" in message:
            return Overloaded("cannot use etcd: it has too many requests; try again")
        denied = name in ("UNAUTHENTICATED", "PERMISSION_DENIED")
        if denied or "auth" in message or "user name" in message:
            return Internal(
                f"cannot use etcd: it refuses this daemon ({words}); check [store.etcd] user and "
                "password_file, and what that user may do"
            )
        return Internal(f"cannot use etcd: it answers {words!r}; its own log says why")


async def _lines(pieces: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """Yield the lines that are not empty, of any length."""
    parts: list[bytes] = []
    async for piece in pieces:
        parts.append(piece)
        if b"\n" in piece:
            *lines, rest = b"".join(parts).split(b"\n")
            parts = [rest]
            for line in filter(None, lines):
                yield line
    # A refusal has no newline.
    if last := b"".join(parts):
        yield last


def _cause(error: Exception) -> str:
    """Return the cause of a failure without the endpoint, which jobs need not know."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed ({error.reason})"
    if isinstance(error, socket.gaierror):
        return "its host name cannot be resolved"
    if isinstance(error, OSError):
        known = error.errno in errno.errorcode
        return os.strerror(error.errno).lower() if known and error.errno else "cannot connect"
    if isinstance(error, EOFError):
        return "the connection was closed"
    return "the answer is not valid"


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()
