"""Which versions read what this one writes: ``python release/formats.py`` prints the oldest.

The Debian package refuses to be replaced by one from before that.
"""

from __future__ import annotations

from bucketd.store.file import envelope, journal

# Format to the first version that reads it. A new format adds its line.
READ_SINCE: dict[tuple[str, int | str], str] = {
    ("journal", 1): "0.1.0",
    ("bucket file", "bucketd/1"): "0.1.0",
}
WRITTEN: tuple[tuple[str, int | str], ...] = (
    ("journal", journal.VERSION),
    ("bucket file", envelope.FORMAT),
)


def oldest_reader() -> str:
    """The oldest version that reads all that is written. Raises KeyError for a new format."""
    return max((READ_SINCE[form] for form in WRITTEN), key=_numbers)


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]


if __name__ == "__main__":
    print(oldest_reader())
