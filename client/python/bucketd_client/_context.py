"""Find the daemon and the bucket, from arguments or from the environment at call time."""

from __future__ import annotations

import os

from ._errors import error

# See _bucket.
__tracebackhide__ = True

TYPE_CHECKING = False  # see bucketd_client

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

SYSTEM_SOCKET = "/run/bucketd/bucketd.sock"
MAX_TOKEN_FILE = 4096
# Thirty years; the system's clocks overflow after a few centuries.
MAX_SECONDS = 1e9
HOW_TO_GET_CONTEXT = "start it with: bucketctl run --device DEVICE --job JOB -- COMMAND"
_BLANKS = " \t\r\n"
_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-.~")


def socket_path(environ: Mapping[str, str]) -> str:
    """Return ``BUCKETD_SOCKET``, else the user's socket if it exists, else the system's."""
    if given := environ.get("BUCKETD_SOCKET"):
        return given
    runtime = environ.get("XDG_RUNTIME_DIR")
    if runtime and os.path.exists(path := f"{runtime}/bucketd/bucketd.sock"):
        return path
    return SYSTEM_SOCKET


def path_of(socket: str | os.PathLike[str] | None) -> str | None:
    """Return a path as a string, None for None. Raise InvalidRequest unless it is a path."""
    try:
        path = None if socket is None else os.fsdecode(socket)
    except TypeError:
        raise error(
            "invalid_request", f"cannot use a {_kind(socket)} as socket: give its path"
        ) from None
    if path is not None and "\0" in path:
        raise error("invalid_request", "cannot use the socket: its path contains a null character")
    return path


def seconds(timeout: float | None) -> float | None:
    """Return the timeout. Raise InvalidRequest unless it is a possible number of seconds."""
    if timeout is None or (isinstance(timeout, (int, float)) and 0 < timeout <= MAX_SECONDS):
        return timeout
    raise error(
        "invalid_request",
        f"cannot use the timeout: it must be a number of seconds from 0 to {MAX_SECONDS:.0e}",
    )


def _kind(value: object) -> str:
    return type(value).__name__


def escape(text: str) -> str:
    """Percent-encode a path segment or query value; dots alone as well, since they are resolved."""
    if not isinstance(text, str):
        raise error(
            "invalid_request",
            f"cannot use a name or key that is a {_kind(text)}: it must be a string",
        )
    try:
        raw = text.encode()
    except UnicodeEncodeError:
        raise error(
            "invalid_request",
            "cannot use a name or key with a lone surrogate (U+D800 to U+DFFF): UTF-8 has none",
        ) from None
    if not raw.strip(b"."):
        return "%2E" * len(raw)
    return "".join(chr(b) if b in _PLAIN else f"%{b:02X}" for b in raw)


class Scope:
    """One bucket, identified by a token, or by the names that an operator gives.

    ``label`` is the member of a result that holds the bucket. ``fence`` is sent with writes: the
    fences of holds, the outer one first. Scopes with the same ``identity`` are equal.
    """

    __slots__ = (
        "automation", "device", "device_bucket", "fence", "identity", "job", "label", "token",
    )  # fmt: skip

    def __init__(
        self,
        token: str | None,
        device: str | None,
        job: str | None,
        automation: str | None,
        device_bucket: bool,
        fence: str | None = None,
    ) -> None:
        self.token, self.device, self.job = token, device, job
        self.automation, self.device_bucket, self.fence = automation, device_bucket, fence
        self.identity = (token, device, job, automation, device_bucket, fence)
        of_device = device_bucket or (token is None and job is None)
        self.label = "deviceBucket" if of_device else "bucket"

    def __repr__(self) -> str:
        """Return a text without the token, since a repr ends up in logs."""
        token = None if self.token is None else "…"
        return f"Scope(token={token}, device={self.device!r}, job={self.job!r})"

    def target(
        self, keys: Iterable[str] = (), defaults: bool = False, more: Iterable[str] = ()
    ) -> str:
        """Return path and query of the bucket, which may be completed by ``defaults``.

        ``more`` are further parameters of the query.
        """
        more = ["defaults=true", *more] if defaults else more
        return self._path + self._query(keys, more)

    def events(
        self, keys: Iterable[str] = (), snapshot: bool = False, more: Iterable[str] = ()
    ) -> str:
        """Return path and query of the bucket's events."""
        more = [*more, "snapshot=true"] if snapshot else more
        return f"{self._path}/events{self._query(keys, more)}"

    def below(self, rest: str, query: Iterable[str]) -> str:
        """Return path and query of what belongs to the bucket, as ``/history``."""
        return f"{self._path}{rest}{self._query((), query)}"

    def hold(self) -> str:
        """Return the path that holds the pair, or for a device bucket the whole device."""
        return f"{self._path.removesuffix('/bucket')}/hold"

    def fenced(self, fence: str) -> Scope:
        """Return this scope with one more fence, unless it has that one."""
        if self.fence is not None and fence in self.fence.split(", "):
            return self
        fences = fence if self.fence is None else f"{self.fence}, {fence}"
        return Scope(self.token, self.device, self.job, self.automation, self.device_bucket, fences)

    @property
    def _path(self) -> str:
        if self.token is not None:
            return "/v1/device/bucket" if self.device_bucket else "/v1/bucket"
        if self.label == "deviceBucket":
            return f"/v1/devices/{escape(self.device or '')}/bucket"
        return f"/v1/devices/{escape(self.device or '')}/jobs/{escape(self.job or '')}/bucket"

    def _query(self, keys: Iterable[str], more: Iterable[str] = ()) -> str:
        query = [*(f"key={escape(key)}" for key in keys), *more]
        names_pair = self.token is None and self.label == "bucket"
        if names_pair and self.automation is not None:
            query.append(f"automation={escape(self.automation)}")
        return "?" + "&".join(query) if query else ""

    def headers(self, method: str = "GET") -> dict[str, str]:
        """Return the headers of the scope: its token and, for a write, its fence."""
        headers = {} if self.token is None else {"Authorization": f"Bearer {self.token}"}
        if self.fence is not None and method != "GET":
            headers["Bucketd-Fence"] = self.fence
        return headers


