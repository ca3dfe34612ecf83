"""Decide whether a request comes from the page of the operator who started the console.

Loopback is no boundary: every user of the host and every web page in a browser reaches it. So each
request passes the checks below, in this order; the first that fails refuses it.
"""

from __future__ import annotations

from .http import Refusal, Request
from .keys import Keys, Session

# Requests that read, in spite of their method: none of them stores anything.
_CHECKS_A_SCHEMA = "/v1/schemas/"
_DRY_RUNS = ("dry_run=true", "dry_run=true&existing=tolerate")
TICKET_PATH = "/console/session"


class Guard:
    """The checks of one console, which listens at ``authority`` (127.0.0.1:PORT)."""

    def __init__(self, authority: str, keys: Keys) -> None:
        self._authority, self._origin = authority, f"http://{authority}"
        self._keys = keys

    def check_sender(self, request: Request) -> None:
        """Raise Refusal unless the request comes from this page, or from the address bar."""
        self._check_host(request)
        self._check_site(request)
        self._check_origin(request)

    def check_token(self, request: Request) -> Session:
        """Return the session of the bearer token. Raise Refusal."""
        scheme, _, token = (request.field("authorization") or "").partition(" ")
        session = self._keys.session(token) if scheme == "Bearer" else None
        if session is None:
            raise Refusal(
                401,
                "token",
                "cannot serve the request: it has no token of a page of this console; press Enter "
                "in the terminal of bucketctl console to open a new page",
                "no_session",
            )
        return session

    def check_lock(self, request: Request, session: Session) -> None:
        """Raise Refusal if the request may change something and the page is not unlocked."""
        if is_read(request):
            return
        if self._keys.is_read_only:
            raise Refusal(
                403,
                "lock",
                "cannot change anything: the console was started with --read-only",
                "console_read_only",
            )
        if not self._keys.use_unlocked(session):
            raise Refusal(
                403,
                "lock",
                "cannot change anything: the console is locked; unlock it first",
                "console_locked",
            )

    def _check_host(self, request: Request) -> None:
        # A name that resolves to 127.0.0.1 would make another site the origin of its page.
        if request.field("host") != self._authority:
            raise Refusal(
                403,
                "host",
                f"cannot serve the request: its Host must be {self._authority}; open the console "
                "by the link that bucketctl console gives",
            )

    def _check_site(self, request: Request) -> None:
        site = request.field("sec-fetch-site")
        # Programs that are no browsers, and old browsers, do not send the field.
        if site in (None, "same-origin", "none"):
            return
        if _loads_page(request):
            return
        raise Refusal(403, "site", "cannot serve the request: another page or file has sent it")

    def _check_origin(self, request: Request) -> None:
        # The expected origin is a constant. Against a rebound name a comparison with Host fails.
        if request.field("origin") not in (None, self._origin):
            raise Refusal(403, "origin", "cannot serve the request: another origin has sent it")


def _loads_page(request: Request) -> bool:
    """Report whether a browser loads the page itself into a tab.

    The file that opens the console is another site to the browser. The page holds no data and no
    key, and may not be framed.
    """
    return (request.method, request.target) == ("GET", "/") and (
        request.field("sec-fetch-mode"),
        request.field("sec-fetch-dest"),
    ) == ("navigate", "document")


def is_read(request: Request) -> bool:
    """Report whether a request for the daemon changes nothing there."""
    if request.method in ("GET", "HEAD"):
        return True
    if not request.path.startswith(_CHECKS_A_SCHEMA):
        return False
    if request.method == "PUT":
        return request.query in _DRY_RUNS
    return request.method == "POST" and request.path.endswith("/check") and not request.query
