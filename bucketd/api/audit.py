"""One line in the log for each change that an operator makes: who made it, what, which revision.

Names and keys are told, values never are.
"""

from __future__ import annotations

import logging
from collections.abc import Coroutine
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from . import access
from .request import Request
from .responses import Deferred, Reply, Response

log = logging.getLogger(__name__)
MAX_COMMAND = 80
MAX_QUERY = 200


def logged(request: Request, reply: Reply) -> Reply:
    """Return the reply to an operator's change, which logs that change once it is made."""
    if not log.isEnabledFor(logging.INFO):
        return reply
    if isinstance(reply, Response):
        return _log(request, reply)
    if isinstance(reply, Deferred):
        render = reply.render
        return Deferred(
            reply.outcome, lambda outcome: _log(request, render(outcome)), reply.abandon
        )
    return _log_later(request, reply)


async def _log_later(request: Request, reply: Coroutine[Any, Any, Response]) -> Response:
    return _log(request, await reply)


def _log(request: Request, response: Response) -> Response:
    if response.status < 300 and request.one("dry_run") != "true":
        peer, command, what = request.peer, _command(request), _what(request)
        user = access.known_user_name(peer.uid)
        key = request.about or (request.target.key if request.target is not None else None)
        fields = {"uid": str(peer.uid), "pid": str(peer.pid), "command": command}
        fields = {f"operator_{name}": value for name, value in fields.items()}
        after = ""
        if response.revision is not None:
            after = f", revision {response.revision}"
            fields["revision"] = str(response.revision)
        log.info(
            "%s (pid %d, %s): %s%s",
            f"uid {peer.uid}" if user is None else f"{user}, uid {peer.uid}",
            peer.pid,
            command,
            what,
            after,
            extra={"fields": {**(key.fields if key is not None else {}), **fields}},
        )
    return response


def _what(request: Request) -> str:
    """Return method and path, with the names in the path and the parameters escaped."""
    head = request.head
    path = head.route.path.format(**{name: quote(text, "") for name, text in head.names.items()})
    query = urlencode([(name, text) for name, texts in head.query.items() for text in texts])
    if len(query) > MAX_QUERY:
        query = query[:MAX_QUERY] + "…"
    return f"{head.route.method} {path}{'?' + query if query else ''}"


def _command(request: Request) -> str:
    """Return what the client calls itself, else the name of its process, as far as it is visible.

    The kernel vouches for user and process; the command is what the process says of itself.
    """
    said = request.head.headers.get("User-Agent", "")
    if not said:
        try:
            said = Path(f"/proc/{request.peer.pid}/comm").read_text(errors="replace").strip()
        # The process has ended, or the service may not see processes of other users.
        except OSError:
            said = "unknown command"
    return "".join(c if c.isprintable() else "?" for c in said[:MAX_COMMAND])
