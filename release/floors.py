"""Print the lowest versions that pyproject.toml allows, as constraints for pip."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

PROJECT = Path(__file__).parent.parent / "pyproject.toml"
FLOOR = re.compile(r"(?P<name>[\w.-]+)>=(?P<version>[\w.]+)")


def floors() -> list[str]:
    """Return ``name==version`` of each package that the daemon needs, at its lowest version."""
    wanted = tomllib.loads(PROJECT.read_text())["project"]["dependencies"]
    found = map(FLOOR.match, wanted)
    return [f"{floor['name']}=={floor['version']}" for floor in found if floor is not None]


if __name__ == "__main__":
    sys.stdout.write("\n".join(floors()) + "\n")
