"""docs/how-to.md: every block runs, in order, and does what is said."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from harness import REPO, Daemon, pair


def test_every_block(daemon: Daemon, tmp_path: Path) -> None:
    daemon.request("PUT", pair("phone-1", "daily"), {"refreshToken": "old"})
    environ = {**os.environ, "BUCKETD_SOCKET": daemon.socket}
    environ["PATH"] = f"{Path(sys.executable).parent}:{environ['PATH']}"
    text = (REPO / "docs" / "how-to.md").read_text()
    said = []
    for language, block in re.findall(r"^```(\w+)\n(.*?)^```", text, re.M | re.S):
        command = ["sh", "-euc", block] if language == "sh" else [sys.executable, "-c", block]
        done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True)
        assert done.returncode == 0, (block, done)
        said.append(done.stdout)
    assert "phone-1" in (tmp_path / "backup.ndjson").read_text()
    assert said[2].endswith('"en"\n')
    bucket = daemon.request("GET", pair("phone-1", "daily")).bucket
    assert bucket == {"refreshToken": "new"}
    assert daemon.request("GET", pair("host", "nightly")).bucket == {"runs": 1}
