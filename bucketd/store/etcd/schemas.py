"""Schemas in etcd, for all hosts that share them: a change is made once, and never late.

A node that hung does at any time what it was asked before. So beside each schema's key there is a
mark, which every change compares, and puts anew in the same transaction: what comes late does not
hold. The schema's own key would not do, since that there is none may come again; a mark stays. Its
value is that of one change, so it tells whether one was made whose answer was lost.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import secrets
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson

from ...errors import BucketdError, Overloaded, StorageFull
from . import keys
from .client import Gateway, Lost, b64
from .compare_and_swap import unknown
from .watch import Event, watch

log = logging.getLogger(__name__)


class Told(NamedTuple):
    """What etcd has of an automation since a revision: its schema, or None."""

    automation: str
    document: Any
    at: int


@dataclass(slots=True)
class _Change:
    """One that is being made: ``then``, if the mark is as it was."""

    what: str
    mark: str
    then: dict[str, Any]
    deadline: float
    by: str = field(default_factory=lambda: secrets.token_hex(8))
    at: str = "0"  # the mark's revision that it compares
    lost: bool = False  # a try that was not answered may have made it, or may yet

    def txn(self) -> dict[str, Any]:
        put = {"request_put": {"key": self.mark, "value": b64(self.by.encode())}}
        return {
            "compare": [{"key": self.mark, "target": "MOD", "mod_revision": self.at}],
            "success": [put, self.then],
        }


class Cluster:
    """Schemas set through the API below one prefix."""

    def __init__(self, gateway: Gateway, prefix: str, timeout: float) -> None:
        self._gateway, self._timeout = gateway, timeout
        self._schemas, self._marks = f"{prefix}schema/", f"{prefix}schema-mark/"

    async def put(self, automation: str, document: Any) -> Told:
        """Raises BucketdError; Internal, which says so, where the outcome is unknown."""
        value = orjson.dumps({"automation": automation, "schema": document})
        put = {"request_put": {"key": self._key(automation), "value": b64(value)}}
        answer = await self._make(self._change("set", automation, put))
        return Told(automation, document, _revision(answer))

    async def remove(self, automation: str) -> tuple[Told, bool]:
        """Whether there was one, too. Raises as ``put`` does."""
        deleting = {"request_delete_range": {"key": self._key(automation)}}
        answer = await self._make(self._change("remove", automation, deleting))
        told = Told(automation, None, _revision(answer))
        if "responses" not in answer:
            return told, True  # what said so was lost
        return told, "deleted" in answer["responses"][1]["response_delete_range"]

    async def everything(self) -> tuple[int, list[Told]]:
        """A revision, and the schemas as of that. Raises BucketdError or Lost."""
        begin, end = keys.below(self._schemas)
        body = {"key": b64(begin), "range_end": b64(end)}
        answer = await self._gateway.call("/v3/kv/range", body, self._deadline())
        return _revision(answer), list(filter(None, map(_schema, answer.get("kvs", ()))))

    async def changes(self, revision: int) -> AsyncGenerator[list[Told], None]:
        """After that revision; see ``watch``."""
        begin, end = keys.below(self._schemas)
        events = watch(self._gateway, begin, end, revision + 1, self._deadline())
        async with contextlib.aclosing(events):
            async for told in events:
                yield list(filter(None, map(self._told, told)))

    def _told(self, event: Event) -> Told | None:
        if event.get("type") != "DELETE":
            return _schema(event["kv"])
        key = base64.b64decode(event["kv"]["key"]).decode(errors="replace")
        return Told(key.removeprefix(self._schemas), None, int(event["kv"]["mod_revision"]))

    async def _make(self, change: _Change) -> dict[str, Any]:
        """etcd's answer; only its revision, where what told more was lost."""
        try:
            return await self._made(change)
        except Lost as error:
            told = f"cannot {change.what}: etcd did not confirm it ({error})"
            if change.lost:
                raise unknown(told) from error
            raise Overloaded(f"{told}; nothing was changed; try again") from error
        except BucketdError as error:
            if change.lost:
                told = f"cannot {change.what}: etcd's answer was lost, and then: {error}"
                raise unknown(told) from error
            raise

    async def _made(self, change: _Change) -> dict[str, Any]:
        """Raises BucketdError, or Lost: then ``lost`` tells whether it may have been made."""
        while True:
            by, at = await self._marked(change)
            if by == change.by:
                return {"header": {"revision": at}}
            if change.lost and at != change.at:
                raise Lost("it was changed since")
            change.at = at
            try:
                answer = await self._gateway.call(
                    "/v3/kv/txn", change.txn(), change.deadline, once=True
                )
                if answer.get("succeeded"):
                    return answer
            except Lost as error:
                change.lost = change.lost or error.sent
                await self._gateway.pause()
            except StorageFull as full:
                return await self._despite_full(change, full)

    async def _despite_full(self, change: _Change, full: StorageFull) -> dict[str, Any]:
        """etcd makes the change that crosses its limit, and refuses it all the same."""
        try:
            by, at = await self._marked(change)
        except (BucketdError, Lost):
            change.lost = True
            raise
        if by != change.by:
            raise full
        return {"header": {"revision": at}}

    async def _marked(self, change: _Change) -> tuple[str, str]:
        """By which change, and at which revision."""
        answer = await self._gateway.call("/v3/kv/range", {"key": change.mark}, change.deadline)
        for found in answer.get("kvs", ()):
            return base64.b64decode(found["value"]).decode(), str(found["mod_revision"])
        return "", "0"

    def _change(self, verb: str, automation: str, then: dict[str, Any]) -> _Change:
        mark = b64(f"{self._marks}{automation}".encode())
        what = f"{verb} the schema of {automation!r}"
        return _Change(what, mark, then, self._deadline())

    def _key(self, automation: str) -> str:
        return b64(f"{self._schemas}{automation}".encode())

    def _deadline(self) -> float:
        return asyncio.get_running_loop().time() + self._timeout


def _revision(answer: dict[str, Any]) -> int:
    return int(answer["header"]["revision"])


def _schema(found: dict[str, Any]) -> Told | None:
    """A stored schema; None for what is none."""
    try:
        value = orjson.loads(base64.b64decode(found["value"]))
        return Told(str(value["automation"]), value["schema"], int(found["mod_revision"]))
    except (ValueError, KeyError, TypeError):
        log.error("cannot use a schema in etcd: its value is none")
        return None
