"""The routes of the console itself, below /console/: session, lock, doctor, types."""

from __future__ import annotations

import asyncio
import getpass
import platform
from collections.abc import Callable
from typing import Any

from ... import __version__
from ..._errors import BucketError
from ..commands.types import LANGUAGES, generate
from ..doctor.doctor import examine
from ..session import Session as DaemonSession
from . import http
from .guard import TICKET_PATH
from .http import Refusal, Request
from .keys import Keys, Session, TicketRefused


class LocalRoutes:
    """Answer what the daemon does not know. ``opened`` is called when a page has begun."""

    def __init__(self, daemon: DaemonSession, keys: Keys, opened: Callable[[], None]) -> None:
        self._daemon, self._keys, self._opened = daemon, keys, opened
        self._routes = {
            ("GET", "/console/state"): self._state,
            ("POST", "/console/lock"): self._lock,
            ("POST", "/console/unlock"): self._unlock,
            ("GET", "/console/doctor"): self._doctor,
            ("POST", "/console/types"): self._types,
        }

    def open_page(self, request: Request) -> bytes:
        """Exchange a one-time ticket for the token of a page. Raise Refusal."""
        if request.method != "POST":
            raise _method_not_allowed(TICKET_PATH)
        try:
            token = self._keys.redeem(str(request.json().get("ticket")))
        except TicketRefused as cause:
            raise Refusal(401, "ticket", str(cause), "ticket_refused") from None
        self._opened()
        return http.success({"token": token})

    async def respond(self, request: Request, session: Session) -> bytes:
        """Return the response to a request of a page. Raise Refusal."""
        handler = self._routes.get((request.method, request.path))
        if handler is None:
            if any(request.path == path for _, path in self._routes):
                raise _method_not_allowed(request.path)
            raise not_found(request)
        return http.success(await handler(request, session))

    async def _state(self, _request: Request, session: Session) -> dict[str, Any]:
        return {
            "version": __version__,
            "user": getpass.getuser(),
            "host": platform.node(),
            "socket": self._daemon.path,
            "read_only": self._keys.is_read_only,
            "unlocked_seconds": round(self._keys.unlocked_seconds(session)),
        }

    async def _lock(self, request: Request, session: Session) -> dict[str, Any]:
        self._keys.lock(session)
        return await self._state(request, session)

    async def _unlock(self, request: Request, session: Session) -> dict[str, Any]:
        if self._keys.is_read_only:
            cause = "cannot unlock the console: it was started with --read-only"
            raise Refusal(403, "lock", cause, "console_read_only")
        self._keys.unlock(session)
        return await self._state(request, session)

    async def _doctor(self, _request: Request, _session: Session) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(None, lambda: list(examine(self._daemon)))
        return {"findings": [finding._asdict() for finding in found]}

    async def _types(self, request: Request, _session: Session) -> dict[str, Any]:
        given = request.json()
        language = given.get("language")
        if language not in LANGUAGES:
            raise http.bad_request(f"language must be one of {', '.join(sorted(LANGUAGES))}")
        automation, schema = str(given.get("automation")), given.get("json_schema")
        defaults = [str(key) for key in given.get("defaults") or ()]
        loop = asyncio.get_running_loop()
        try:
            made = await loop.run_in_executor(
                None, lambda: generate(schema, automation, language, defaults)
            )
        except BucketError as cause:
            raise Refusal(400, "request", cause.message, cause.code) from None
        return {"text": made.text, "problems": made.problems}


def not_found(request: Request) -> Refusal:
    cause = f"cannot find {request.path[:200]!r}: the console has no such page"
    return Refusal(404, "route", cause, "not_found")


def _method_not_allowed(path: str) -> Refusal:
    cause = f"cannot serve the request: {path} does not take this method"
    return Refusal(405, "route", cause, "method_not_allowed")
