"""Print the oldest version that reads the formats of this one: ``python release/formats.py``.

The Debian package refuses a downgrade to an older version.
"""

from __future__ import annotations

from bucketd.store.file import envelope, journal

# The first version that reads each format. A new format adds a line.
READ_SINCE: dict[tuple[str, int | str], str] = {
    ("journal", 1): "0.1.0",
    ("journal", 2): "0.1.0",
    ("bucket file", "bucketd/1"): "0.1.0",
}
WRITTEN: tuple[tuple[str, int | str], ...] = (
    ("journal", journal.VERSION),
    ("bucket file", envelope.FORMAT),
)


def oldest_reader() -> str:
    """Return the oldest version that reads all formats. Raises KeyError for an unlisted format."""
    return max((READ_SINCE[form] for form in WRITTEN), key=_numbers)


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]


if __name__ == "__main__":
    print(oldest_reader())
