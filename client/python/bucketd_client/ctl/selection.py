"""The values that KEY words select: those of keys, or inside of them by JSON Pointers."""

from __future__ import annotations

TYPE_CHECKING = False  # see bucketd_client

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

ABSENT = object()


def is_pointer(word: str) -> bool:
    """Report whether a word may be a JSON Pointer; a key may begin with a slash, too."""
    return word.startswith("/")


def keys(words: Iterable[str]) -> list[str]:
    """Return the keys of the bucket that the words need."""
    found = dict.fromkeys(words)
    found |= dict.fromkeys(_steps(word)[0] for word in found if is_pointer(word))
    return list(found)


def select(bucket: Mapping[str, Any], words: Iterable[str]) -> dict[str, Any]:
    """Return the value of each word that has one."""
    found = ((word, value_at(bucket, word)) for word in words)
    return {word: value for word, value in found if value is not ABSENT}


def value_at(bucket: Mapping[str, Any], word: str) -> Any:
    """Return the value of a key, or else of a JSON Pointer (RFC 6901), or ABSENT."""
    if word in bucket:
        return bucket[word]
    if not is_pointer(word):
        return ABSENT
    value: Any = bucket
    for step in _steps(word):
        if isinstance(value, dict) and step in value:
            value = value[step]
        elif isinstance(value, list) and _is_index(step) and int(step) < len(value):
            value = value[int(step)]
        else:
            return ABSENT
    return value


def _steps(pointer: str) -> list[str]:
    return [step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:]]


def _is_index(step: str) -> bool:
    is_number = step.isascii() and step.isdecimal() and len(step) < 10
    return is_number and (step == "0" or not step.startswith("0"))
