"""Job contexts: mint a token, find its context, revoke it.

A token is 256 random bits, returned once, to whoever minted it. The daemon keeps only its SHA-256,
in memory and as one file per context below ``<runtime>/contexts/``. So contexts survive a restart,
and a copy of the directory gives no access.

The lifetime of a context is elapsed time, so setting the wall clock neither ends nor prolongs it.
Wall-clock times are for display; only after a reboot they determine how much of the lifetime is
left.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import secrets
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import orjson

from ..errors import InvalidRequest, NotFound, TooManyRequests
from ..fs import clock, errors, files
from ..model.bucket import BucketKey, check_name, timestamp

log = logging.getLogger(__name__)
DIRECTORY = "contexts"
_LATEST = 253402300799.0  # the last second of the year 9999


@dataclass(frozen=True, slots=True)
class Context:
    """Access to one bucket (with ``job`` None: to the device bucket) until ``ends``.

    ``ends`` is in seconds since the boot that ``boot`` names; ``created`` and ``expires`` are
    Unix times, for display. ``label`` says which run of an automation it is; files of earlier
    daemons have none.
    """

    id: str
    token_sha256: str
    device: str
    job: str | None
    automation: str | None
    created: float
    expires: float
    ends: float
    boot: str
    label: str | None = None

    @property
    def created_at(self) -> str:
        return timestamp(self.created)

    @property
    def expires_at(self) -> str:
        return timestamp(self.expires)

    @property
    def seconds_left(self) -> float:
        """Return the remaining lifetime; 0 or less once the context has expired."""
        return self.ends - clock.boottime()


class Contexts:
    """All live contexts of this host. ``root`` is a descriptor of the runtime directory.

    ``find`` touches no file. The others write, so call them on a worker thread.
    """

    def __init__(self, root: int, max_live: int, default_ttl: float, max_ttl: float) -> None:
        self._root = root
        self.limits(max_live, default_ttl, max_ttl)
        self._by_hash: dict[str, Context] = {}
        self._by_id: dict[str, Context] = {}
        self._unusable: list[str] = []
        try:
            found = files.names(root, (DIRECTORY,))
        except OSError as error:
            found = []
            self._report(f"cannot read the contexts in {DIRECTORY}/: {error.strerror}")
        for name in found:
            self._load(name)

    def __len__(self) -> int:
        return len(self._by_id)

    def limits(self, max_live: int, default_ttl: float, max_ttl: float) -> None:
        """Set the maximum number of contexts, and their lifetimes in seconds."""
        self._max_live, self._default_ttl, self._max_ttl = max_live, default_ttl, max_ttl

    def problems(self) -> list[str]:
        """Return a sentence for each file that could not be loaded at the start."""
        return self._unusable.copy()

    def mint(
        self,
        device: object,
        job: object,
        automation: object,
        ttl_seconds: object,
        label: object = None,
    ) -> tuple[Context, str]:
        """Return a new context and its token, once the context is stored."""
        key = BucketKey.checked(device, job)
        if automation is not None:
            automation = check_name(automation, "automation")
        if label is not None:
            label = check_name(label, "label")
        ttl = self._check_ttl(ttl_seconds)
        if len(self) >= self._max_live and not self.sweep():
            raise TooManyRequests(
                f"cannot mint a context: {len(self)} are live, allowed are {self._max_live}; "
                "revoke some, or use a shorter ttl_seconds"
            )
        token, now = secrets.token_urlsafe(32), time.time()
        context = Context(
            id=secrets.token_hex(8),
            token_sha256=hash_of(token),
            device=key.device,
            job=key.job,
            automation=automation,
            created=now,
            expires=now + ttl,
            ends=clock.boottime() + ttl,
            boot=clock.boot_id(),
            label=label,
        )
        self._store(context)
        self._add(context)
        return context, token

    def find(self, token_hash: str) -> Context | None:
        """Return the live context of a token; its hash makes the lookup's timing harmless."""
        context = self._by_hash.get(token_hash)
        return context if context is not None and context.seconds_left > 0 else None

    def list(self) -> list[Context]:
        """Return all live contexts, the oldest first."""
        self.sweep()
        return sorted(self._by_id.copy().values(), key=lambda c: c.created)

    def revoke(self, context_id: str) -> Context:
        """End a context now and return it; raise NotFound if no live context has this id."""
        context = self._by_id.get(context_id)
        if context is None or context.seconds_left <= 0:
            raise NotFound(
                "cannot revoke the context: no live context has this id; "
                "GET /v1/contexts (bucketctl context list) lists the live ones"
            )
        self._forget(context, durably=True)
        return context

    def sweep(self) -> Sequence[Context]:
        """Forget the contexts that have expired, and return them."""
        expired = [c for c in self._by_id.copy().values() if c.seconds_left <= 0]
        for context in expired:
            self._forget(context)
        return expired

    def are_stored(self) -> bool:
        """Report whether the directory of the files exists; without contexts, report True."""
        if not self._by_id:
            return True
        with contextlib.suppress(OSError):
            os.stat(DIRECTORY, dir_fd=self._root)
            return True
        return False

    def move(self, root: int) -> None:
        """Store all contexts again below another runtime directory. Raises BucketdError."""
        for context in self._by_id.copy().values():
            self._store(context, root)
        self._root = root

    def _check_ttl(self, ttl: object) -> float:
        if ttl is None:
            return self._default_ttl
        number = isinstance(ttl, int | float) and not isinstance(ttl, bool)
        if not number or not 0 < ttl <= self._max_ttl:  # type: ignore[operator]
            raise InvalidRequest(
                "cannot mint a context: ttl_seconds must be a number over 0 "
                f"and at most {self._max_ttl:.0f}"
            )
        return float(ttl)  # type: ignore[arg-type]

    def _store(self, context: Context, root: int | None = None) -> None:
        # An earlier daemon, after a downgrade, does not know the member.
        members = {k: v for k, v in asdict(context).items() if (k, v) != ("label", None)}
        text = json.dumps(members).encode()
        root = self._root if root is None else root
        try:
            files.write(root, (DIRECTORY,), _file(context), lambda _birth: text)
        except OSError as error:
            raise errors.refusal("store the context", error) from error

    def _load(self, name: str) -> None:
        """Load a file of an earlier daemon; leave a file that is not a context untouched."""
        if name.startswith("."):
            return
        try:
            context = _parse(files.read(self._root, (DIRECTORY,), name).text)
            if _file(context) != name:
                raise ValueError("it has the name of another context")
        except OSError as error:
            self._report(f"cannot load the context {_path(name)}: {error.strerror}")
            return
        except (ValueError, TypeError, KeyError, InvalidRequest):
            self._report(
                f"cannot load the context {_path(name)}: it is not the file of a context; remove it"
            )
            return
        self._add(context)
        if context.seconds_left <= 0:
            self._forget(context)

    def _report(self, problem: str) -> None:
        log.warning("%s", problem)
        self._unusable.append(problem)

    def _add(self, context: Context) -> None:
        self._by_hash[context.token_sha256] = context
        self._by_id[context.id] = context

    def _forget(self, context: Context, durably: bool = False) -> None:
        try:
            files.remove(self._root, (DIRECTORY,), _file(context))
        except OSError as error:
            # A revoked context whose file stays would be valid again after a restart.
            if durably:
                raise errors.refusal("revoke the context", error) from error
            log.warning("cannot remove an expired context: %s", error)
        self._by_hash.pop(context.token_sha256, None)
        self._by_id.pop(context.id, None)


