"""That this host is there: a key in etcd under a lease, which ends by itself when the host dies.

The beats of a watch hang on the same lease, so a host that was killed leaves nothing behind.
Source: https://etcd.io/docs/v3.5/learning/api/#lease-api.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import secrets
import socket
from collections.abc import Callable
from typing import Any

import orjson

from ... import __version__
from ...errors import BucketdError
from ...model.bucket import timestamp
from .client import Gateway, LeaseExpired, Lost, b64
from .keys import below

log = logging.getLogger(__name__)
LEASE_SECONDS = 10
RENEW_SECONDS = 3.0
_STARTED_AT = timestamp()  # the same in each shard, or the host would count as several


class Session:
    """Of one host below one prefix; ``keep`` it up, and ``leave`` at the end."""

    def __init__(self, gateway: Gateway, prefix: str, timeout: float) -> None:
        self._gateway, self._timeout = gateway, timeout
        self.id = secrets.token_hex(8)
        self._hosts = f"{prefix}host/"
        self._about = orjson.dumps(
            {"host": socket.gethostname(), "version": __version__, "started_at": _STARTED_AT}
        )
        self._lease: str | None = None
        self._granting = asyncio.Lock()
        self._told: str | None = None  # the lease that the host's key hangs on

    async def keep(self, stop: asyncio.Event) -> None:
        """Tell that this host is there, until ``stop``; nothing else depends on it.

        Whoever reads the log is told when etcd is away, once, and when it is back.
        """
        away = False
        while not stop.is_set():
            try:
                if not await self._renewed():
                    await self.put(f"{self._hosts}{self.id}".encode(), self._about)
                    self._told = self._lease
                if away:
                    log.warning("etcd is back (%s)", self._gateway.endpoints)
                away = False
            except (BucketdError, Lost) as error:
                level = logging.DEBUG if away else logging.WARNING
                log.log(level, "cannot use etcd (%s): %s", self._gateway.endpoints, error)
                away = True
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), RENEW_SECONDS)

    async def put(
        self, name: bytes, value: bytes = b"", deadline: float | None = None
    ) -> dict[str, Any]:
        """Put a key that is gone when this host is. Raises BucketdError or Lost."""

        def body(lease: str) -> dict[str, Any]:
            return {"key": b64(name), "value": b64(value), "lease": lease}

        return await self.hang("/v3/kv/put", body, deadline or self._deadline())

    async def hang(
        self, path: str, body: Callable[[str], dict[str, Any]], deadline: float
    ) -> dict[str, Any]:
        """Ask for what hangs something on this host's lease. Raises BucketdError or Lost."""
        while True:
            lease = await self._held(deadline)
            try:
                return await self._gateway.call(path, body(lease), deadline)
            except LeaseExpired as error:
                self._lease = None if self._lease == lease else self._lease
                if asyncio.get_running_loop().time() >= deadline:
                    raise Lost(str(error)) from error

    async def hosts(self, deadline: float) -> list[dict[str, Any]]:
        """Those that are there, by name. Raises BucketdError or Lost."""
        begin, end = below(self._hosts)
        body = {"key": b64(begin), "range_end": b64(end)}
        answer = await self._gateway.call("/v3/kv/range", body, deadline)
        found = [_about(kv) for kv in answer.get("kvs", ())]
        return sorted(filter(None, found), key=lambda host: (host["host"], host["started_at"]))

    async def leave(self) -> None:
        """Remove what hangs on the lease; it ends without that, too."""
        if self._lease is not None:
            with contextlib.suppress(BucketdError, Lost, LeaseExpired):
                body = {"ID": self._lease}
                await self._gateway.call("/v3/lease/revoke", body, self._deadline())

    async def _renewed(self) -> bool:
        """Whether the lease holds that the host's key hangs on."""
        if self._lease is None or self._lease != self._told:
            return False
        body = {"ID": self._lease}
        answer = await self._gateway.call("/v3/lease/keepalive", body, self._deadline())
        if int(answer.get("result", {}).get("TTL", 0)) <= 0:
            self._lease = None
        return self._lease is not None

    async def _held(self, deadline: float) -> str:
        """The one lease of this host, granted where there is none."""
        async with self._granting:
            if self._lease is None:
                body = {"TTL": str(LEASE_SECONDS)}
                answer = await self._gateway.call("/v3/lease/grant", body, deadline)
                self._lease = str(answer["ID"])
            return self._lease

    def _deadline(self) -> float:
        return asyncio.get_running_loop().time() + self._timeout


def _about(found: dict[str, Any]) -> dict[str, Any] | None:
    try:
        value = orjson.loads(base64.b64decode(found["value"]))
        return {name: str(value[name]) for name in ("host", "version", "started_at")}
    except (ValueError, KeyError, TypeError):
        return None
