"""Heads seen before: a client says the same few things again and again, byte for byte.

The first time, aiohttp's parser and the table of routes work out what a head
means. The next time its bytes alone tell, so nothing is parsed twice, and no
second parser is needed that might disagree with the first.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass, replace

from multidict import CIMultiDict, CIMultiDictProxy

from ..api.dispatch import ResolvedRequest
from ..api.responses import Frame

MOST = 4096
LONGEST = 4096
END = b"\r\n\r\n"
# With any of these the head does not say all about where its request ends, or what follows it.
_NEVER = (
    *("Connection", "Expect", "Proxy-Connection"),
    *("TE", "Trailer", "Transfer-Encoding", "Upgrade"),
)
_METHODS = ("GET", "PATCH", "PUT", "DELETE")


@dataclass(slots=True)
class CachedHead:
    """One head: what it means, how long its body is, and what frames the bucket in its answer.

    ``about``: the path and the method of its route.
    """

    meaning: ResolvedRequest
    length: int
    plain_read: bool
    about: tuple[str, str]
    frame: Frame | None = None


class HeadCache:
    """What the heads seen last mean; kept under a digest, for a head may hold a token."""

    def __init__(self) -> None:
        self._heads: OrderedDict[bytes, CachedHead] = OrderedDict()

    def find(self, data: bytes) -> tuple[CachedHead, bytes] | None:
        """The head and the body, if ``data`` is just one request with a head seen before."""
        end = data.find(END, 0, LONGEST) + len(END)
        if end < len(END):
            return None
        known = self._heads.get(_digest(data[:end]))
        if known is None or len(data) - end != known.length:
            return None
        return known, data[end:]

    def keep(self, head: bytes, meaning: ResolvedRequest, length: int) -> None:
        """Remember a head, of a request whose body had ``length`` bytes, unless it is special."""
        if meaning.route.method not in _METHODS or any(n in meaning.headers for n in _NEVER):
            return
        if len(self._heads) >= MOST:
            self._heads.popitem(last=False)
        plain = CIMultiDict(meaning.headers)
        plain.popall("Authorization", None)
        kept = replace(meaning, headers=CIMultiDictProxy(plain))
        self._heads[_digest(head)] = CachedHead(
            kept, length, kept.plain_read, (kept.route.path, kept.route.method)
        )


def _digest(head: bytes) -> bytes:
    return hashlib.blake2b(head, digest_size=32).digest()
