"""Heads seen before: a client says the same few things again and again, byte for byte.

The first time, aiohttp's parser and the table of routes work out what a head
means. The next time its bytes alone tell, so nothing is parsed twice, and no
second parser is needed that might disagree with the first.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import replace

from multidict import CIMultiDict, CIMultiDictProxy

from .api.app import Meaning

MOST = 4096
LONGEST = 4096
END = b"\r\n\r\n"
# With any of these the head does not say all about where its request ends, or what follows it.
_NEVER = ("Connection", "Expect", "TE", "Trailer", "Transfer-Encoding", "Upgrade")
_METHODS = ("GET", "PATCH", "PUT", "DELETE")


class Repeats:
    """What the heads seen last mean; kept under a digest, for a head may hold a token."""

    def __init__(self) -> None:
        self._meanings: OrderedDict[bytes, tuple[Meaning, int]] = OrderedDict()

    def find(self, data: bytes) -> tuple[Meaning, bytes] | None:
        """Meaning and body, if ``data`` is just one request with a head seen before."""
        end = data.find(END, 0, LONGEST) + len(END)
        if end < len(END):
            return None
        known = self._meanings.get(_digest(data[:end]))
        if known is None or len(data) - end != known[1]:
            return None
        return known[0], data[end:]

    def keep(self, head: bytes, meaning: Meaning, length: int) -> None:
        """Remember a head, of a request whose body had ``length`` bytes, unless it is special."""
        if meaning.route.method not in _METHODS or any(n in meaning.headers for n in _NEVER):
            return
        if len(self._meanings) >= MOST:
            self._meanings.popitem(last=False)
        plain = CIMultiDict(meaning.headers)
        plain.popall("Authorization", None)
        kept = replace(meaning, headers=CIMultiDictProxy(plain))
        self._meanings[_digest(head)] = (kept, length)


def _digest(head: bytes) -> bytes:
    return hashlib.blake2b(head, digest_size=32).digest()
