"""What a handler takes and returns: one permitted request, and its response."""

from __future__ import annotations

from typing import Any, Callable, NamedTuple

from .._errors import error
from ._events import Stream
from ._holds import HoldStream
from ._model import Context, Key, Preconditions, check_name
from ._requests import Request
from ._state import State


class Call(NamedTuple):
    """A permitted request.

    ``key``, ``automation``, ``preconditions`` and ``fences`` are set on routes of a bucket,
    ``context`` with a token, ``media_type`` where the route takes a body.
    """

    state: State
    request: Request
    query: dict[str, list[str]]
    names: dict[str, str]
    key: Key
    automation: str | None
    context: Context | None
    preconditions: Preconditions
    fences: list[str] | None
    media_type: str
    body: bytes

    @property
    def label(self) -> str:
        return "deviceBucket" if self.key[1] is None else "bucket"

    def one(self, name: str) -> str | None:
        return self.query.get(name, [None])[0]

    def flag(self, parameter: str) -> bool:
        text = self.one(parameter)
        if text not in (None, "true", "false"):
            raise error(
                "invalid_request", f"cannot use the parameter {parameter}: it must be true or false"
            )
        return text == "true"

    def name(self, parameter: str) -> str | None:
        given = self.one(parameter)
        return None if given is None else check_name(given, parameter)


class Response(NamedTuple):
    """``members`` are those of the envelope; None for a response without a body."""

    members: dict[str, Any] | None
    status: int = 200
    etag: str | None = None
    stream: Stream | HoldStream | None = None
    preference: str | None = None


Handler = Callable[[Call], Response]
