"""The path of a bucket's file below the state directory."""

from __future__ import annotations

import hashlib
import re
from urllib.parse import unquote

LONGEST, KEPT = 200, 160


def encode(name: str) -> str:
    """Return a safe file name for any name; that of a long name ends in a hash of the name."""
    raw = name.encode()
    pieces = [f"%{b:02X}" if not _plain(b) else chr(b) for b in raw]
    # A dot is escaped only at the ends of a name.
    for end in (0, -1):
        if pieces and pieces[end] == ".":
            pieces[end] = "%2E"
    text = "".join(pieces)
    if len(text) <= LONGEST:
        return text
    cut = re.sub(r"%.?$", "", text[:KEPT])
    return f"{cut}~{hashlib.sha256(raw).hexdigest()[:32]}"


def names(place: str) -> tuple[str, str | None] | None:
    """Return the device and job of a path; None for another path, or if a name was cut."""
    found = re.fullmatch(r"devices/([^/~]+)/(?:device|jobs/([^/~]+))\.json", place)
    if found is None:
        return None
    device = unquote(found[1], errors="replace")
    job = None if found[2] is None else unquote(found[2], errors="replace")
    try:
        return (device, job) if path(device, job) == place else None
    except UnicodeEncodeError:
        return None


def _plain(byte: int) -> bool:
    return bytes([byte]).isalnum() or byte in b"_-."


def path(device: str, job: str | None) -> str:
    """Return ``devices/<device>/jobs/<job>.json``, or ``devices/<device>/device.json``."""
    home = f"devices/{encode(device)}"
    return f"{home}/device.json" if job is None else f"{home}/jobs/{encode(job)}.json"
