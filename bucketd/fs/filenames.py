"""Encode names as file names: every valid name has one safe file name, and no two share one.

Bytes of the UTF-8 name other than ``A–Z a–z 0–9 _ -`` and an inner ``.`` become ``%XX``, so ``/``,
``..`` and control characters cannot lead outside the directory. A result over 200 bytes is cut and
ends with a hash of the whole name.
"""

from __future__ import annotations

import hashlib
import os
import re
from functools import lru_cache
from urllib.parse import unquote

MAX_ENCODED, KEPT = 200, 160
_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")
_HALF_ESCAPE = re.compile(r"%[0-9A-F]?$")

SUFFIX = ".json"


@lru_cache(maxsize=8192)
def encode(name: str) -> str:
    """Return the file name, without suffix, of a device or job name."""
    raw = name.encode()
    last = len(raw) - 1
    plain = "".join(
        chr(b) if b in _PLAIN or (b == 0x2E and 0 < i < last) else f"%{b:02X}"
        for i, b in enumerate(raw)
    )
    if len(plain) <= MAX_ENCODED:
        return plain
    head = _HALF_ESCAPE.sub("", plain[:KEPT])
    return f"{head}~{hashlib.sha256(raw).hexdigest()[:32]}"


def decode(encoded: str) -> str | None:
    """Return the name of a file name; None if it was cut or is not valid."""
    name = unquote(encoded, errors="replace")
    try:
        return name if encode(name) == encoded else None
    except UnicodeEncodeError:
        # The file name is not UTF-8, so no name was encoded to it.
        return None


def printable(path: str) -> str:
    """Return any path for display; bytes that are not UTF-8 become backslash escapes."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
