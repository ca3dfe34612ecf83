"""Announce this host: a key in etcd under a lease, which expires when the host dies.

The other keys of the host refer to the same lease, so a killed host leaves nothing behind.
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
from .client import EtcdClient, LeaseExpired, Unavailable, b64
from .keys import KeyValue, key_of, prefix_range

log = logging.getLogger(__name__)
LEASE_SECONDS = 10
RENEW_SECONDS = 3.0
# After a failure; the lease must not expire because of an outage that is shorter.
RETRY_SECONDS = 0.5
# The value is the same in each shard; otherwise the host would count as several hosts.
_STARTED_AT = timestamp()


class Session:
    """The session of this host: ``run`` it, and ``end`` it."""

    def __init__(self, client: EtcdClient) -> None:
        self._client = client
        self.id = secrets.token_hex(8)
        self._hosts = f"{client.options.prefix}host/"
        self._description = orjson.dumps(
            {"host": socket.gethostname(), "version": __version__, "started_at": _STARTED_AT}
        )
        self._lease: str | None = None
        # The lease was last requested then, by the loop's clock: it lives for LEASE_SECONDS.
        self._requested = float("-inf")
        # The lease of the host's key.
        self._announced: str | None = None
        self._granting = asyncio.Lock()
        self.problem: str | None = None

    @property
    def lease(self) -> str | None:
        """Return the lease of this host; None if it has none now."""
        return self._lease

    @property
    def valid_until(self) -> float:
        """Return until when, by the loop's clock, the lease certainly has not expired."""
        return self._requested + LEASE_SECONDS

    async def run(self, stop: asyncio.Event) -> None:
        """Keep the lease until ``stop``; log once when etcd becomes unavailable or available."""
        while not stop.is_set():
            try:
                if not await self._renew():
                    key = f"{self._hosts}{self.id}".encode()
                    await self.put_with_lease(key, self._description)
                    self._announced = self._lease
                if self.problem:
                    log.warning("etcd is back (%s)", self._client.endpoints)
                self.problem = None
            except (BucketdError, Unavailable, LeaseExpired) as error:
                level = logging.DEBUG if self.problem else logging.WARNING
                log.log(level, "cannot use etcd (%s): %s", self._client.endpoints, error)
                self.problem = f"cannot keep the lease of this host in etcd: {error}"
            except Exception as error:
                level = logging.DEBUG if self.problem else logging.ERROR
                log.log(level, "unexpected error while renewing the lease in etcd", exc_info=error)
                self.problem = (
                    "cannot keep the lease of this host in etcd: unexpected error "
                    f"({type(error).__name__}); the log has it"
                )
            with contextlib.suppress(TimeoutError):
                pause = RETRY_SECONDS if self.problem else RENEW_SECONDS
                await asyncio.wait_for(stop.wait(), pause)

    async def put_with_lease(self, key: bytes, value: bytes = b"") -> dict[str, Any]:
        """Put a key that expires with this host. Raises BucketdError or Unavailable."""

        def request(lease: str) -> dict[str, Any]:
            return {"key": b64(key), "value": b64(value), "lease": lease}

        return await self.call_with_lease("/v3/kv/put", request, self._client.deadline())

    async def call_with_lease(
        self, path: str, request: Callable[[str], dict[str, Any]], deadline: float
    ) -> dict[str, Any]:
        """Call with this host's lease, or a new one. Raises BucketdError or Unavailable."""
        while True:
            async with self._granting:
                if self._lease is None:
                    grant = {"TTL": str(LEASE_SECONDS)}
                    requested = asyncio.get_running_loop().time()
                    answer = await self._client.call("/v3/lease/grant", grant, deadline)
                    self._lease, self._requested = str(answer["ID"]), requested
                lease = self._lease
            try:
                return await self._client.call(path, request(lease), deadline)
            except LeaseExpired as error:
                # Another call may have got a new lease meanwhile.
                self._lease = None if self._lease == lease else self._lease
                if asyncio.get_running_loop().time() >= deadline:
                    raise Unavailable(str(error)) from error

    async def hosts(self, deadline: float) -> tuple[list[dict[str, Any]], list[str]]:
        """Return the hosts that are up, by name, and a sentence for each key that is of none.

        Raises BucketdError or Unavailable.
        """
        begin, end = prefix_range(self._hosts)
        request = {"key": b64(begin), "range_end": b64(end)}
        answer = await self._client.call("/v3/kv/range", request, deadline)
        hosts, problems = [], []
        for kv in answer.get("kvs", ()):
            host = _host(kv)
            if host is not None:
                hosts.append(host)
            else:
                name = key_of(kv).decode(errors="backslashreplace")
                problems.append(f"cannot read the host {name!r} in etcd: its value is not valid")
        return sorted(hosts, key=lambda host: (host["host"], host["started_at"])), problems

    async def end(self, keep_lease: bool) -> None:
        """Revoke the lease, which removes the host's keys; without an answer the lease expires.

        With ``keep_lease``, remove only the key that announces this host.
        """
        if self._lease is None:
            return
        path, request = "/v3/lease/revoke", {"ID": self._lease}
        if keep_lease:
            path, request = "/v3/kv/deleterange", {"key": b64(f"{self._hosts}{self.id}".encode())}
        with contextlib.suppress(BucketdError, Unavailable, LeaseExpired):
            await self._client.call(path, request, self._client.deadline())

    async def _renew(self) -> bool:
        """Report whether the lease of the host's key is still valid, and renew it."""
        if self._lease is None or self._lease != self._announced:
            return False
        request = {"ID": self._lease}
        requested = asyncio.get_running_loop().time()
        answer = await self._client.call("/v3/lease/keepalive", request, self._client.deadline())
        if int(answer.get("result", {}).get("TTL", 0)) <= 0:
            self._lease = None
        else:
            self._requested = requested
        return self._lease is not None


def _host(kv: KeyValue) -> dict[str, Any] | None:
    """Return a host's name, version and start; None if the value is not valid."""
    try:
        value = orjson.loads(base64.b64decode(kv["value"]))
        found = {name: value[name] for name in ("host", "version", "started_at")}
    except (ValueError, KeyError, TypeError):
        return None
    return found if all(isinstance(text, str) for text in found.values()) else None
