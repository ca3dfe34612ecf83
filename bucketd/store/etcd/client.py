"""etcd's v3 JSON gateway over aiohttp: one call, tried on one endpoint after another.

Connections, their pool, TLS and the reading of answers are aiohttp's. A call has the same few
headers each time, so it is written without a session's help; a stream has that.

Source: https://etcd.io/docs/v3.5/dev-guide/api_grpc_gateway/. Keys and values travel as base64,
numbers as texts.
"""

from __future__ import annotations

import asyncio
import base64
import errno
import os
import ssl
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson
from aiohttp.connector import Connection
from aiohttp.http import HttpProcessingError
from yarl import URL

from ...errors import BucketdError, Internal, Overloaded, StorageFull, TooLarge
from . import transport

_PAUSE_SECONDS = 0.05
_JSON = {"Content-Type": "application/json"}
_NO_LIMIT = aiohttp.ClientTimeout(total=None)  # where one is set around it
_FAILURES = (aiohttp.ClientError, HttpProcessingError, TimeoutError, OSError, ValueError)
_OK = 200
_OLD_LOGIN = "revision of auth store is old"  # a JWT from before some user or role was changed
# Codes of gRPC.
_UNAUTHENTICATED, _PERMISSION_DENIED = 16, 7
_PASSING = {1, 4, 10, 13, 14}  # cancelled, time is up, aborted, internal, unavailable


@dataclass(frozen=True, slots=True)
class Access:
    """Where the cluster is, and as whom to speak to it; ``timeout`` in seconds, for one call."""

    endpoints: tuple[str, ...]
    timeout: float
    tls: ssl.SSLContext | None = None
    user: str = ""
    password: str = ""


class Lost(Exception):
    """An endpoint did not answer, or not to the point; once ``sent``, it may have been done."""

    def __init__(self, cause: str, sent: bool = True) -> None:
        super().__init__(cause)
        self.sent = sent


class LeaseExpired(Exception):
    """What was to hang on a lease did not, since that has ended."""


