"""Schemas in etcd, for all hosts that share them: a change is made once, and never late.

A node that hung does at any time what it was asked before. So beside each schema's key there is a
mark, which every change compares, and puts anew in the same transaction: what comes late does not
hold. The schema's own key would not do, since that there is none may come again; a mark stays. Its
value is that of one change, so it tells whether one was made whose answer was lost.
"""

from __future__ import annotations

import asyncio
import base64
import secrets
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any

import orjson

from ..errors import BucketdError, Overloaded, StorageFull
from ..store import etcdkeys
from ..store.etcdwatch import Event, watch
from ..store.gateway import Gateway, Lost, b64
from ..store.swap import unknown


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

    async def put(self, automation: str, document: Any) -> None:
        """Raises BucketdError; Internal, which says so, where the outcome is unknown."""
        value = orjson.dumps({"automation": automation, "schema": document})
        put = {"request_put": {"key": self._key(automation), "value": b64(value)}}
        await self._make(self._change("set", automation, put))

    async def remove(self, automation: str) -> bool:
        """Whether there was one. Raises as ``put`` does."""
        deleting = {"request_delete_range": {"key": self._key(automation)}}
        answer = await self._make(self._change("remove", automation, deleting))
        if "responses" not in answer:
            return True  # the answer that said so was lost
        return "deleted" in answer["responses"][1]["response_delete_range"]

    async def everything(self) -> tuple[int, list[dict[str, Any]]]:
        """A revision, and what there is as of that. Raises BucketdError or Lost."""
        begin, end = etcdkeys.below(self._schemas)
        body = {"key": b64(begin), "range_end": b64(end)}
        answer = await self._gateway.call("/v3/kv/range", body, self._deadline())
        return int(answer["header"]["revision"]), answer.get("kvs", [])

    def changes(self, revision: int) -> AsyncGenerator[list[Event], None]:
        """After that revision; see ``watch``."""
        begin, end = etcdkeys.below(self._schemas)
        return watch(self._gateway, begin, end, revision + 1, self._deadline())

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
