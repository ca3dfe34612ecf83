"""Where a bucket's file is, below the state directory."""

from __future__ import annotations

import hashlib
import re

LONGEST, KEPT = 200, 160


def encode(name: str) -> str:
    """One safe file name for any name; long ones end in a hash of the whole."""
    raw = name.encode()
    pieces = [f"%{b:02X}" if not _plain(b) else chr(b) for b in raw]
    for end in (0, -1):  # a dot is plain inside only
        if pieces and pieces[end] == ".":
            pieces[end] = "%2E"
    text = "".join(pieces)
    if len(text) <= LONGEST:
        return text
    cut = re.sub(r"%.?$", "", text[:KEPT])
    return f"{cut}~{hashlib.sha256(raw).hexdigest()[:32]}"


def _plain(byte: int) -> bool:
    return bytes([byte]).isalnum() or byte in b"_-."


def path(device: str, job: str | None) -> str:
    """``devices/<device>/jobs/<job>.json``, or ``devices/<device>/device.json``."""
    home = f"devices/{encode(device)}"
    return f"{home}/device.json" if job is None else f"{home}/jobs/{encode(job)}.json"
