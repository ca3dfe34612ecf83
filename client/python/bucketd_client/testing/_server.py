"""The server for tests: a socket in front of a daemon, or of a small one in memory."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import threading
from collections.abc import Mapping
from typing import Any, Protocol
from urllib.parse import quote

from .._api import checked
from .._codes import STATUS
from .._errors import BucketError, error
from .._http11 import Response
from . import _daemon
from ._directory import short_directory
from ._holds import Key
from ._http import Answer, HttpServer, Request, dumps, refusal
from ._memory import Memory
from ._stored_bucket import StoredBucket, Write

_BUCKETS = ("/bucket", "/bucket/undo")


class Engine(Protocol):
    """The process or thread that answers the requests of a server for tests."""

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def give_back(self) -> None: ...
    def respond(self, request: Request) -> Answer: ...
    def set_schema(self, automation: str, schema: Any) -> None: ...


class Server:
    """bucketd for tests, on a unix socket of its own, which only this user can reach.

    It is the daemon itself where ``bucketd`` is installed (on the PATH, beside this Python, or
    named by BUCKETD_BIN). Elsewhere, and with ``in_memory``, it is a small one in memory, without
    schemas, lists and history. ``max_bytes`` bounds each bucket.
    """

    def __init__(self, max_bytes: int = 1024 * 1024, *, in_memory: bool = False) -> None:
        self._max_bytes = max_bytes
        self._program = None if in_memory else _daemon.find_bucketd()
        self._home = ""
        self._engine: Engine
        self._http: HttpServer | None = None
        self._refusals: list[BucketError] = []
        self._writes: dict[Key, list[Write]] = {}
        self._defaults: dict[Key, dict[str, Any]] = {}
        # One write at a time, so that it is known what each has changed.
        self._writing = threading.Lock()

    @property
    def in_memory(self) -> bool:
        """Report whether this is not the daemon itself."""
        return self._program is None

    @property
    def socket(self) -> str:
        """Return the path of the socket, for BUCKETD_SOCKET."""
        return f"{self._home}/bucketd.sock"

    def __enter__(self) -> Server:
        self._home = short_directory("/bucketd.sock")
        if self._program is None:
            self._engine = Memory(self._max_bytes)
        else:
            self._engine = _daemon.take(self._program, self._max_bytes)
        self._listen()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop_listening()
        self._engine.give_back()
        shutil.rmtree(self._home, ignore_errors=True)

    def start(self) -> None:
        """Serve again after ``stop``, with what was stored before."""
        self._engine.start()
        self._listen()

    def stop(self) -> None:
        """Serve nobody until ``start``, as while the daemon restarts, and keep what is stored."""
        if self._http is not None:
            http, self._http = self._http, None
            http.stop_listening()
            os.unlink(self.socket)
            # Streams send their last changes, and end.
            self._engine.stop()
            http.close_connections()

    def bucket(
        self,
        device: str,
        job: str | None = None,
        *,
        label: str | None = None,
        automation: str | None = None,
    ) -> StoredBucket:
        """Return the bucket of this pair, or without a job of the device, with a new token.

        ``label`` and ``automation`` are those of the token's context.
        """
        return StoredBucket(self, (device, job), label, automation)

    def schema(self, automation: str, schema: Mapping[str, Any]) -> None:
        """Set the schema of an automation. Raise RuntimeError in memory, which has none."""
        self._engine.set_schema(automation, schema)

    def refuse(
        self, code: str, times: int = 1, message: str = "", details: list[Any] | None = None
    ) -> None:
        """Refuse the next calls on buckets with this code, as ``storage_full`` or ``read_only``."""
        if code not in STATUS:
            raise ValueError(f"cannot refuse with {code!r}: it must be one of {', '.join(STATUS)}")
        message = message or f"cannot use the bucket: {code}, as the test wants it"
        self._refusals += [error(code, message, details=details)] * times

    def writes(self, key: Key) -> list[Write]:
        return list(self._writes.get(key, []))

    def forget_writes(self, key: Key) -> None:
        self._writes.pop(key, None)

    def set_defaults(self, key: Key, defaults: dict[str, Any]) -> None:
        self._defaults[key] = defaults

    def ask(
        self,
        method: str,
        target: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> tuple[dict[str, Any], str | None]:
        """Ask the engine, past the socket; return members and ETag. Raise BucketError."""
        found = {"host": "test", "content-type": "application/json", **(headers or {})}
        response = self._engine.respond(Request(method, target, found, body, None))
        head, _, text = response.data.partition(b"\r\n\r\n")
        reply = checked(Response(response.status, head, text))
        return reply.members, reply.etag

    def _listen(self) -> None:
        self._http = HttpServer(self.socket, self._respond)

    def _stop_listening(self) -> None:
        if self._http is not None:
            http, self._http = self._http, None
            http.stop_listening()
            http.close_connections()

    def _respond(self, request: Request) -> Answer:
        if not request.path.endswith(_BUCKETS):
            return self._engine.respond(request)
        if self._refusals:
            return refusal(self._refusals.pop(0))
        if request.method in ("GET", "HEAD"):
            return self._completed(request, self._engine.respond(request))
        with self._writing:
            return self._recorded(request)

    def _recorded(self, request: Request) -> Answer:
        """Answer a write, and note what it named or changed."""
        key = self._key(request)
        if key is None:
            return self._engine.respond(request)
        before = self.read(key)[0]
        response = self._engine.respond(request)
        if response.status == 200:
            after, revision, _ = self.read(key)
            named = _named(request)
            changed = {k: v for k, v in after.items() if k in named or before.get(k, ...) != v}
            removed = tuple(k for k in before if k not in after)
            write = Write(request.method, changed, removed, revision)
            self._writes.setdefault(key, []).append(write)
        return response

    def _completed(self, request: Request, response: Answer) -> Answer:
        """Add the defaults that the test has set to a read that asks for them."""
        if request.query.get("defaults") != ["true"] or response.status != 200:
            return response
        defaults = self._defaults.get(self._key(request) or ("", None), {})
        head, _, text = response.data.partition(b"\r\n\r\n")
        members = json.loads(text)
        label = "bucket" if "bucket" in members else "deviceBucket"
        keys = request.query.get("key", list(defaults))
        missing = {k: v for k, v in defaults.items() if k in keys}
        members[label] = {**missing, **members[label]}
        text = dumps(members)
        lines = [each for each in head.split(b"\r\n") if not each.lower().startswith(b"content-l")]
        lines.append(b"Content-Length: %d" % len(text))
        return Answer(b"\r\n".join([*lines, b"", text]))

    def _key(self, request: Request) -> Key | None:
        """Return which bucket a request is about, None where its token opens none."""
        names = request.segments
        if names[1] == "devices":
            return names[2], names[4] if "jobs" in names[3:4] else None
        token = {"authorization": request.headers.get("authorization", "")}
        with contextlib.suppress(BucketError):
            context = self.ask("GET", "/v1/context", headers=token)[0]
            return context["device"], None if names[1] == "device" else context["job"]
        return None

    def read(self, key: Key) -> tuple[dict[str, Any], int, str | None]:
        """Return bucket, revision and ETag."""
        members, etag = self.ask("GET", target_of(key))
        bucket = members["deviceBucket" if key[1] is None else "bucket"]
        return bucket, members["revision"], etag


def target_of(key: Key) -> str:
    device, job = key
    within = "" if job is None else f"/jobs/{quote(job, '')}"
    return f"/v1/devices/{quote(device, '')}{within}/bucket"


def _named(request: Request) -> set[str]:
    """Return the keys that a merge or a replacement names."""
    kind = request.headers.get("content-type", "application/json").split(";")[0]
    if kind != "application/json" or not request.body or request.path.endswith("/undo"):
        return set()
    return set(json.loads(request.body))