def _parse(text: bytes) -> Context:
    """Return the context in a file. Raises ValueError, TypeError, KeyError or InvalidRequest."""
    # orjson refuses what Python's own parser lets pass: NaN, numbers beyond all bounds, and nesting
    # that no recursion can follow.
    members: dict[str, Any] = orjson.loads(text)
    created, expires = _time(members["created"]), _time(members["expires"])
    ttl = expires - created
    ends, boot = members.get("ends"), members.get("boot", "")
    if ends is None or not clock.is_this_boot(boot, _time(ends) - ttl):
        # After a reboot only the wall clock can tell the rest of the lifetime. Setting the clock
        # back does not prolong the lifetime, which stays at most ``ttl``.
        left = min(expires - time.time(), ttl)
        members |= {"ends": clock.boottime() + left, "boot": clock.boot_id()}
    context = Context(**members | {"created": created, "expires": expires})
    BucketKey.checked(context.device, context.job)
    if context.automation is not None:
        check_name(context.automation, "automation")
    if context.label is not None:
        check_name(context.label, "label")
    if not all(isinstance(text, str) for text in (context.token_sha256, context.id, context.boot)):
        raise TypeError("it is not the file of a context")
    return context


def _time(value: object) -> float:
    """Return a number of seconds that can be shown as a time. Raises ValueError or TypeError."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError("it is not a number")
    if not abs(value) <= _LATEST:
        raise ValueError("no calendar has this time")
    return float(value)


def hash_of(token: str) -> str:
    """Return the SHA-256 of a token in hex, which is all that the daemon keeps."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def _file(context: Context) -> str:
    return f"{context.id}.json"


def _path(name: str) -> str:
    """Return the path of a file for display; bytes that are not UTF-8 become escapes."""
    return f"{DIRECTORY}/{os.fsencode(name).decode(errors='backslashreplace')}"
