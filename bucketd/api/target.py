"""The request target: its path and query, percent-decoded once, and the bucket it names."""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

from ..errors import InvalidRequest

Query = dict[str, list[str]]
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_AUTHORITY = re.compile(r"[^/?]*/?")


def split_target(raw: str) -> tuple[str, str]:
    """Return path and query, still encoded; accept the absolute form too (RFC 9112 §3.2.2)."""
    if raw[:7].lower() == "http://":
        raw = "/" + _AUTHORITY.sub("", raw[7:], count=1)
    path, _, query = raw.partition("?")
    return path, query


def decode(text: str, what: str) -> str:
    """Percent-decode once, as UTF-8; raise InvalidRequest for anything else."""
    if "%" not in text and text.isascii():
        return text
    try:
        if _BAD_ESCAPE.search(text):
            raise ValueError
        return unquote_to_bytes(text).decode()
    except ValueError:
        raise InvalidRequest(
            f"cannot read {what}: it is not percent-encoded UTF-8 (a literal % is %25)"
        ) from None


def parse_query(text: str, allowed: frozenset[str]) -> Query:
    """Return the parameters; raise InvalidRequest for an unknown or a repeated one.

    A lenient parser would read ``DELETE …?keys=a`` as ``DELETE …`` and delete everything.
    """
    found: Query = {}
    for pair in filter(None, text.split("&")):
        name, _, value = pair.partition("=")
        name, value = (decode(piece.replace("+", " "), "the query") for piece in (name, value))
        if name not in allowed:
            known = ", ".join(sorted(allowed)) or "none"
            raise InvalidRequest(f"cannot use the parameter {name[:40]!r}: this route has {known}")
        if name in found and name != "key":
            raise InvalidRequest(f"cannot use the parameter {name!r} twice")
        found.setdefault(name, []).append(value)
    return found
