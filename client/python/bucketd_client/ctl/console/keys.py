"""The keys of a console: one-time tickets that open a page, tokens of pages, and their locks."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable

TICKET_SECONDS = 300.0
# A page locks itself again so long after its last change.
UNLOCKED_SECONDS = 900.0


class Session:
    """One page that was opened with a ticket."""

    def __init__(self) -> None:
        self.unlocked_until = 0.0


class _Ticket:
    def __init__(self, expires: float) -> None:
        self.expires = expires
        # The digest of the token that the ticket was exchanged for.
        self.token: bytes | None = None


class TicketRefused(Exception):
    """The ticket opens nothing; the message says why."""


class Keys:
    """Tickets and tokens, of which only digests are kept: a dump of memory opens nothing."""

    def __init__(self, is_read_only: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self.is_read_only = is_read_only
        self._clock = clock
        self._tickets: dict[bytes, _Ticket] = {}
        self._sessions: dict[bytes, Session] = {}

    def new_ticket(self) -> str:
        """Return a ticket that opens one page, once, within TICKET_SECONDS."""
        ticket = secrets.token_urlsafe(32)
        self._tickets[_digest(ticket)] = _Ticket(self._clock() + TICKET_SECONDS)
        return ticket

    def redeem(self, ticket: str) -> str:
        """Return the token of a new page. Raise TicketRefused.

        A ticket that comes a second time was stolen by one of the two who had it, so the page that
        it opened ends as well.
        """
        found = self._tickets.get(_digest(ticket))
        if found is None:
            raise TicketRefused("cannot open the page: its link is not of this console")
        if found.token is not None:
            self._sessions.pop(found.token, None)
            raise TicketRefused(
                "cannot open the page: its link was used before; the page that it opened has ended"
            )
        if self._clock() >= found.expires:
            raise TicketRefused("cannot open the page: its link has expired")
        token = secrets.token_urlsafe(32)
        found.token = _digest(token)
        self._sessions[found.token] = Session()
        return token

    def session(self, token: str) -> Session | None:
        return self._sessions.get(_digest(token))

    def unlock(self, session: Session) -> None:
        session.unlocked_until = self._clock() + UNLOCKED_SECONDS

    def lock(self, session: Session) -> None:
        session.unlocked_until = 0.0

    def use_unlocked(self, session: Session) -> bool:
        """Report whether the page is unlocked; if so, it stays unlocked for another while."""
        if not self.unlocked_seconds(session):
            return False
        self.unlock(session)
        return True

    def unlocked_seconds(self, session: Session) -> float:
        """Return for how long the page is still unlocked."""
        return max(0.0, session.unlocked_until - self._clock())


def _digest(key: str) -> bytes:
    """Return the digest by which a key is found, so that no comparison depends on its bytes."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
