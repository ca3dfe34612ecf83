"""Print or set the version: ``python release/version.py [NEW]``.

``bucketd/__init__.py`` has the authoritative version; setting it changes all places.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

HOME = Path(__file__).resolve().parent.parent
PYTHON = r'^(__version__ = ")[^"]+(?=")'
# Each file, and the text before the version; the first file is authoritative.
PLACES = (
    ("bucketd/__init__.py", PYTHON),
    ("client/python/bucketd_client/__init__.py", PYTHON),
    ("pyproject.toml", r'^( +"bucketd-client==)[^"]+(?=",$)'),
    ("client/node/package.json", r'^(  "version": ")[^"]+(?=")'),
    ("client/node/package-lock.json", r'^((?:  |      )"version": ")[^"]+(?=")'),
)
ALLOWED = re.compile(r"\d+\.\d+\.\d+")


def everywhere(home: Path = HOME) -> dict[str, set[str]]:
    """Return the versions that each file names."""
    return {name: set(_found(home / name, before)) for name, before in PLACES}


def _found(path: Path, before: str) -> list[str]:
    matches = _own(path.read_text(), before)
    if not matches:
        raise SystemExit(f"cannot find the version: {path} does not name it in the usual place")
    return [match.group(0).removeprefix(match[1]) for match in matches]


def _own(text: str, before: str) -> list[re.Match[str]]:
    # In a lock file the first two versions are the package's, and all others its dependencies'.
    return list(re.finditer(before, text, flags=re.M))[:2]


def current(home: Path = HOME) -> str:
    """Return the version of this tree."""
    return everywhere(home)[PLACES[0][0]].pop()


def change(new: str, home: Path = HOME) -> None:
    """Write a new version to all places."""
    for name, before in PLACES:
        path = home / name
        text = path.read_text()
        for match in reversed(_own(text, before)):
            text = text[: match.start()] + match[1] + new + text[match.end() :]
        path.write_text(text)


def main(arguments: list[str]) -> int:
    """Print or set the version, and return the exit status: 2 for an invalid version."""
    if len(arguments) > 1 or any(ALLOWED.fullmatch(word) is None for word in arguments):
        print("usage: version.py [MAJOR.MINOR.PATCH]", file=sys.stderr)
        return 2
    if arguments:
        change(arguments[0])
    print(current())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
