"""Job contexts: mint a token, look it up, revoke it.

A token is 256 random bits and is shown once, to whoever minted it. What is
kept, in memory and as one file per context below ``<runtime>/contexts/``, is
its SHA-256 alone; so contexts outlive the daemon, and a copy of the directory
opens nothing.
"""

from __future__ import annotations

import hashlib
import json
import logging
import secrets
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from ..errors import InvalidRequest, NotFound, TooManyRequests
from ..fs import errors, files
from ..model.bucket import BucketKey, check_name, timestamp

log = logging.getLogger(__name__)
DIRECTORY = "contexts"


@dataclass(frozen=True, slots=True)
class Context:
    """The right to one bucket (with ``job`` None: to a device's) until ``expires`` (Unix time)."""

    id: str
    token_sha256: str
    device: str
    job: str | None
    automation: str | None
    created: float
    expires: float

    @property
    def created_at(self) -> str:
        return timestamp(self.created)

    @property
    def expires_at(self) -> str:
        return timestamp(self.expires)


class Contexts:
    """All live contexts of this host. ``root`` is a descriptor of the runtime directory.

    ``find`` touches no file. The others write, so call them on a worker thread.
    """

    def __init__(self, root: int, max_live: int, default_ttl: float, max_ttl: float) -> None:
        self._root = root
        self.limits(max_live, default_ttl, max_ttl)
        self._by_hash: dict[str, Context] = {}
        self._by_id: dict[str, Context] = {}
        for name in files.names(root, (DIRECTORY,)):
            self._load(name)

    def __len__(self) -> int:
        return len(self._by_id)

    def limits(self, max_live: int, default_ttl: float, max_ttl: float) -> None:
        """Set how many there may be, and how long one lives, in seconds."""
        self._max_live, self._default_ttl, self._max_ttl = max_live, default_ttl, max_ttl

    def mint(
        self, device: object, job: object, automation: object, ttl_seconds: object
    ) -> tuple[Context, str]:
        """A new context and its token, stored before it is returned."""
        key = BucketKey.checked(device, job)
        if automation is not None:
            automation = check_name(automation, "automation")
        ttl = self._check_ttl(ttl_seconds)
        if len(self) >= self._max_live and not self.sweep():
            raise TooManyRequests(
                f"cannot mint a context: {len(self)} are live, allowed are {self._max_live}; "
                "revoke some, or use shorter lives"
            )
        token, now = secrets.token_urlsafe(32), time.time()
        context = Context(
            secrets.token_hex(8), hash_of(token), key.device, key.job, automation, now, now + ttl
        )
        self._store(context)
        self._add(context)
        return context, token

    def find(self, token_hash: str) -> Context | None:
        """The live context that a token opens. Found by its hash, so timing tells nothing of it."""
        context = self._by_hash.get(token_hash)
        return context if context is not None and context.expires > time.time() else None

    def list(self) -> list[Context]:
        """All that are live, the oldest first."""
        self.sweep()
        return sorted(self._by_id.copy().values(), key=lambda c: c.created)

    def revoke(self, context_id: str) -> Context:
        """End it now, and tell which it was; NotFound when there is none (any more)."""
        context = self._by_id.get(context_id)
        if context is None or context.expires <= time.time():
            raise NotFound(
                "cannot revoke the context: there is none with this id (any more); "
                "GET /v1/contexts (bucketctl context list) lists those that live"
            )
        self._forget(context, durably=True)
        return context

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

    def _store(self, context: Context) -> None:
        text = json.dumps(asdict(context)).encode()
        try:
            files.write(self._root, (DIRECTORY,), _file(context), lambda _birth: text)
        except OSError as error:
            raise errors.refusal("store the context", error) from error

    def _load(self, name: str) -> None:
        """Take up one file that an earlier daemon left; what is none is left alone."""
        if name.startswith("."):
            return
        try:
            context = Context(**json.loads(files.read(self._root, (DIRECTORY,), name).text))
            BucketKey.checked(context.device, context.job)
            if _file(context) != name or not isinstance(context.token_sha256, str):
                raise ValueError("it is not the file of a context")
            expired = context.expires <= time.time()
        except (OSError, ValueError, TypeError, InvalidRequest) as error:
            log.warning("cannot take up the context in %s/%s: %s", DIRECTORY, name, error)
            return
        self._add(context)
        if expired:
            self._forget(context)

    def sweep(self) -> Sequence[Context]:
        """Forget what has expired, and tell what that was."""
        now = time.time()
        over = [c for c in self._by_id.copy().values() if c.expires <= now]
        for context in over:
            self._forget(context)
        return over

    def _add(self, context: Context) -> None:
        self._by_hash[context.token_sha256] = context
        self._by_id[context.id] = context

    def _forget(self, context: Context, durably: bool = False) -> None:
        try:
            files.remove(self._root, (DIRECTORY,), _file(context))
        except OSError as error:
            if durably:  # or it would be back after a restart
                raise errors.refusal("revoke the context", error) from error
            log.warning("cannot remove an expired context: %s", error)
        self._by_hash.pop(context.token_sha256, None)
        self._by_id.pop(context.id, None)


def hash_of(token: str) -> str:
    """What is kept of a token: its SHA-256, in hex."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def _file(context: Context) -> str:
    return f"{context.id}.json"
