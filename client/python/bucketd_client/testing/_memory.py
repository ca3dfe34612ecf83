"""A small bucketd in memory, where none is installed: what an automation itself asks for.

It has buckets, their changes, contexts and holds; the daemon alone has schemas, lists, history and
the operators' other routes.
"""

from __future__ import annotations

import copy
import itertools
import json
import secrets
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any, Callable, NamedTuple, Optional

from .._errors import BucketError, error
from .._json_patch import json_patch
from ._holds import Holds, Key
from ._http import POLL_SECONDS, Answer, Request, answer, dumps, refusal
from ._values import as_object, check_name, loads, merged

Object = dict[str, Any]
Change = Optional[Callable[[Object], Object]]
PATCHES = ("application/merge-patch+json", "application/json-patch+json")
DEFAULT_TTL = 86400.0
HEARTBEAT_SECONDS = 15.0
HOW_TO_START = "start it with: bucketctl run --device DEVICE --job JOB -- COMMAND"


class Stored(NamedTuple):
    bucket: Object
    revision: int = 0
    etag: str | None = None


ABSENT = Stored({})


class Context(NamedTuple):
    id: str
    token: str
    key: Key
    automation: str | None
    label: str | None
    expires: float

    @property
    def members(self) -> Object:
        device, job = self.key
        names = {"device": device, "job": job, "automation": self.automation, "label": self.label}
        until = datetime.fromtimestamp(self.expires, timezone.utc)
        return {**names, "expires_at": until.isoformat().replace("+00:00", "Z")}