class Gateway:
    """Use from one event loop; keeps connections, and the endpoint that answered last."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._session: aiohttp.ClientSession | None = None
        self._targets: dict[int, aiohttp.ClientRequest] = {}
        self._at = 0
        self._token = ""

    @property
    def endpoints(self) -> str:
        """All of them, for a message to an operator."""
        return ", ".join(self._access.endpoints)

    async def call(
        self, path: str, body: dict[str, Any], deadline: float, once: bool = False
    ) -> dict[str, Any]:
        """The answer, by ``deadline`` on the loop's clock; asked again of others unless ``once``.

        ``Lost`` when there is none, BucketdError for a refusal that another try would not change.
        """
        text = orjson.dumps(body)
        while True:
            at = self._at
            try:
                return await self._ask(path, text, deadline)
            except Lost:
                self._leave(at)
                if once or asyncio.get_running_loop().time() + _PAUSE_SECONDS >= deadline:
                    raise
                await self.pause()

    async def stream(
        self, path: str, body: dict[str, Any], deadline: float
    ) -> AsyncGenerator[dict[str, Any], None]:
        """The results of an answer that goes on and on; it has to begin by ``deadline``.

        ``Lost`` where it breaks off: another try asks another endpoint.
        """
        if self._access.user and not self._token:
            await self._log_in(deadline)
        limit = aiohttp.ClientTimeout(
            total=None, connect=max(deadline - asyncio.get_running_loop().time(), 0.001)
        )
        at = self._at
        try:
            async with self._open().post(
                self._url(path), data=orjson.dumps(body), headers=self._headers(), timeout=limit
            ) as response:
                async for line in transport.lines(response.content):
                    yield _result(orjson.loads(line))
        except GeneratorExit:
            raise  # nobody wants more of it; the endpoint is good
        except BaseException as error:
            self._leave(at)
            if isinstance(error, _FAILURES):
                raise Lost(_in_words(error)) from error
            raise
        self._leave(at)
        raise Lost("etcd ended the stream")

    def log_in_again(self) -> None:
        """Before the next request: what was refused may have been so for an old token."""
        self._token = ""

    def _leave(self, at: int) -> None:
        """Ask the next one from now on, unless somebody else came to that meanwhile."""
        if self._at == at:
            self._at = (at + 1) % len(self._access.endpoints)

    async def pause(self) -> None:
        await asyncio.sleep(_PAUSE_SECONDS)

    async def _ask(self, path: str, text: bytes, deadline: float) -> dict[str, Any]:
        if self._access.user and not self._token:
            await self._log_in(deadline)
        status, answer = await self._post(path, text, deadline)
        if status == _OK:
            return answer
        told = str(answer.get("message") or answer.get("error") or "")
        if self._token and (answer.get("code") == _UNAUTHENTICATED or _OLD_LOGIN in told):
            self._token = ""
            raise Lost("etcd wants another login", sent=False)
        raise _refusal(answer)

    async def _log_in(self, deadline: float) -> None:
        given = {"name": self._access.user, "password": self._access.password}
        text = orjson.dumps(given)
        status, answer = await self._post("/v3/auth/authenticate", text, deadline)
        if status != _OK:
            raise _refusal(answer)
        self._token = answer["token"]

    async def _post(self, path: str, text: bytes, deadline: float) -> tuple[int, dict[str, Any]]:
        """One endpoint's status and object. A hung one gets its share of the time, not all."""
        left = deadline - asyncio.get_running_loop().time()
        share = max(self._access.timeout / (len(self._access.endpoints) + 1), 0.1)
        sent = False
        try:
            target = self._target()
            head = self._head(target, path, len(text))
            async with asyncio.timeout(max(min(left, share), 0.001)):
                connection = await self._connect(target)
                sent = True
                return await transport.exchange(connection, head + text)
        except _FAILURES as error:
            raise Lost(_in_words(error), sent) from error

    def _target(self) -> aiohttp.ClientRequest:
        """What is the same in all requests to the endpoint whose turn it is."""
        if self._at not in self._targets:
            self._targets[self._at] = aiohttp.ClientRequest(
                "POST",
                URL(self._access.endpoints[self._at]),
                headers=_JSON,
                skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent"),
                loop=asyncio.get_running_loop(),
                session=self._open(),
            )
        return self._targets[self._at]

    async def _connect(self, target: aiohttp.ClientRequest) -> Connection:
        """A connection there out of aiohttp's pool, or a new one."""
        connector = self._open().connector
        assert connector is not None  # noqa: S101  (it is until the session is closed)
        return await connector.connect(target, [], _NO_LIMIT)

    def _head(self, target: aiohttp.ClientRequest, path: str, length: int) -> bytes:
        headers = {**target.headers, **self._headers(), "Content-Length": str(length)}
        lines = [f"POST {target.url.raw_path.rstrip('/')}{path} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return "\r\n".join([*lines, "\r\n"]).encode()

    def _url(self, path: str) -> str:
        return self._access.endpoints[self._at].rstrip("/") + path

    def _headers(self) -> dict[str, str]:
        token = {"Authorization": self._token} if self._token else {}
        return {**_JSON, **token}

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            # Their count is bounded by the daemon's own connections.
            connector = aiohttp.TCPConnector(limit=0, ssl=self._access.tls or True)
            self._session = aiohttp.ClientSession(connector=connector, auto_decompress=False)
        return self._session

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()


def _result(said: dict[str, Any]) -> dict[str, Any]:
    """One message of a stream; Lost or BucketdError where it is a refusal."""
    if "result" in said:
        result: dict[str, Any] = said["result"]
        return result
    error = said.get("error")  # a text, where it is not of the watch
    raise _refusal(error if isinstance(error, dict) else said)


def _in_words(error: Exception) -> str:
    """Without the endpoint, which is no matter of a job's."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    number = error.errno if isinstance(error, OSError) else None
    known = number is not None and number in errno.errorcode
    return os.strerror(number).lower() if known and number else type(error).__name__


def _refusal(answer: dict[str, Any]) -> BucketdError | Lost | LeaseExpired:
    """What etcd's error means here; its text is told, for it names no key and no value."""
    code, told = answer.get("code"), str(answer.get("message") or answer.get("error") or "")
    if "space exceeded" in told:
        return StorageFull(
            "cannot write the bucket: etcd is at its space limit; nothing was changed; "
            "compact and defragment it, or raise its quota, then disarm its alarm"
        )
    if "too large" in told:
        return TooLarge(
            "cannot write the bucket: it is over etcd's limit for one request; nothing was changed"
        )
    if "lease not found" in told:
        return LeaseExpired(told)
    if code in _PASSING or "no leader" in told:
        return Lost(told)
    if "too many requests" in told:
        return Overloaded("cannot use etcd: it has too much to do; try again")
    if code in (_UNAUTHENTICATED, _PERMISSION_DENIED) or "auth" in told or "user name" in told:
        return Internal(
            f"cannot use etcd: it refuses this daemon ({told}); check [store.etcd] user and "
            "password_file, and what that user may do"
        )
    return Internal(f"cannot use etcd: it answers {told!r}")


def b64(text: bytes) -> str:
    return base64.b64encode(text).decode()
