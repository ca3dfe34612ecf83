"""Create a bucket at most once, even if a hung etcd node applies the request late.

A change of a stored bucket is applied at most once by itself: it compares the key's revision,
which never recurs. The absence of a bucket recurs when the bucket is removed. So a transaction
that creates a bucket also compares a key of this host, and writes the bucket's ETag there. That
key shows afterwards whether the transaction was applied.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

from .client import EtcdClient, LeaseExpired, Unavailable, b64
from .session import Session


@dataclass(slots=True)
class IdempotencyKey:
    """A key that one transaction at a time compares and writes.

    ``mod_revision`` is None while the key does not exist. With ``maybe_applied``, a transaction
    with this key has been applied, or may be applied yet.
    """

    name: bytes
    mod_revision: str | None = None
    maybe_applied: bool = False

    def add_to(self, transaction: dict[str, Any], etag: str) -> None:
        """Make a transaction fail if another one with this key has been applied."""
        transaction["compare"].append(self._unchanged())
        transaction["success"].append(self._put(etag, {"ignore_lease": True}))

    def replace(self, lease: dict[str, Any]) -> dict[str, Any]:
        """Return a transaction that makes earlier ones fail, or reads which one was applied."""
        return {
            "compare": [self._unchanged()],
            "success": [self._put("", lease)],
            "failure": [{"request_range": {"key": b64(self.name)}}],
        }

    def _unchanged(self) -> dict[str, Any]:
        revision = self.mod_revision or "0"
        return {"key": b64(self.name), "target": "MOD", "mod_revision": revision}

    def _put(self, value: str, lease: dict[str, Any]) -> dict[str, Any]:
        return {"request_put": {"key": b64(self.name), "value": b64(value.encode()), **lease}}


class IdempotencyKeys:
    """The keys of this host, each for one transaction at a time, which creates a bucket."""

    def __init__(self, client: EtcdClient, session: Session) -> None:
        self._client, self._session = client, session
        # The directory's name is older than that of this module, and hosts of a fleet share it.
        self._directory = f"{client.options.prefix}fence/{session.id}"
        self._free: list[IdempotencyKey] = []
        self._count = 0

    async def acquire(self, deadline: float) -> IdempotencyKey:
        """Return a key that exists, and that no transaction uses.

        Raises BucketdError, or Unavailable: the bucket's own transaction was not sent.
        """
        if self._free:
            key = self._free.pop()
        else:
            self._count += 1
            key = IdempotencyKey(f"{self._directory}/{self._count}".encode())
        try:
            if key.maybe_applied:
                try:
                    await self.invalidate(key, "", deadline)
                except LeaseExpired:
                    key.mod_revision = None
                key.maybe_applied = False
            if key.mod_revision is None:
                answer = await self._session.call_with_lease(
                    "/v3/kv/txn", lambda lease: key.replace({"lease": lease}), deadline
                )
                _update(key, answer)
        except Unavailable as error:
            raise Unavailable(str(error), maybe_applied=False) from error
        finally:
            if key.maybe_applied or key.mod_revision is None:
                self._free.append(key)
        return key

    def release(self, key: IdempotencyKey, created_at: str | None = None) -> None:
        """Take a key back, with the revision at which its transaction created a bucket."""
        key.mod_revision, key.maybe_applied = created_at or key.mod_revision, False
        self._free.append(key)

    def release_maybe_applied(self, key: IdempotencyKey) -> None:
        """Take a key back whose transaction may have been applied, or may be yet."""
        key.maybe_applied = True
        self._free.append(key)

    def forget_expired(self) -> None:
        """Put the keys again before their next use: they have expired with their lease."""
        for key in self._free:
            key.mod_revision, key.maybe_applied = None, False

    async def invalidate(self, key: IdempotencyKey, etag: str, deadline: float) -> str | None:
        """Return the revision at which the bucket with this ETag was created.

        None means that it was not created and never will be. Raises BucketdError, Unavailable, or
        LeaseExpired if the outcome can no longer be found out.
        """
        transaction = key.replace({"ignore_lease": True})
        answer = await self._client.call("/v3/kv/txn", transaction, deadline)
        # Another value comes from an earlier invalidation whose answer was lost.
        return key.mod_revision if _update(key, answer) == etag.encode() else None

    async def verify(self, key: IdempotencyKey, etag: str, deadline: float) -> bool:
        """Report whether the bucket was created. Raises BucketdError or Unavailable."""
        answer = await self._client.call("/v3/kv/range", {"key": b64(key.name)}, deadline)
        kvs = answer.get("kvs") or [{}]
        return bool(kvs[0].get("value") == b64(etag.encode()))


def _update(key: IdempotencyKey, answer: dict[str, Any]) -> bytes | None:
    """Set the key's revision; return its value, if another transaction has replaced it."""
    if answer.get("succeeded"):
        key.mod_revision = str(answer["header"]["revision"])
        return None
    kvs = answer["responses"][0]["response_range"].get("kvs")
    if not kvs:
        raise LeaseExpired("the lease of this host has expired")
    key.mod_revision = str(kvs[0]["mod_revision"])
    return base64.b64decode(kvs[0].get("value", ""))