class Memory:
    """The engine behind a server for tests; ``max_bytes`` bounds the JSON of a bucket."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._buckets: dict[Key, Stored] = {}
        self._contexts: dict[str, Context] = {}
        # Every change since the start, for streams: the bucket, and the members of the event.
        self._changes: list[tuple[Key, Object]] = []
        self._changed = threading.Condition()
        self._holds = Holds(self._changed)
        self._mark, self._numbers = secrets.token_hex(4), itertools.count(1)
        # The number of stops so far: a stream ends with the next one.
        self._stops = 0

    def start(self) -> None:
        """Serve again, with what was stored before."""

    def stop(self) -> None:
        """End all streams, and with them the holds."""
        with self._changed:
            self._stops += 1
            self._changed.notify_all()

    def give_back(self) -> None:
        """Do nothing: what is in memory goes with the server."""

    def set_schema(self, automation: str, _schema: Any) -> None:
        raise RuntimeError(
            f"cannot set a schema of {automation!r}: the server for tests has none in memory; "
            "install bucketd beside this client, and it uses that"
        )

    def respond(self, request: Request) -> Answer:
        try:
            return self._respond(request)
        except BucketError as problem:
            return refusal(problem)

    def _respond(self, request: Request) -> Answer:
        if {"origin", "referer"} & request.headers.keys():
            raise error("forbidden", "cannot answer a browser: it sends Origin or Referer")
        path, segments = request.path, request.segments
        if path in ("/readyz", "/healthz"):
            return answer({"success": True, "status": "ready"})
        if segments[:2] == ["v1", "contexts"] and "authorization" not in request.headers:
            return self._operate(request, segments[2:])
        context = self._context(request)
        if path == "/v1/context" and context is not None:
            return answer({"success": True, **context.members, "schema": False})
        key, verb = self._locate(segments, context, path)
        if verb == "hold":
            return self._hold(request, key, context)
        if verb == "events":
            return answer(None, stream=self._stream(request, key, context, self._stops))
        if request.method in ("GET", "HEAD"):
            return self._read(request, key)
        return self._write(request, key)

    def _operate(self, request: Request, names: list[str]) -> Answer:
        """Mint a context, or revoke one."""
        if request.method == "POST" and not names:
            body = as_object(loads(request.body))
            job = body.get("job")
            for name in ("device", "job", "automation", "label"):
                if name == "device" or body.get(name) is not None:
                    check_name(body.get(name), name)
            expires = time.time() + float(body.get("ttl_seconds") or DEFAULT_TTL)
            id_, token = secrets.token_hex(8), secrets.token_urlsafe(32)
            made = Context(id_, token, (body["device"], job), body.get("automation"),
                           body.get("label"), expires)  # fmt: skip
            with self._changed:
                self._contexts[token] = made
            return answer({"success": True, "id": id_, "token": token, **made.members}, status=201)
        with self._changed:
            found = next((c for c in self._contexts.values() if [c.id] == names), None)
            if request.method != "DELETE" or found is None:
                raise error("not_found", "cannot revoke the context: no live one has this id")
            del self._contexts[found.token]
            self._changed.notify_all()
        return answer({"success": True, "id": found.id})

    def _context(self, request: Request) -> Context | None:
        given = request.headers.get("authorization")
        if given is None:
            return None
        scheme, _, token = given.partition(" ")
        context = self._contexts.get(token.strip())
        if context is not None and self._is_live(context) and scheme.lower() == "bearer":
            return context
        raise error(
            "no_job_context",
            "no job context: the token is unknown, revoked or expired; "
            f"get a new one, or {HOW_TO_START}",
        )

    def _is_live(self, context: Context | None) -> bool:
        return context is None or (
            context.token in self._contexts and context.expires > time.time()
        )

    def _locate(self, segments: list[str], context: Context | None, path: str) -> tuple[Key, str]:
        """Return which bucket a path is about, and its last word: bucket, events or hold."""
        names, verb = segments[1:], segments[-1]
        if verb == "events" and names[-2:-1] == ["bucket"]:
            names = names[:-1]
        if segments[0] != "v1" or names[-1:] not in (["bucket"], ["hold"]):
            raise error(
                "not_found",
                f"cannot find {path[:200]!r}: the server for tests has no such route in memory",
            )
        if names[0] == "devices" and len(names) in (3, 5) and context is None:
            job = names[3] if len(names) == 5 else None
            check_name(names[1], "device")
            if job is not None:
                check_name(job, "job")
            return (names[1], job), verb
        if context is None:
            raise error(
                "no_job_context", f"no job context: the request carries no token; {HOW_TO_START}"
            )
        device, job = context.key
        if names[0] == "device":
            return (device, None), verb
        if names[0] == "devices" or job is None:
            raise error(
                "no_job_context",
                f"no job context: the token does not open {path[:200]!r}; {HOW_TO_START}",
            )
        return (device, job), verb

    def _read(self, request: Request, key: Key) -> Answer:
        now = self._buckets.get(key, ABSENT)
        return _result(key, now, _chosen(now.bucket, request.query.get("key")))

    def _write(self, request: Request, key: Key) -> Answer:
        change = self._change(request)
        with self._changed:
            self._holds.check(key, request.headers.get("bucketd-fence"))
            now = self._buckets.get(key, ABSENT)
            _check_guard(request.headers, now)
            new = self._next(now, change, is_new=request.method == "PUT")
            if new.etag != now.etag:
                self._buckets[key] = new
                changed = {k: v for k, v in new.bucket.items() if not _same(now.bucket, k, v)}
                removed = [k for k in now.bucket if k not in new.bucket]
                event = {"revision": new.revision, "set": changed, "removed": removed}
                self._changes.append((key, event))
                self._changed.notify_all()
        if "return=minimal" in request.headers.get("prefer", ""):
            tag = {} if new.etag is None else {"ETag": f'"{new.etag}"'}
            tag["Preference-Applied"] = "return=minimal"
            return answer({"success": True, "revision": new.revision}, headers=tag)
        return _result(key, new, new.bucket)

    def _change(self, request: Request) -> Change:
        method = request.method
        if method == "DELETE":
            keys = request.query.get("key")
            if keys is None:
                return None
            return lambda bucket: {k: v for k, v in bucket.items() if k not in keys}
        if method not in ("PUT", "PATCH"):
            raise error("method_not_allowed", f"cannot {method} a bucket")
        kind = request.headers.get("content-type", "application/json").split(";")[0]
        if kind != "application/json" and (method == "PUT" or kind not in PATCHES):
            raise error("unsupported_media_type", f"cannot {method} a bucket as {kind[:80]}")
        if len(request.body) > self._max_bytes:
            raise error(
                "too_large",
                f"cannot read the request body: it has {len(request.body)} bytes, "
                f"allowed are {self._max_bytes}",
            )
        data = loads(request.body)
        if kind == PATCHES[1]:
            return json_patch(data, self._max_bytes)
        found = as_object(data)
        if kind == PATCHES[0]:
            return lambda bucket: merged(bucket, found)
        if method == "PUT":
            return lambda _bucket: found
        return lambda bucket: {**bucket, **found}

    def _next(self, now: Stored, change: Change, *, is_new: bool) -> Stored:
        """Return the bucket after a change; it is created by a PUT even if it stays empty."""
        if change is None:
            return ABSENT
        after = change(copy.deepcopy(now.bucket))
        if _canonical(after) == _canonical(now.bucket) and (now.revision or not is_new):
            return now
        size, before = len(dumps(after)), len(dumps(now.bucket))
        if size > max(self._max_bytes, before):
            sizes = {key: len(dumps(value)) for key, value in after.items()}
            largest = sorted(sizes, key=lambda key: -sizes[key])[:3]
            shown = ", ".join(f"{key[:40]!r} ({sizes[key]} bytes)" for key in largest)
            raise error(
                "too_large",
                f"cannot set the bucket: it would have {size} bytes, allowed are "
                f"{self._max_bytes}; its largest keys: {shown}",
                details=[{"key": key, "bytes": sizes[key]} for key in largest],
            )
        return Stored(after, now.revision + 1, f"{self._mark}{next(self._numbers):06x}")

    def _hold(self, request: Request, key: Key, context: Context | None) -> Answer:
        stops = self._stops

        def over() -> str | None:
            """Return why the hold ends: the reason of a loss, or "" for its own end."""
            if context is not None and not self._is_live(context):
                return "revoked" if context.expires > time.time() else "expired"
            return "" if request.is_gone() or self._stops != stops else None

        body = as_object(loads(request.body))
        if body.get("name"):
            check_name(body["name"], "hold")
        return answer(None, stream=self._holds.take(key, body, over))

    def _stream(
        self, request: Request, key: Key, context: Context | None, stops: int
    ) -> Iterator[bytes]:
        """Yield the changes of a bucket from now on, or after the last one that the peer knows."""
        keys = request.query.get("key")
        with self._changed:
            at, now = len(self._changes), self._buckets.get(key, ABSENT)
        since = request.headers.get("last-event-id")
        yield b"retry: 1000\n" + (f"id: {self._mark}.{at}\n\n".encode() if since is None else b"\n")
        if since is not None and since.startswith(f"{self._mark}."):
            at = int(since.partition(".")[2])
        elif since is not None:
            yield f"event: gap\nid: {self._mark}.{at}\ndata: ".encode()
            yield dumps({"device": key[0], "job": key[1]}) + b"\n\n"
            since = None
        if since is None and request.query.get("snapshot") == ["true"]:
            whole = {"revision": now.revision, "set": now.bucket, "removed": []}
            yield self._event(key, whole, keys, at, is_snapshot=True)
        beat = time.monotonic()
        while True:
            is_over = self._stops != stops or not self._is_live(context)
            for of, event in self._changes[at:]:
                at += 1
                if of == key and (data := self._event(key, event, keys, at)):
                    yield data
            if is_over:
                return
            if time.monotonic() - beat > HEARTBEAT_SECONDS:
                beat = time.monotonic()
                yield f": \nid: {self._mark}.{at}\n\n".encode()
            with self._changed:
                if len(self._changes) == at:
                    self._changed.wait(POLL_SECONDS)
            yield b""

    def _event(
        self, key: Key, event: Object, keys: list[str] | None, at: int, is_snapshot: bool = False
    ) -> bytes:
        changed = _chosen(event["set"], keys)
        removed = [k for k in event["removed"] if keys is None or k in keys]
        if keys is not None and not changed and not removed and not is_snapshot:
            return b""
        members = {"device": key[0], "job": key[1], **event, "set": changed, "removed": removed}
        return f"event: bucket\nid: {self._mark}.{at}\ndata: ".encode() + dumps(members) + b"\n\n"


def _check_guard(headers: dict[str, str], now: Stored) -> None:
    """Raise PreconditionFailed unless If-Match and If-None-Match hold."""
    wanted, unwanted = (headers.get(name) for name in ("if-match", "if-none-match"))
    current = None if now.etag is None else f'"{now.etag}"'

    def names(tags: str) -> bool:
        return current is not None and (tags == "*" or current in tags.split(", "))

    if (wanted is None or names(wanted)) and (unwanted is None or not names(unwanted)):
        return
    raise error(
        "precondition_failed",
        f"cannot change the bucket: it has changed since, or none is stored (revision "
        f"{now.revision}); read it again and repeat",
        revision=now.revision,
    )


def _result(key: Key, now: Stored, bucket: Object) -> Answer:
    label = "deviceBucket" if key[1] is None else "bucket"
    tag = {} if now.etag is None else {"ETag": f'"{now.etag}"'}
    return answer({"success": True, label: bucket, "revision": now.revision}, headers=tag)


def _chosen(bucket: Object, keys: list[str] | None) -> Object:
    return {k: v for k, v in bucket.items() if keys is None or k in keys}


def _canonical(value: Any) -> str:
    """Return text that is the same for the same JSON in any order; 1, 1.0 and true differ."""
    return json.dumps(value, sort_keys=True)


def _same(bucket: Object, key: str, value: Any) -> bool:
    return key in bucket and _canonical(bucket[key]) == _canonical(value)
