"""What a handler gets and what it gives: one request that may be made, and its answer."""

from __future__ import annotations

from typing import Any, Callable, NamedTuple

from ._events import Stream
from ._model import Context, Key, check_name
from ._requests import Request
from ._state import State


class Call(NamedTuple):
    """A request that may be made; ``key`` on routes about a bucket, ``context`` with a token."""

    state: State
    request: Request
    query: dict[str, list[str]]
    names: dict[str, str]
    key: Key
    context: Context | None

    @property
    def label(self) -> str:
        return "deviceBucket" if self.key[1] is None else "bucket"

    @property
    def automation(self) -> str | None:
        if self.context is not None:
            return None if self.key[1] is None else self.context.automation
        return self.name("automation")

    def one(self, name: str) -> str | None:
        return self.query.get(name, [None])[0]

    def name(self, parameter: str) -> str | None:
        given = self.one(parameter)
        return None if given is None else check_name(given, parameter)


class Answer(NamedTuple):
    """``members`` are those of the envelope; None for an answer without a body."""

    members: dict[str, Any] | None
    status: int = 200
    etag: str | None = None
    stream: Stream | None = None


Handler = Callable[[Call], Answer]
