"""Make up a Playwright ``storageState``: the part of a browser that an automation keeps.

Cookies and localStorage have the members, names and sizes that a browser gives them; the values are
random, so that nothing compresses or repeats by chance.
"""

from __future__ import annotations

import json
import random
from typing import Any

SITES = ("example.com", "shop.example", "accounts.example.org", "cdn.example.net")
COOKIE_BYTES = 218  # of the average cookie below, as compact JSON
ITEM_BYTES = 150


def storage_state(size: int) -> dict[str, Any]:
    """Return a state of about ``size`` bytes: four fifths cookies, one fifth localStorage."""
    source = random.Random(size)  # noqa: S311
    cookies = [_cookie(source, number) for number in range(size * 4 // 5 // COOKIE_BYTES)]
    items = [_item(source, number) for number in range(size // 5 // ITEM_BYTES)]
    share = -(-len(items) // len(SITES))
    origins = [
        {"origin": f"https://{site}", "localStorage": items[at * share : (at + 1) * share]}
        for at, site in enumerate(SITES)
    ]
    return {"cookies": cookies, "origins": origins, "n": 0}


def size_of(state: dict[str, Any]) -> int:
    return len(json.dumps(state, separators=(",", ":")))


def _cookie(source: random.Random, number: int) -> dict[str, Any]:
    return {
        "name": f"_c{number}",
        "value": source.randbytes(40).hex(),
        "domain": f".{source.choice(SITES)}",
        "path": "/",
        "expires": 1_800_000_000 + source.random() * 1e7,
        "httpOnly": source.random() < 0.5,
        "secure": True,
        "sameSite": source.choice(("Lax", "None", "Strict")),
    }


def _item(source: random.Random, number: int) -> dict[str, str]:
    return {"name": f"item:{number}:state", "value": json.dumps({"id": source.randbytes(48).hex()})}
