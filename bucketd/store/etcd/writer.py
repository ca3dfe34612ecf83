"""Change buckets in etcd: compare-and-swap of a key until one succeeds, also if answers are lost.

The writer remembers the value of its last change, so that a host that keeps writing a bucket needs
one round trip. The transaction compares the remembered value, so an outdated value is never used.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ...errors import (
    BucketdError,
    Held,
    HoldLost,
    Internal,
    Overloaded,
    StorageFull,
    TooLarge,
)
from ...model.apply import apply
from ...model.author import UNKNOWN, Author
from ...model.bucket import BucketKey, Snapshot
from ...model.changes import Change
from ...model.preconditions import Preconditions
from ...model.revisions import HistoryLimits
from . import history_keys, keys, stale_cache
from .client import RETRY_PAUSE_SECONDS, EtcdClient, LeaseExpired, Unavailable, b64
from .hold_keys import Guard
from .holds import EtcdHolds
from .idempotency import IdempotencyKey, IdempotencyKeys
from .keys import StoredValue
from .reader import Reader
from .trash import EtcdTrash, TrashPut, TrashTake

log = logging.getLogger(__name__)
_MAX_REMEMBERED = 1000
_MAX_REMEMBERED_BYTES = 16 * 1024 * 1024
_MAX_ATTEMPTS = 200


@dataclass(frozen=True, slots=True)
class Write:
    """A change of a bucket with its preconditions."""

    key: BucketKey
    change: Change
    preconditions: Preconditions
    automation: str | None
    author: Author = UNKNOWN


@dataclass(slots=True)
class CompareAndSwap:
    """One transaction from ``before`` to ``after``, sent again until it is answered.

    It fails where ``guard`` does: a hold has ended, or another one excludes the write. What it puts
    into the ``trash``, or takes out of it, goes in the same transaction.
    With ``read_on_failure``, a failed transaction returns the current value, which is slower.
    ``maybe_applied``: an attempt without an answer may have been applied, or may still be.
    """

    write: Write
    before: StoredValue
    after: Snapshot
    guard: Guard
    deadline: float
    read_on_failure: bool
    trash: TrashPut | TrashTake | None = None
    maybe_applied: bool = False
    asked_at: float = 0.0
    idempotency_key: IdempotencyKey | None = None

    def transaction(self, prefix: str, history: HistoryLimits) -> dict[str, Any]:
        write = self.write
        key = b64(keys.encode_key(prefix, self.write.key))
        if self.after.revision:
            value = b64(keys.encode_value(self.write.key, self.after))
            operation = {"request_put": {"key": key, "value": value}}
        else:
            operation = {"request_delete_range": {"key": key}}
        revision = str(self.before.mod_revision)
        trash = [] if self.trash is None else [self.trash]
        return {
            "compare": [
                {"key": key, "target": "MOD", "mod_revision": revision},
                *(one.compare for one in trash),
                *self.guard.compares(),
            ],
            "success": [
                operation,
                *(one.operation for one in trash),
                *history_keys.operations(
                    prefix,
                    history,
                    write.key,
                    self.before.snapshot,
                    self.after,
                    write.change,
                    write.author,
                ),
            ],
            "failure": [{"request_range": {"key": key}}, *self.guard.reads()]
            if self.read_on_failure
            else [],
        }

    def has_written(self, now: StoredValue) -> bool:
        """Report whether the swap left this value: ETags never repeat, but absence does."""
        if self.after.revision:
            return now.snapshot.etag == self.after.etag
        return not now.mod_revision

    def message(self, cause: str) -> str:
        return f"cannot change {self.write.key}: {cause}"


class Writer:
    """Change buckets; ``retries`` counts the swaps that failed because of other hosts' changes."""

    def __init__(
        self,
        client: EtcdClient,
        reader: Reader,
        idempotency_keys: IdempotencyKeys,
        holds: EtcdHolds,
        trash: EtcdTrash,
    ) -> None:
        self._client, self._reader, self._holds, self._trash = client, reader, holds, trash
        self._idempotency_keys = idempotency_keys
        self._prefix, self._history = client.options.prefix, client.options.history
        self._remembered: OrderedDict[BucketKey, StoredValue] = OrderedDict()
        self._remembered_bytes = 0
        self.retries = 0

    async def commit(self, write: Write, deadline: float) -> Snapshot:
        """Make the change and return the resulting state. Raises BucketdError.

        The outcome is unknown only if an Internal error says so.
        """
        key = write.key
        guard = await self._guard(write, deadline)
        before, confirmed = self._remembered.get(key), False
        for attempt in range(_MAX_ATTEMPTS):
            if before is None:
                before, confirmed = await self._reader.read(key, deadline), True
            warnings: Sequence[dict[str, Any]] = ()
            try:
                after, warnings = apply(
                    write.change, write.preconditions, write.automation, key, before.snapshot
                )
            except BucketdError:
                if confirmed:
                    await self._check(guard, write, deadline)
                    raise
                after = before.snapshot
            if after is before.snapshot:
                if confirmed:
                    await self._check(guard, write, deadline)
                    return after.with_warnings(warnings)
                # The remembered value may be outdated, so the change is evaluated for etcd's
                # value before it is refused or reported as unchanged.
                before = None
                continue
            swap = CompareAndSwap(write, before, after, guard, deadline, read_on_failure=confirmed)
            done, before = await self._swap_with_trash(swap)
            if done:
                return await self._result(swap, warnings)
            confirmed = True
            self.retries += 1
            await asyncio.sleep(random.uniform(0, 0.002 * min(attempt, 10)))  # noqa: S311
        raise Overloaded(
            f"cannot change {key}: other hosts changed it {_MAX_ATTEMPTS} times meanwhile; "
            "nothing was changed; try again"
        )

    async def _swap_with_trash(self, swap: CompareAndSwap) -> tuple[bool, StoredValue | None]:
        """Swap, with the bucket's way into the trash or out of it; a deletion never fails by it."""
        change, key = swap.write.change, swap.write.key
        if change.restores is not None:
            swap.trash = await self._trash.take(change.restores.id, swap.deadline)
        elif not swap.after.revision and change.trash_days:
            try:
                swap.trash = await self._trash.put(
                    key, swap.before.snapshot, change.trash_days, swap.write.author, swap.deadline
                )
                return await self._swap(swap)
            except Unavailable as error:
                raise self._unavailable(swap.write, error) from error
            except LeaseExpired:
                # Somebody revoked the lease; nothing was changed.
                self._trash.forget_lease()
                return False, None
            except (StorageFull, TooLarge) as error:
                log.error(
                    "cannot put %s into the trash: %s; it is deleted for good", key, error.message
                )
                swap.trash = None
        return await self._swap(swap)

    async def _result(self, swap: CompareAndSwap, warnings: Sequence[dict[str, Any]]) -> Snapshot:
        """Return the outcome of a swap that was applied."""
        after = swap.after.with_warnings(warnings)
        if isinstance(swap.trash, TrashTake):
            return after._replace(restored=swap.trash.id)
        if swap.trash is None:
            return after
        if swap.maybe_applied:
            # The bucket is gone, but another host may have removed it.
            with contextlib.suppress(BucketdError):
                if await self._trash.is_there(swap.trash, swap.deadline):
                    return after._replace(trash=swap.trash.id)
            return after
        return after._replace(trash=swap.trash.id)

    async def _guard(self, write: Write, deadline: float) -> Guard:
        try:
            return await self._holds.guard(write.key, write.preconditions.fences, deadline)
        except Unavailable as error:
            raise self._unavailable(write, error) from error

    async def _check(self, guard: Guard, write: Write, deadline: float) -> None:
        """Raise HoldLost or Held if that is why a write would be refused that changes nothing."""
        if not write.preconditions.fences and not self._holds.queue.exclusive:
            return
        try:
            await self._holds.check(guard, deadline)
        except Unavailable as error:
            raise self._unavailable(write, error) from error

    def _unavailable(self, write: Write, error: Unavailable) -> Overloaded:
        self._reader.set_unavailable(error)
        return Overloaded(
            f"cannot change {write.key}: etcd did not answer within "
            f"{self._client.options.timeout:g} s ({error}); nothing was changed; try again"
        )

    async def _swap(self, swap: CompareAndSwap) -> tuple[bool, StoredValue | None]:
        """Return whether the swap succeeded, and the current value (None: unknown)."""
        self._forget(swap.write.key)
        try:
            answer = await self._send_until_answered(swap)
        except StorageFull as full:
            return True, await self._value_despite_full(swap, full)
        finally:
            if swap.idempotency_key is not None:
                self._idempotency_keys.release_maybe_applied(swap.idempotency_key)
        self._reader.unavailable = None
        return self._outcome(swap, answer)

    async def _send_until_answered(self, swap: CompareAndSwap) -> dict[str, Any]:
        """Send the transaction until it is answered, and return etcd's answer.

        The bucket's ETag shows which attempt was applied. Raises BucketdError.
        """
        while True:
            try:
                return await self._send(swap)
            except Unavailable as error:
                swap.maybe_applied = swap.maybe_applied or error.maybe_applied
                swap.read_on_failure = True
                await asyncio.sleep(RETRY_PAUSE_SECONDS)
                if asyncio.get_running_loop().time() >= swap.deadline:
                    self._reader.set_unavailable(error)
                    seconds = self._client.options.timeout
                    cause = swap.message(f"etcd did not confirm it within {seconds:g} s")
                    if swap.maybe_applied:
                        raise outcome_unknown(cause) from error
                    raise Overloaded(
                        f"{cause}: no endpoint was reached; nothing was changed; try again"
                    ) from error
            except StorageFull:
                raise
            except BucketdError as error:
                if swap.maybe_applied:
                    cause = swap.message(f"etcd's answer was lost, and then: {error}")
                    raise outcome_unknown(cause) from error
                raise

    async def _send(self, swap: CompareAndSwap) -> dict[str, Any]:
        """Send the transaction once. Raises BucketdError or Unavailable."""
        transaction = swap.transaction(self._prefix, self._history)
        if not swap.before.mod_revision:
            created_at = await self._add_idempotency_key(swap, transaction)
            if created_at is not None:
                return {"succeeded": True, "header": {"revision": created_at}}
        swap.asked_at = stale_cache.now()
        answer = await self._client.call("/v3/kv/txn", transaction, swap.deadline, once=True)
        if swap.idempotency_key is not None:
            created_at = answer["header"]["revision"] if answer.get("succeeded") else None
            self._idempotency_keys.release(swap.idempotency_key, created_at)
            swap.idempotency_key = None
        return answer

    async def _add_idempotency_key(
        self, swap: CompareAndSwap, transaction: dict[str, Any]
    ) -> str | None:
        """Add an idempotency key, so that the transaction creates the bucket at most once.

        Return the revision at which an earlier attempt has created the bucket, if one has.
        """
        etag = str(swap.after.etag)
        if swap.idempotency_key is None:
            swap.idempotency_key = await self._idempotency_keys.acquire(swap.deadline)
        elif swap.maybe_applied:
            try:
                created_at = await self._idempotency_keys.invalidate(
                    swap.idempotency_key, etag, swap.deadline
                )
            except LeaseExpired as error:
                self._idempotency_keys.forget_expired()
                cause = swap.message(f"etcd's answer was lost, and {error}")
                raise outcome_unknown(cause) from error
            if created_at is not None:
                return created_at
            swap.maybe_applied = False
        swap.idempotency_key.add_to(transaction, etag)
        return None

    def _outcome(
        self, swap: CompareAndSwap, answer: dict[str, Any]
    ) -> tuple[bool, StoredValue | None]:
        key = swap.write.key
        if answer.get("succeeded"):
            revision = int(answer["header"]["revision"]) if swap.after.revision else 0
            now = StoredValue(swap.after, revision)
            self._remember(key, now)
            self._reader.remember(key, now, answer, swap.asked_at)
            return True, now
        if not answer.get("responses"):
            return False, None
        kvs = answer["responses"][0]["response_range"].get("kvs")
        now = keys.stored_value(self._prefix, kvs, key)
        self._reader.remember(key, now, answer, swap.asked_at)
        is_unchanged = now.mod_revision == swap.before.mod_revision
        if not (swap.maybe_applied and swap.has_written(now)):
            self._check_guard(swap, answer["responses"][1:], is_unchanged)
        if not swap.before.mod_revision and not now.mod_revision:
            # The bucket is still absent, so the comparison of the idempotency key has failed.
            self._idempotency_keys.forget_expired()
        if not swap.maybe_applied:
            return False, now
        # The transaction may have failed because an attempt without an answer had succeeded.
        preconditions = swap.write.preconditions
        is_blind = not preconditions and not preconditions.fences
        if swap.has_written(now) and (swap.after.revision or is_blind):
            return True, now
        raise outcome_unknown(swap.message("etcd's answer was lost, and the bucket changed since"))

    def _check_guard(
        self, swap: CompareAndSwap, responses: list[dict[str, Any]], is_unchanged: bool
    ) -> None:
        """Raise HoldLost or Held if that is why a swap has failed.

        An attempt without an answer can be applied no more once its hold has ended, but may be
        once an exclusive hold has ended.
        """
        try:
            swap.guard.check(responses)
        except HoldLost:
            if swap.maybe_applied and not is_unchanged:
                return
            raise
        except Held as error:
            if swap.maybe_applied:
                cause = swap.message(f"etcd's answer was lost, and then: {error}")
                raise outcome_unknown(cause) from error
            raise

    async def _value_despite_full(self, swap: CompareAndSwap, full: StorageFull) -> StoredValue:
        """Return the current value if the swap was applied; raise ``full`` if certainly not.

        etcd applies the transaction that exceeds its space limit, yet answers that it is refused.
        """
        etag, idempotency_key = str(swap.after.etag), swap.idempotency_key
        try:
            now = await self._reader.read(swap.write.key, swap.deadline)
            # Another host may have read the created bucket and removed it since.
            if swap.has_written(now) or (
                idempotency_key is not None
                and await self._idempotency_keys.verify(idempotency_key, etag, swap.deadline)
            ):
                return now
        except (BucketdError, Unavailable) as error:
            raise outcome_unknown(swap.message("etcd is full and does not answer")) from error
        if swap.maybe_applied or now.mod_revision != swap.before.mod_revision:
            raise outcome_unknown(swap.message("etcd is full, and the bucket changed meanwhile"))
        raise full

    def _remember(self, key: BucketKey, value: StoredValue) -> None:
        self._forget(key)
        self._remembered[key] = value
        self._remembered_bytes += value.snapshot.bucket.size
        while (
            len(self._remembered) > _MAX_REMEMBERED
            or self._remembered_bytes > _MAX_REMEMBERED_BYTES
        ):
            self._forget(next(iter(self._remembered)))

    def _forget(self, key: BucketKey) -> None:
        value = self._remembered.pop(key, None)
        if value is not None:
            self._remembered_bytes -= value.snapshot.bucket.size


def outcome_unknown(cause: str) -> Internal:
    """Return the error of a change that may have been applied, or may still be.

    The error is not Overloaded, since clients repeat an Overloaded request by themselves.
    """
    return Internal(f"{cause}; the outcome is unknown, so read it again before you repeat")
