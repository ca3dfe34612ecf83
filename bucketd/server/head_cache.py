"""Heads of requests seen before: clients send the same few again and again, byte for byte.

The first time, the parser and the table of routes find out what a head asks for. The next time its
bytes alone tell, so nothing is parsed twice, and no second parser could disagree with the first.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from hashlib import blake2b
from typing import NamedTuple

from multidict import CIMultiDict, CIMultiDictProxy

from ..api import ResolvedRequest

MAX_HEADS = 4096
MAX_HEAD_BYTES = 4096
DIGEST_BYTES = 32
# With one of these a head does not tell all about where its request ends, or what follows it; and
# one with If-Match is sent only once.
_NEVER = (
    *("Connection", "Expect", "If-Match", "Proxy-Connection"),
    *("TE", "Trailer", "Transfer-Encoding", "Upgrade"),
)


class CachedHead(NamedTuple):
    """What a head asks for, and the length of the body that follows it."""

    resolved: ResolvedRequest
    length: int


class HeadCache:
    """The heads seen last, under a digest, since a head may hold a token."""

    def __init__(self) -> None:
        self._heads: OrderedDict[bytes, CachedHead] = OrderedDict()

    def find(self, head: bytes) -> CachedHead | None:
        return self._heads.get(blake2b(head, digest_size=DIGEST_BYTES).digest())

    def keep(self, head: bytes, resolved: ResolvedRequest, length: int) -> None:
        """Remember a head of HTTP/1.1, unless there is something special about it."""
        if len(head) > MAX_HEAD_BYTES or any(name in resolved.headers for name in _NEVER):
            return
        if len(self._heads) >= MAX_HEADS:
            self._heads.popitem(last=False)
        plain = CIMultiDict(resolved.headers)
        plain.popall("Authorization", None)
        kept = replace(resolved, headers=CIMultiDictProxy(plain))
        digest = blake2b(head, digest_size=DIGEST_BYTES).digest()
        self._heads[digest] = CachedHead(kept, length)
