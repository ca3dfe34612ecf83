"""Run the commands of a document as its reader would, and compare their output.

All ``sh`` blocks of a document run in order, in one shell on a terminal. A ``text`` block right
after one is its output, with ``…`` for text that differs each time. ``sh node`` blocks are left out
without Node. A block with a file name after its language (``python login.py``) is written to that
file in the shell's directory. Blocks without a language are not run.
"""

from __future__ import annotations

import contextlib
import os
import pty
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import NamedTuple

from harness import REPO

sys.path.insert(0, str(REPO / "examples"))

import demo_tools

BLOCK = re.compile(r"^```(\w*)(?: ([\w.-]+))?\n(.*?)^```$", re.M | re.S)
MARK = "--- block {}"
SECONDS = 90
DAEMON = """\
bucketd --state-dir ~/state --runtime-dir ~/run --log-level warning &
export BUCKETD_SOCKET=~/run/bucketd.sock
"""


class Block(NamedTuple):
    """A fenced block; ``name`` is the word after the language: a file name or ``node``."""

    language: str
    name: str
    text: str


def blocks(document: Path) -> list[Block]:
    """Return the blocks in order; without Node, drop those that need it and their output."""
    found = [Block(*groups) for groups in BLOCK.findall(document.read_text())]
    if any(block.name == "node" for block in found) and demo_tools.typescript_problem():
        for index, block in enumerate(found):
            if block.name == "node":
                found[index] = Block("", "", "")
                if index + 1 < len(found) and found[index + 1].language == "text":
                    found[index + 1] = Block("", "", "")
    return found


def check(document: Path, home: Path, before: str = "", cwd: Path = REPO) -> None:
    """Run a document; raise AssertionError if a command fails or its output differs."""
    told = blocks(document)
    script = before + "".join(_part(index, block) for index, block in enumerate(told))
    status, said, error = run_in_bash(script, home, cwd)
    assert status == 0, said + error
    printed = _said_by_block(said)
    for index, block in enumerate(told):
        if block.language == "text" and (index - 1) in printed:
            expected = ".*".join(re.escape(part) for part in block.text.rstrip().split("…"))
            shown = re.sub(r"\d s ago", "0 s ago", printed[index - 1].rstrip())
            # A document shows the output without colours.
            shown = re.sub(r"\x1b\[\d*m", "", shown)
            assert re.fullmatch(expected, shown), (told[index - 1].text, shown)


def _part(index: int, block: Block) -> str:
    if "." in block.name:
        return f"cat > {block.name} <<'END OF FILE'\n{block.text}END OF FILE\n"
    if block.language == "sh":
        return f"printf '\\n%s\\n' '{MARK.format(index)}'\n{block.text}"
    return ""


def run_in_bash(script: str, home: Path, cwd: Path = REPO) -> tuple[int, str, str]:
    """Run a script; return its status, output and errors on a terminal; end all its processes."""
    screen, terminal = pty.openpty()
    err = home / "err"
    with err.open("w") as error:
        shell = subprocess.Popen(
            ["bash", "-e", "-c", script],
            cwd=cwd,
            env=_environ(home),
            stdin=subprocess.DEVNULL,
            stdout=terminal,
            stderr=error,
            start_new_session=True,
        )
    os.close(terminal)
    said: list[bytes] = []
    reader = threading.Thread(target=_read_screen, args=(screen, said))
    reader.start()
    try:
        status = shell.wait(SECONDS)
    finally:
        with contextlib.suppress(ProcessLookupError):
            # The group is that of the shell, which this test started.
            os.killpg(shell.pid, signal.SIGKILL)
        shell.wait()
        reader.join()
    return status, b"".join(said).decode().replace("\r\n", "\n"), err.read_text()


def _environ(home: Path) -> dict[str, str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("BUCKETD_", "XDG_"))}
    clean["PATH"] = f"{Path(sys.executable).parent}:{clean.get('PATH', os.defpath)}"
    # A user other than root needs a runtime directory.
    clean["XDG_RUNTIME_DIR"] = str(home)
    return {**clean, "HOME": str(home), "BUCKETD_STORE_UNSAFE_FILESYSTEM": "true"}


def _read_screen(screen: int, said: list[bytes]) -> None:
    """Collect the output of a terminal until all its users have closed it."""
    with open(screen, "rb", buffering=0) as file, contextlib.suppress(OSError):
        while chunk := file.read(65536):
            said.append(chunk)


def _said_by_block(said: str) -> dict[int, str]:
    pieces = re.split(r"^--- block (\d+)\n", said, flags=re.M)[1:]
    return {int(number): text for number, text in zip(pieces[::2], pieces[1::2], strict=True)}
