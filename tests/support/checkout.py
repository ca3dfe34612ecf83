"""A copy of this tree, as a fresh checkout would be."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from harness import REPO


def copy_project(target: Path) -> None:
    """Copy the files that are or will be in git, without build results."""
    command = ["git", "-C", str(REPO), "ls-files", "-z", "-co", "--exclude-standard"]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    for name in listed.split("\0"):
        if name and (REPO / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPO / name, target / name)
