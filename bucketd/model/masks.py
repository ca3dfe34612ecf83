"""Masks: what stands for a secret value where people may look over a shoulder.

A mask is never a value, so no write may contain one: a masked copy that was written back would
replace the secrets.
"""

from __future__ import annotations

from typing import Any

import orjson

from ..errors import InvalidRequest
from .strict_json import shown

MASK = {"$masked": True}
# A mask as compact JSON, whatever follows it in the object; quotes within a string are escaped.
_BEGINNINGS = (b'{"$masked":true', b',"$masked":true')
_SEPARATOR = "+"


def refuse_masks(body: bytes, value: Any) -> None:
    """Raise InvalidRequest if the value, which is parsed from the body, has a mask in it."""
    # A single byte is found twenty times as fast as several, and most bodies have neither of these.
    if (b"$" in body or b"\\" in body) and _may_have_mask(body) and _has_mask(value):
        raise InvalidRequest(
            f"cannot write a mask, as at {shown(_place(value))}: it stands for a secret value that "
            "was not shown; leave that key out, so that it stays, or send its value"
        )


def _may_have_mask(body: bytes) -> bool:
    # The name may be written with escapes, of which each begins with these characters.
    return b"$masked" in body or b"\\u00" in body


def _has_mask(value: Any) -> bool:
    try:
        text = orjson.dumps(value)
    except TypeError:
        # It is nested too deeply, and refused for that.
        return False
    return any(beginning in text for beginning in _BEGINNINGS)


def _place(value: Any) -> str:
    """Return the JSON Pointer of the first mask."""
    waiting: list[tuple[str, Any]] = [("", value)]
    while waiting:
        place, here = waiting.pop()
        if isinstance(here, dict):
            if here.get("$masked") is True:
                return place
            steps = [(str(k).replace("~", "~0").replace("/", "~1"), v) for k, v in here.items()]
        elif isinstance(here, list):
            steps = [(str(index), inner) for index, inner in enumerate(here)]
        else:
            continue
        waiting += reversed([(f"{place}/{step}", inner) for step, inner in steps])
    return ""


def masked_etag(etag: str, fingerprint: str) -> str:
    """Return the ETag of the masked form of a state; other masks make another form."""
    return f"{etag}{_SEPARATOR}{fingerprint}"


def state_etag(etag: str) -> str:
    """Return the ETag of the state of which an ETag names a form, masked or not."""
    return etag.partition(_SEPARATOR)[0]
