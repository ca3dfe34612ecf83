"""Header fields of requests: media type, Accept, Prefer and preconditions (RFC 9110, RFC 7240)."""

from __future__ import annotations

import re

from multidict import CIMultiDictProxy

from ..core.holds import is_fence
from ..errors import InvalidRequest, NotAcceptable, UnsupportedMediaType
from ..model.masks import state_etag
from ..model.preconditions import EntityTags, Preconditions

JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
FENCE = "Bucketd-Fence"
MAX_FENCES = 8
Headers = CIMultiDictProxy[str]
# Ranges that include JSON; the more exact one decides.
_ACCEPTABLE = ("*/*", "application/*", JSON)
_ENTITY_TAG = re.compile(r'\s*(?:(W/)?"([\x21\x23-\x7e\x80-\xff]*)")?\s*(?:,|$)')  # RFC 9110 §8.8.3
_WEIGHT = re.compile(r"0(\.[0-9]{0,3})?|1(\.0{0,3})?")  # RFC 9110 §12.4.2
_PREFERENCE = re.compile(r'\s*return\s*(?:=\s*"?(\w*)"?\s*)?(?:;.*)?', re.IGNORECASE)
NO_PRECONDITIONS = Preconditions()


def check_accept(headers: Headers) -> None:
    """Raise NotAcceptable where an Accept header excludes JSON."""
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


def _quality(parameters: list[str]) -> float:
    for parameter in parameters:
        if parameter.startswith("q="):
            return float(parameter[2:]) if _WEIGHT.fullmatch(parameter[2:]) else 0.0
    return 1.0


def media_type(headers: Headers, accepted: tuple[str, ...]) -> str | None:
    """Return the media type of the body, JSON where none is named; None if it is not accepted."""
    kind, *parameters = (
        piece.strip().lower() for piece in headers.get("Content-Type", JSON).split(";")
    )
    charsets = {p.partition("=")[2].strip('"') for p in parameters if p.startswith("charset=")}
    encoding = headers.get("Content-Encoding", "identity").lower()
    if kind not in accepted or encoding != "identity" or charsets - {"utf-8", "utf8"}:
        return None
    return kind


def unsupported_media_type(accepted: tuple[str, ...]) -> UnsupportedMediaType:
    return UnsupportedMediaType(
        f"cannot read the request body: send it as {' or '.join(accepted)}, "
        "in UTF-8 and not compressed"
    )


def accepts_stale(headers: Headers) -> bool:
    """Report whether Cache-Control leaves room for a stale response (RFC 9111 §5.2.1)."""
    directives = ",".join(headers.getall("Cache-Control", [])).lower().split(",")
    return not any(one.strip() in ("no-cache", "max-age=0", "max-stale=0") for one in directives)


def prefers_minimal(headers: Headers) -> bool:
    """Report whether the first ``return`` preference is ``minimal`` (RFC 7240 §4.2)."""
    for preference in ",".join(headers.getall("Prefer", [])).split(","):
        if found := _PREFERENCE.fullmatch(preference):
            return (found[1] or "").lower() == "minimal"
    return False


def preconditions(headers: Headers, of_read: bool) -> Preconditions:
    """Return If-Match, If-None-Match and Bucketd-Fence.

    Raises InvalidRequest for an empty or malformed one. The ETag of a masked form stands for the
    state that was masked. Only If-None-Match of a read asks which form it is.
    """
    fences = _fences(headers) if FENCE in headers else ()
    if "If-Match" not in headers and "If-None-Match" not in headers:
        return Preconditions(fences=fences) if fences else NO_PRECONDITIONS
    if_match, if_none_match = (_entity_tags(headers, h) for h in ("If-Match", "If-None-Match"))
    return Preconditions(
        _of_states(if_match), if_none_match if of_read else _of_states(if_none_match), fences
    )


def _fences(headers: Headers) -> tuple[str, ...]:
    """Return the fences of a write: of a hold, and of those within which it was taken."""
    fences = tuple(dict.fromkeys(one.strip() for one in ",".join(headers.getall(FENCE)).split(",")))
    if len(fences) > MAX_FENCES or not all(map(is_fence, fences)):
        raise InvalidRequest(
            f"cannot use {FENCE}: it must have 1 to {MAX_FENCES} fences, as holds were given them, "
            "separated by commas"
        )
    return fences


def _of_states(tags: EntityTags | None) -> EntityTags | None:
    if tags is None:
        return None
    strong, weak = (frozenset(map(state_etag, each)) for each in (tags.strong, tags.weak))
    return tags._replace(strong=strong, weak=weak)


def _entity_tags(headers: Headers, header: str) -> EntityTags | None:
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
        found = _ENTITY_TAG.match(text, position)
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
