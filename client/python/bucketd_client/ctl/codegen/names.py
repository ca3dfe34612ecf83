"""Names of types that are valid in both languages, and texts that are safe in both."""

from __future__ import annotations

import json
import re
import unicodedata

# What a generated Python module uses, and the buckets that the TypeScript client exports: within
# its augmentation such a name would mean the client's type.
RESERVED = frozenset(
    (
        *("AgentBucket", "AgentDeviceBucket", "Any", "AnyBucket", "AsyncBucket", "Bucket", "False"),
        *("Literal", "Mapping", "Never", "None", "NotRequired", "True", "TYPE_CHECKING"),
        *("TypeAlias", "TypedDict", "Unpack"),
    )
)


def type_name(automation: str) -> str:
    """Return the name of the type: LoginSessionBucket for ``login-session``."""
    name = pascal(automation) + "Bucket"
    return f"Job{name}" if name in RESERVED or not name[0].isalpha() else name


def pascal(text: str) -> str:
    """Return the words of a text as one name; it may be empty, or begin with a digit."""
    safe = "".join(char if _is_safe(char) else " " for char in unicodedata.normalize("NFKC", text))
    name = "".join(word[0].upper() + word[1:] for word in re.split("[ _]+", safe) if word)
    return unicodedata.normalize("NFKC", name)


def _is_safe(char: str) -> bool:
    """Report whether both languages accept a character within a name, in all their versions."""
    if char.isascii():
        return char.isalnum()
    known = unicodedata.ucd_3_2_0.category(char) != "Cn"
    return known and ord(char) < 0x10000 and f"a{char}".isidentifier() and char.upper().isalpha()


class Names:
    """The names of one generated file, each given once."""

    def __init__(self, *taken: str) -> None:
        suffixes = ("", "Part", "WithDefaults")
        self._taken = {*RESERVED, *(f"{name}{suffix}" for name in taken for suffix in suffixes)}

    def __contains__(self, name: str) -> bool:
        return name in self._taken

    def take(self, wanted: str) -> str:
        """Return the wanted name, or the first one with a number that is free."""
        base = name = wanted if wanted[:1].isalpha() else f"Type{wanted}"
        number = 1
        while name in self._taken:
            number += 1
            name = f"{base}{number}"
        self._taken.add(name)
        return name


def printable(text: str) -> str:
    """Return a text for a comment: characters that do not print, or that reorder it, are blanks."""
    return "".join(char if char.isprintable() else " " for char in text)


def lines_of(text: str) -> list[str]:
    """Return the lines of a text for a comment, without blank lines at its ends."""
    lines = [printable(line).rstrip() for line in text.splitlines()]
    while lines and not lines[-1]:
        lines.pop()
    while lines and not lines[0]:
        lines.pop(0)
    return lines


def quoted(text: str) -> str:
    """Return a string literal of both languages; characters that do not print are escaped."""
    quote = json.dumps(text, ensure_ascii=False)
    # Neither language has an escape for characters beyond U+FFFF that the other one has as well.
    return "".join(c if c.isprintable() or ord(c) > 0xFFFF else f"\\u{ord(c):04x}" for c in quote)