def from_environment(environ: Mapping[str, str], device_bucket: bool = False) -> Scope:
    """Return the context in the environment. Raise NoJobContext if there is none."""
    token = _token(environ)
    device, job = environ.get("BUCKETD_DEVICE"), environ.get("BUCKETD_JOB")
    automation, fence = environ.get("BUCKETD_AUTOMATION"), environ.get("BUCKETD_FENCE") or None
    if token is not None:
        return Scope(token, device, job, automation, device_bucket, fence)
    if not device:
        raise error(
            "no_job_context", f"no job context: this process was given none; {HOW_TO_GET_CONTEXT}"
        )
    if device_bucket:
        return Scope(None, device, None, None, True, fence)
    if not job:
        raise error(
            "no_job_context",
            f"no job context: BUCKETD_DEVICE is set, BUCKETD_JOB is not; {HOW_TO_GET_CONTEXT}",
        )
    return Scope(None, device, job, automation or None, False, fence)


def with_fence(given: Scope, environ: Mapping[str, str]) -> Scope:
    """Return a given scope with the fence of the environment, if both are of the same context.

    ``bucketctl run --hold`` sets BUCKETD_FENCE, which the daemon accepts for no other bucket, and
    BUCKETD_HOLD: the fence of a device is good for all its jobs.
    """
    fence = environ.get("BUCKETD_FENCE")
    if not fence:
        return given
    if given.token is not None:
        is_same = given.token == environ.get("BUCKETD_TOKEN")
    else:
        is_guarded = given.job in (None, environ.get("BUCKETD_JOB"))
        is_guarded = is_guarded or environ.get("BUCKETD_HOLD") == "device"
        is_same = given.device == environ.get("BUCKETD_DEVICE") and is_guarded
    return given.fenced(fence) if is_same else given


def named(device: str, job: str | None, automation: str | None, device_bucket: bool) -> Scope:
    """Return the scope of a bucket that the caller names, as an operator."""
    device_bucket = device_bucket or job is None
    return Scope(
        None,
        device,
        None if device_bucket else job,
        None if device_bucket else automation,
        device_bucket,
    )


def token_of(text: str, whence: str) -> str:
    """Return the token without blanks around it. Raise NoJobContext if it is not a token."""
    token = text.strip(_BLANKS) if isinstance(text, str) else ""
    if token and token.isascii() and token.isprintable() and " " not in token:
        return token
    raise error("no_job_context", f"no job context: {whence} holds no token; {HOW_TO_GET_CONTEXT}")


def _token(environ: Mapping[str, str]) -> str | None:
    if token := environ.get("BUCKETD_TOKEN"):
        return token_of(token, "BUCKETD_TOKEN")
    path = environ.get("BUCKETD_TOKEN_FILE")
    if not path:
        return None
    try:
        with open(path, encoding="ascii") as file:
            return token_of(file.read(MAX_TOKEN_FILE), f"BUCKETD_TOKEN_FILE {path}")
    except OSError as failure:
        cause = failure.strerror or str(failure)
    except UnicodeDecodeError:
        cause = "it holds no token"
    raise error("no_job_context", f"no job context: cannot read BUCKETD_TOKEN_FILE {path}: {cause}")
