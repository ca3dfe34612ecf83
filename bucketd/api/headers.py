"""Requests in: target, query, media type, body and guard; InvalidRequest for what is none."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import unquote_to_bytes

from multidict import CIMultiDictProxy

from ..concurrency import INLINE_MAX_BYTES
from ..errors import InvalidRequest, NotAcceptable, TooLarge, UnsupportedMediaType
from ..model import strict_json
from ..model.preconditions import EntityTags, Preconditions

JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_AUTHORITY = re.compile(r"[^/?]*/?")
_TAG = re.compile(r'\s*(?:(W/)?"([\x21\x23-\x7e\x80-\xff]*)")?\s*(?:,|$)')  # RFC 9110 §8.8.3
Headers = CIMultiDictProxy[str]
T = TypeVar("T")


def split_target(raw: str) -> tuple[str, str]:
    """Path and query, still encoded; of the absolute form too (RFC 9112 §3.2.2)."""
    if raw[:7].lower() == "http://":
        raw = "/" + _AUTHORITY.sub("", raw[7:], count=1)
    path, _, query = raw.partition("?")
    return path, query


def decode(text: str, what: str) -> str:
    """Percent-decode once, as UTF-8; InvalidRequest for anything else."""
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


def parse_query(text: str, allowed: frozenset[str]) -> dict[str, list[str]]:
    """The parameters; one that the route has not, or has once and gets twice, is refused.

    Strictly, because ``DELETE …?keys=a`` read as ``DELETE …`` would delete everything.
    """
    found: dict[str, list[str]] = {}
    for pair in filter(None, text.split("&")):
        name, _, value = pair.partition("=")
        name, value = (decode(piece.replace("+", " "), "the query") for piece in (name, value))
        if name not in allowed:
            known = ", ".join(sorted(allowed)) or "none"
            raise InvalidRequest(f"cannot use the parameter {name!r}: this route has {known}")
        if name in found and name != "key":
            raise InvalidRequest(f"cannot use the parameter {name!r} twice")
        found.setdefault(name, []).append(value)
    return found


def check_accept(headers: Headers) -> None:
    """NotAcceptable where an Accept header leaves no room for JSON."""
    accept = ",".join(headers.getall("Accept", []))
    if not accept.strip():
        return
    best: tuple[int, float] = (-1, 0.0)
    for item in accept.split(","):
        kind, *parameters = (piece.strip().lower() for piece in item.split(";"))
        if kind in _ACCEPTABLE:
            best = max(best, (_ACCEPTABLE.index(kind), _quality(parameters)))
    if best[1] <= 0:
        raise NotAcceptable("cannot answer in the type asked for: this API speaks application/json")


_ACCEPTABLE = ("*/*", "application/*", JSON)  # the more exact range decides


def _quality(parameters: list[str]) -> float:
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                return float(parameter[2:])
            except ValueError:
                return 0.0
    return 1.0


def media_type(headers: Headers, allowed: tuple[str, ...]) -> str:
    """The body's media type; JSON where none is named. UnsupportedMediaType for any other."""
    if headers.get("Content-Type") == JSON and "Content-Encoding" not in headers:
        return JSON  # all four writes take it
    kind, *parameters = (
        piece.strip().lower() for piece in headers.get("Content-Type", JSON).split(";")
    )
    charsets = [p.partition("=")[2].strip('"') for p in parameters if p.startswith("charset=")]
    encoding = headers.get("Content-Encoding", "identity").lower()
    if kind not in allowed or encoding != "identity" or set(charsets) - {"utf-8", "utf8"}:
        raise UnsupportedMediaType(
            f"cannot read the request body: send it as {' or '.join(allowed)}, "
            "in UTF-8 and not compressed"
        )
    return kind


def made_of(text: bytes, then: Callable[[Any], T]) -> T:
    """What ``then`` makes of a body as JSON."""
    return then(strict_json.loads(text))


def wants_newest(headers: Headers) -> bool:
    """Whether nothing stale will do (RFC 9111 §5.2.1.4), however that is asked for."""
    directives = ",".join(headers.getall("Cache-Control", [])).lower().split(",")
    return any(one.strip() in ("no-cache", "max-age=0", "max-stale=0") for one in directives)


def has_large_body(headers: Headers) -> bool:
    """Whether it has over INLINE_MAX_BYTES, or comes in chunks and may have."""
    return (
        "Transfer-Encoding" in headers or int(headers.get("Content-Length", 0)) > INLINE_MAX_BYTES
    )


def body_too_large(size: str, limit: int) -> TooLarge:
    return TooLarge(
        f"cannot read the request body: it has {size}, allowed are {limit}; "
        "[limits] max_bucket_bytes says how many"
    )


def is_conditional(headers: Headers) -> bool:
    """Whether there is a guard. Asked of every request, so without a generator."""
    return "If-Match" in headers or "If-None-Match" in headers


def guard(headers: Headers) -> Preconditions:
    """If-Match and If-None-Match as a Guard; InvalidRequest for one that is empty or none."""
    if not is_conditional(headers):
        return _UNGUARDED
    return Preconditions(_tags(headers, "If-Match"), _tags(headers, "If-None-Match"))


_UNGUARDED = Preconditions()


def _tags(headers: Headers, header: str) -> EntityTags | None:
    values = headers.getall(header, None)
    if values is None:
        return None
    text = ",".join(values).strip()
    if text == "*":
        return EntityTags(any=True)
    strong: set[str] = set()
    weak: set[str] = set()
    position = 0
    while position < len(text):
        found = _TAG.match(text, position)
        if found is None or found.end() == position:
            break
        position = found.end()
        if found[2] is not None:
            (weak if found[1] else strong).add(found[2])
    if position < len(text) or not strong | weak:
        raise InvalidRequest(
            f'cannot use {header}: it must be * or a list of ETags such as "4f1c…", in quotes'
        )
    return EntityTags(strong=frozenset(strong), weak=frozenset(weak))
