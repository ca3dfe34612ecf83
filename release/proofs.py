"""Run the commands of docs/PROOFS.md, and write into its last column when each last passed.

``python release/proofs.py [WORD…]`` runs the rows whose promise or command has each of the words.
It needs a checkout without uncommitted changes, since a row names the commit, and runs a command
that several rows share once. Exit status: 0 if all passed, 1 if one failed (its row stays as it
is), 2 for a checkout with uncommitted changes, or words that no row has.
"""

from __future__ import annotations

import datetime
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

PAGE = Path("docs/PROOFS.md")
# Matches a command in backticks, and not the name of a file.
COMMAND = re.compile(r"`((?:[A-Z_]+=\S+ )*(?:pytest|make|python|systemd-analyze) [^`]+)`")


@dataclass
class Proof:
    """A row of the page: its line number, its promise, and the commands that show it."""

    line: int
    promise: str
    command: str
    commands: tuple[str, ...]
    passed: str

    def has(self, words: list[str]) -> bool:
        text = f"{self.promise} {self.command}"
        return all(word in text for word in words)

    def row(self, passed: str) -> str:
        return f"| {self.promise} | {self.command} | {passed} |"


def proofs(lines: list[str]) -> list[Proof]:
    """Return the rows; one that says "the same" has the commands of the row above, too."""
    found: list[Proof] = []
    for number, line in enumerate(lines):
        cells = [cell.strip() for cell in line.strip().strip("|").split(" | ")]
        if not line.startswith("| ") or len(cells) != 3 or cells[0] in ("promise", "---"):
            continue
        promise, command, passed = cells
        above = found[-1].commands if command.startswith("the same") else ()
        found.append(Proof(number, promise, command, (*above, *COMMAND.findall(command)), passed))
    return found


def run(command: str) -> bool:
    """Run a command as the page gives it, with the programs of ``.venv`` first."""
    began = time.monotonic()
    print(f"$ {command}", flush=True)
    environ = {**os.environ, "PATH": f"{Path('.venv/bin').resolve()}:{os.environ['PATH']}"}
    status = subprocess.run(["sh", "-c", command], env=environ, check=False).returncode
    print(f"exit status {status} after {time.monotonic() - began:.0f} s", flush=True)
    return status == 0


def output(*words: str) -> str:
    return subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


def main(words: list[str]) -> int:
    if output("git", "status", "--porcelain"):
        print(
            "cannot date proofs: the checkout has uncommitted changes; commit them", file=sys.stderr
        )
        return 2
    commit = output("git", "rev-parse", "--short", "HEAD")
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    chosen = [proof for proof in proofs(lines) if proof.commands and proof.has(words)]
    if not chosen:
        print(f"cannot run a proof: no row has the words {words}", file=sys.stderr)
        return 2
    ended: dict[str, bool] = {}
    for proof in chosen:
        for command in proof.commands:
            if command not in ended:
                ended[command] = run(command)
        if all(ended[command] for command in proof.commands):
            today = datetime.datetime.now(datetime.UTC).date().isoformat()
            lines[proof.line] = proof.row(f"{today}, `{commit}`")
            # After each row, so that a run that is ended keeps what it has shown.
            PAGE.write_text("\n".join(lines) + "\n", encoding="utf-8")
    failed = [command for command, passed in ended.items() if not passed]
    for command in failed:
        print(f"failed: {command}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
