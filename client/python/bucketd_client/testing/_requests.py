"""One request as plain data: target, query, media type and preconditions, checked."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_to_bytes

from .._errors import BucketError, error
from ._holds import Peer
from ._model import EntityTags, Preconditions

JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_WEIGHT = re.compile(r"0(\.[0-9]{0,3})?|1(\.0{0,3})?")  # RFC 9110 §12.4.2
_TAG = re.compile(r'\s*(?:(W/)?"([\x21\x23-\x7e\x80-\xff]*)")?\s*(?:,|$)')
_PREFERENCE = re.compile(r'\s*return\s*(?:=\s*"?(\w*)"?\s*)?(?:;.*)?', re.IGNORECASE)
_RANGES = ("*/*", "application/*", JSON)  # The last, most exact one decides.
Headers = dict[str, list[str]]


@dataclass(frozen=True)
class Request:
    """A request as received. ``headers`` has all values of each name, in lower case.

    ``body`` is the refusal where it could not be read, or is longer than a bucket may be. ``peer``
    is the other end of its connection.
    """

    method: str
    target: str
    headers: Headers
    body: bytes | BucketError
    peer: Peer

    @property
    def path(self) -> str:
        return self._split[0]

    @property
    def _split(self) -> tuple[str, str]:
        target = self.target
        if target[:7].lower() == "http://":
            target = "/" + re.sub(r"[^/?]*/?", "", target[7:], count=1)
        path, _, query = target.partition("?")
        return path, query

    def query(self, allowed: str) -> dict[str, list[str]]:
        """Return the parameters, of which only ``key`` may be repeated."""
        found: dict[str, list[str]] = {}
        for pair in filter(None, self._split[1].split("&")):
            name, _, value = (
                decode(part.replace("+", " "), "the query") for part in pair.partition("=")
            )
            if name not in allowed.split():
                known = ", ".join(sorted(allowed.split())) or "none"
                raise _bad(f"cannot use the parameter {name[:40]!r}: this route has {known}")
            if name in found and name != "key":
                raise _bad(f"cannot use the parameter {name!r} twice")
            found.setdefault(name, []).append(value)
        return found

    def token(self) -> str | None:
        """Return the bearer token, "" for another Authorization, None without one."""
        values = self.headers.get("authorization", [])
        if len(values) > 1:
            raise _bad("cannot tell who asks: there are several Authorization headers")
        if not values:
            return None
        scheme, _, token = values[0].partition(" ")
        return token.strip() if scheme.lower() == "bearer" else ""

    def media_type(self, allowed: tuple[str, ...]) -> str:
        kind, *more = (
            part.strip().lower() for part in self._first("content-type", JSON).split(";")
        )
        charsets = {part[8:].strip('"') for part in more if part.startswith("charset=")}
        encoding = self._first("content-encoding", "identity").lower()
        if kind not in allowed or encoding != "identity" or charsets - {"utf-8", "utf8"}:
            raise error(
                "unsupported_media_type",
                f"cannot read the request body: send it as {' or '.join(allowed)}, "
                "in UTF-8 and not compressed",
            )
        return kind

    def refuse_browsers(self) -> None:
        if "origin" in self.headers or "referer" in self.headers:
            raise error(
                "forbidden",
                "cannot answer a browser: a request with Origin or Referer is refused, "
                "so that no web page can reach buckets through a proxy of this socket",
            )

    def accept_json(self) -> None:
        accept = ",".join(self.headers.get("accept", []))
        if accept.strip() and not _accepts_json(accept):
            raise error(
                "not_acceptable",
                "cannot answer in the type asked for: this API speaks application/json",
            )

    def content(self) -> bytes:
        if isinstance(self.body, bytes):
            return self.body
        raise self.body

    @property
    def prefers_minimal(self) -> bool:
        """Report whether the response to a write may do without the bucket (RFC 7240)."""
        preferences = ",".join(self.headers.get("prefer", [])).split(",")
        returns = [found[1] or "" for found in map(_PREFERENCE.fullmatch, preferences) if found]
        return [each.lower() for each in returns[:1]] == ["minimal"]

    @property
    def preconditions(self) -> Preconditions:
        return Preconditions(self._entity_tags("If-Match"), self._entity_tags("If-None-Match"))

    def _first(self, name: str, default: str) -> str:
        return self.headers.get(name, [default])[0]

    def _entity_tags(self, header: str) -> EntityTags | None:
        values = self.headers.get(header.lower())
        if values is None:
            return None
        text = ",".join(values).strip()
        if text == "*":
            return EntityTags(True, frozenset(), frozenset())
        found: list[re.Match[str]] = []
        at = 0
        while at < len(text) and (tag := _TAG.match(text, at)) and tag.end() > at:
            found, at = [*found, tag], tag.end()
        strong = frozenset(tag[2] for tag in found if tag[2] is not None and not tag[1])
        weak = frozenset(tag[2] for tag in found if tag[2] is not None and tag[1])
        if at < len(text) or not strong | weak:
            raise _bad(
                f'cannot use {header}: it must be * or a list of ETags such as "4f1c…", in quotes'
            )
        return EntityTags(False, strong, weak)


def decode(text: str, what: str) -> str:
    """Decode percent-encoded UTF-8 once. Raise InvalidRequest for anything else."""
    try:
        if _BAD_ESCAPE.search(text):
            raise ValueError
        return unquote_to_bytes(text).decode()
    except ValueError:
        raise _bad(
            f"cannot read {what}: it is not percent-encoded UTF-8 (a literal % is %25)"
        ) from None


def _accepts_json(accept: str) -> bool:
    best = (-1, 0.0)
    for item in accept.split(","):
        kind, *more = (part.strip().lower() for part in item.split(";"))
        if kind in _RANGES:
            best = max(best, (_RANGES.index(kind), _quality(more)))
    return best[1] > 0


def _quality(parameters: list[str]) -> float:
    text = next((each[2:] for each in parameters if each.startswith("q=")), "1")
    return float(text) if _WEIGHT.fullmatch(text) else 0.0


def _bad(message: str) -> Any:
    return error("invalid_request", message)
