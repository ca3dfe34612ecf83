"""Set and remove the schemas that all hosts share: each change is applied once, and never late.

A hung node may apply a request much later. So each schema has a marker key beside its own key;
every change compares the marker's revision and puts the marker again in the same transaction, so
a late change fails. The schema's own key is not suitable, since its absence recurs, while a marker
is never removed. The marker's value identifies one change, so it shows whether a change without an
answer was applied.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import secrets
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any

import orjson

from ...errors import BucketdError, Overloaded, StorageFull
from ..base import FeedInterrupted, SchemaChange, SchemaList
from . import keys
from .client import RETRY_PAUSE_SECONDS, EtcdClient, Unavailable, b64
from .watch import Compacted, Event, watch
from .writer import outcome_unknown

log = logging.getLogger(__name__)
_TOLERATE = "tolerate"


@dataclass(slots=True)
class _Transaction:
    """An operation on a schema, applied if the marker has the revision ``compared``."""

    what: str
    marker: str
    operation: dict[str, Any]
    deadline: float
    id: str = field(default_factory=lambda: secrets.token_hex(8))
    compared: str = "0"
    maybe_applied: bool = False

    def request(self) -> dict[str, Any]:
        put = {"request_put": {"key": self.marker, "value": b64(self.id.encode())}}
        return {
            "compare": [{"key": self.marker, "target": "MOD", "mod_revision": self.compared}],
            "success": [put, self.operation],
        }


class EtcdSchemas:
    """The schemas set through the API below one prefix."""

    def __init__(self, client: EtcdClient) -> None:
        self._client = client
        prefix = client.options.prefix
        self._schemas, self._markers = f"{prefix}schema/", f"{prefix}schema-mark/"
        self.problem: str | None = None
        self._unreadable: frozenset[str] = frozenset()

    @property
    def problems(self) -> list[str]:
        """Return what is wrong with the schemas and with following them, if anything is."""
        broken = [
            f"cannot use the shared schema of {name!r}: its value in etcd is not valid; "
            "set it again, or remove it"
            for name in sorted(self._unreadable)
        ]
        return [self.problem, *broken] if self.problem else broken

    async def put(self, automation: str, document: Any, tolerates: bool = False) -> SchemaChange:
        """Set a schema on all hosts. Raises BucketdError; Internal if the outcome is unknown."""
        # Hosts with an older version ignore the last member, and refuse.
        mode = {"existing": _TOLERATE} if tolerates else {}
        value = orjson.dumps({"automation": automation, "schema": document, **mode})
        operation = {"request_put": {"key": self._key(automation), "value": b64(value)}}
        answer = await self._commit(self._transaction("set", automation, operation))
        self._unreadable -= {automation}
        return SchemaChange(automation, document, _revision(answer), tolerates)

    async def remove(self, automation: str) -> tuple[SchemaChange, bool]:
        operation = {"request_delete_range": {"key": self._key(automation)}}
        answer = await self._commit(self._transaction("remove", automation, operation))
        self._unreadable -= {automation}
        removed = SchemaChange(automation, None, _revision(answer))
        if "responses" not in answer:
            # The lost answer said whether there was a schema.
            return removed, True
        return removed, "deleted" in answer["responses"][1]["response_delete_range"]

    async def read_all(self) -> SchemaList:
        begin, end = keys.prefix_range(self._schemas)
        request = {"key": b64(begin), "range_end": b64(end)}
        try:
            answer = await self._client.call("/v3/kv/range", request, self._client.deadline())
        except Unavailable as error:
            raise FeedInterrupted(str(error)) from error
        found, unreadable = [], set()
        for kv in answer.get("kvs", ()):
            schema = self._schema(kv)
            if schema is None:
                unreadable.add(self._automation(kv))
            else:
                found.append(schema)
        self._log_unreadable(unreadable)
        self._unreadable = frozenset(unreadable)
        return SchemaList(_revision(answer), found, self._unreadable)

    async def changes_after(self, revision: int) -> AsyncGenerator[list[SchemaChange], None]:
        begin, end = keys.prefix_range(self._schemas)
        events = watch(self._client, begin, end, revision + 1)
        try:
            async with contextlib.aclosing(events):
                async for batch in events:
                    yield [change for event in batch if (change := self._change(event))]
        except (Compacted, Unavailable, TimeoutError) as error:
            raise FeedInterrupted(str(error)) from error

    def _change(self, event: Event) -> SchemaChange | None:
        kv = event["kv"]
        automation = self._automation(kv)
        if event.get("type") == "DELETE":
            change: SchemaChange | None = SchemaChange(automation, None, int(kv["mod_revision"]))
        else:
            change = self._schema(kv)
        if change is None:
            self._log_unreadable({automation})
            self._unreadable |= {automation}
        else:
            self._unreadable -= {automation}
        return change

    def _log_unreadable(self, automations: set[str]) -> None:
        for name in automations - self._unreadable:
            log.error("cannot use the shared schema of %r: its value in etcd is not valid", name)

    def _schema(self, kv: keys.KeyValue) -> SchemaChange | None:
        """Return a stored schema; None if the value is not a schema of this key."""
        automation = self._automation(kv)
        try:
            value = orjson.loads(base64.b64decode(kv["value"]))
            if value["automation"] == automation and value["schema"] is not None:
                tolerates = value.get("existing") == _TOLERATE
                return SchemaChange(automation, value["schema"], int(kv["mod_revision"]), tolerates)
        except (ValueError, KeyError, TypeError):
            pass
        return None

    def _automation(self, kv: keys.KeyValue) -> str:
        key = keys.key_of(kv).decode(errors="backslashreplace")
        return key.removeprefix(self._schemas)

    async def _commit(self, transaction: _Transaction) -> dict[str, Any]:
        """Return etcd's answer; only its revision if the answer was lost."""
        try:
            return await self._send_until_answered(transaction)
        except Unavailable as error:
            cause = f"cannot {transaction.what}: etcd did not confirm it ({error})"
            if transaction.maybe_applied:
                raise outcome_unknown(cause) from error
            raise Overloaded(f"{cause}; nothing was changed; try again") from error
        except BucketdError as error:
            if transaction.maybe_applied:
                cause = f"cannot {transaction.what}: etcd's answer was lost, and then: {error}"
                raise outcome_unknown(cause) from error
            raise

    async def _send_until_answered(self, transaction: _Transaction) -> dict[str, Any]:
        """Send a transaction until it is answered. Raises BucketdError or Unavailable."""
        while True:
            writer, revision = await self._read_marker(transaction)
            if writer == transaction.id:
                return {"header": {"revision": revision}}
            if transaction.maybe_applied and revision != transaction.compared:
                raise Unavailable("cannot confirm the change: the schema was changed since")
            transaction.compared = revision
            try:
                answer = await self._client.call(
                    "/v3/kv/txn", transaction.request(), transaction.deadline, once=True
                )
                if answer.get("succeeded"):
                    return answer
            except Unavailable as error:
                transaction.maybe_applied = transaction.maybe_applied or error.maybe_applied
                await asyncio.sleep(RETRY_PAUSE_SECONDS)
            except StorageFull as full:
                # etcd applies the transaction that exceeds its space limit, yet answers that
                # it is refused.
                try:
                    writer, revision = await self._read_marker(transaction)
                except (BucketdError, Unavailable):
                    transaction.maybe_applied = True
                    raise
                if writer != transaction.id:
                    raise full from None
                return {"header": {"revision": revision}}

    async def _read_marker(self, transaction: _Transaction) -> tuple[str, str]:
        """Return which transaction put the marker, and the marker's revision."""
        request = {"key": transaction.marker}
        answer = await self._client.call("/v3/kv/range", request, transaction.deadline)
        for kv in answer.get("kvs", ()):
            value = base64.b64decode(kv.get("value", "")).decode(errors="replace")
            return value, str(kv["mod_revision"])
        return "", "0"

    def _transaction(self, verb: str, automation: str, operation: dict[str, Any]) -> _Transaction:
        marker = b64(f"{self._markers}{automation}".encode())
        what = f"{verb} the schema of {automation!r}"
        return _Transaction(what, marker, operation, self._client.deadline())

    def _key(self, automation: str) -> str:
        return b64(f"{self._schemas}{automation}".encode())


def _revision(answer: dict[str, Any]) -> int:
    return int(answer["header"]["revision"])
