"""Measure export and import of many buckets: ``python -m bench.moving [COUNT] [DIR]``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from .peers import Bucketd

CTL = [sys.executable, "-m", "bucketd_client.ctl"]
ENVELOPE = '{"device":"d%d","job":"j%d","bucket":{"n":%d,"token":"%064d","tries":[1,2,3]}}\n'


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    home = Path(tempfile.mkdtemp(prefix="bucketd-moving-", dir=(sys.argv[2:] or [None])[0]))
    planned, back, tar = home / "planned.ndjson", home / "back.ndjson", home / "back.tar"
    with planned.open("w") as file:
        for number in range(count):
            file.write(ENVELOPE % (number // 1000, number % 1000, number, number))
    daemon = Bucketd(home)
    with daemon.running() as server:
        environ = {**os.environ, "BUCKETD_SOCKET": str(home / "run" / "bucketd.sock")}
        for words in (
            ["import", str(planned)],
            ["export", "--output", str(back)],
            ["export", "--format", "tar", "--output", str(tar)],
        ):
            _timed(home, words, environ, count, lambda: _peak(server.pid))
    same = _digest(planned) == _digest(back)
    print(f"what came back is {'' if same else 'NOT '}what was put in")


def _timed(
    home: Path, words: list[str], environ: dict[str, str], count: int, daemon: Callable[[], int]
) -> None:
    answer = home / f"{words[0]}.out"
    began = time.perf_counter()
    with answer.open("wb") as out, subprocess.Popen([*CTL, *words], env=environ, stdout=out) as run:
        _, status, used = os.wait4(run.pid, 0)
        run.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - began
    said = answer.read_text().strip()
    print(
        f"{words[0]}: {count / seconds:.0f} buckets/s, {seconds:.0f} s, status {status}, ", end=""
    )
    print(
        f"peak memory {used.ru_maxrss // 1024} MiB, of the daemon {daemon()} MiB; it said {said}",
        flush=True,
    )


def _peak(pid: int) -> int:
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.partition("VmHWM:")[2].split()[0]) // 1024


def _digest(path: Path) -> tuple[int, int]:
    """Return the number of rows, and a checksum that does not depend on their order."""
    total = count = 0
    with path.open() as file:
        for line in file:
            count += 1
            row = json.loads(line)
            total ^= hash((row["device"], row["job"], json.dumps(row["bucket"], sort_keys=True)))
    return count, total


if __name__ == "__main__":
    main()
