"""The requests of one command line to the daemon, or the same requests as curl commands."""

from __future__ import annotations

import os

from .. import __version__, _api, _context, _transport
from .._errors import InvalidRequest
from . import output
from .parser import Usage
from .table.daily import Options


class Shown(Exception):
    """The curl command was printed; nothing was sent."""


MASK_SECRETS = "mask=secrets"
NO_TRASH = "trash=false"
_INSTEAD = "upgrade it, or show them with --reveal"
# The headers of a read before a write, for which a stale value is not sufficient.
NEWEST = {"Cache-Control": "no-cache"}


class Session:
    """The socket and the time limit of one command line."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.path = options.get("socket") or _context.socket_path(os.environ)
        self.timeout = seconds(options, "timeout")

    def scope(self) -> _context.Scope:
        """Return the scope that the options name, else that of the environment."""
        device, job = self.options.get("device"), self.options.get("job")
        automation, shared = self.options.get("automation"), self.options.has("device-bucket")
        if device is None and (job is not None or automation is not None):
            raise Usage("cannot tell which bucket: --job and --automation need --device")
        if device is not None:
            named = _context.named(device, job, automation, shared)
            return _context.with_fence(named, os.environ)
        return _context.from_environment(os.environ, shared)

    @property
    def mask(self) -> list[str]:
        """Return the parameter that asks for masks, for what a terminal shows without --reveal."""
        is_shown = output.on_terminal() and not self.options.has("curl")
        return [MASK_SECRETS] if is_shown and not self.options.has("reveal") else []

    @property
    def user_agent(self) -> str:
        """Return by which command the daemon's log says that an operator has changed something."""
        return f"bucketctl/{__version__} ({self.options.command})"

    def reach(self) -> None:
        """Wait until the daemon responds. Raises BucketError if it does not."""
        _transport.request("GET", "/healthz", path=self.path, timeout=self.timeout)

    def call(
        self,
        method: str,
        target: str,
        *,
        headers: dict[str, str] | None = None,
        body: bytes | None = None,
        default_timeout: float | None = None,
    ) -> _api.Reply:
        """Return the response. Raises BucketError, or Shown with ``--curl``.

        ``default_timeout`` applies without ``--timeout``, where the usual seconds are too few.
        """
        headers = dict(headers or {})
        if self.options.has("curl"):
            from .curl import command

            output.write(command(self.path, method, target, headers, body))
            raise Shown
        timeout = default_timeout if self.timeout is None else self.timeout
        headers["User-Agent"] = self.user_agent
        try:
            reply = _api.call(
                method, target, path=self.path, headers=headers, body=body, timeout=timeout
            )
        except InvalidRequest as problem:
            if MASK_SECRETS in target and "'mask'" in problem.message:
                problem.message += f"; the daemon is too old to mask secrets: {_INSTEAD}"
            if NO_TRASH in target and "'trash'" in problem.message:
                problem.message += "; the daemon is too old to have a trash: leave out --no-trash"
            raise
        output.changed = _changes(method, target)
        if recovered := reply.members.get("recovered_from"):
            output.warn_of_recovery(recovered)
        if output.changed and (violations := reply.members.get("warnings")):
            output.warn_of_violations(violations, _bucket_named_in(target))
        return reply


def _changes(method: str, target: str) -> bool:
    """Report whether a successful request changes something; a dry run does not."""
    return method != "GET" and not target.endswith(("dry_run=true", "/check"))


def _bucket_named_in(target: str) -> str:
    """Return the names in the path of a bucket, to begin a message with; "" if it has none."""
    from urllib.parse import unquote

    names = [unquote(name) for name in target.partition("?")[0].split("/")[3::2]]
    return "" if "/devices/" not in target else f"{', '.join(names)}: "


def seconds(options: Options, name: str) -> float | None:
    """Return an option in seconds; None if it is not given. Raises Usage."""
    text = options.get(name)
    if text is None:
        return None
    try:
        number = float(text)
        if not 0 < number <= _context.MAX_SECONDS:
            raise ValueError
    except ValueError:
        raise Usage(f"cannot use --{name} {text}: it must be a number of seconds over 0") from None
    return number
