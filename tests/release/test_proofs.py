"""docs/PROOFS.md: each promise has a command, and the script dates what passed and nothing else."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from harness import REPO

sys.path.insert(0, str(REPO / "release"))

import proofs

PAGE = """# Proofs

| promise | command | last passed |
| --- | --- | --- |
| true is true | `python -c pass` | not yet |
| the same twice | the same | not yet |
| false is true | `python -c "raise SystemExit(3)"` | 2026-01-01, `abc1234` |
"""


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a page of three rows, as the current directory."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "PROOFS.md").write_text(PAGE)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(tmp_path)]
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "page"]):
        subprocess.run([*git, *words], check=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_each_promise_has_a_command_and_each_command_its_tests():
    lines = (REPO / "docs" / "PROOFS.md").read_text().splitlines()
    rows = proofs.proofs(lines)
    assert len(rows) > 30
    assert [row.promise for row in rows if not row.commands] == []
    assert all(re.fullmatch(r"not yet|\d{4}-\d\d-\d\d, `[0-9a-f]{7,}`", r.passed) for r in rows)
    named = {path for r in rows for c in r.commands for path in re.findall(r"tests/[\w/.]+", c)}
    assert [path for path in sorted(named) if not (REPO / path).exists()] == []


def test_what_passed_gets_the_day_and_the_commit(checkout: Path, capfd: pytest.CaptureFixture[str]):
    assert proofs.main(["true"]) == 1
    rows = proofs.proofs((checkout / "docs" / "PROOFS.md").read_text().splitlines())
    commit = proofs.output("git", "rev-parse", "--short", "HEAD")
    assert [row.passed.endswith(f", `{commit}`") for row in rows] == [True, False, False]
    assert rows[2].passed == "2026-01-01, `abc1234`"
    assert "failed: python" in capfd.readouterr().err


def test_rows_that_share_a_command_run_it_once(checkout: Path, capfd: pytest.CaptureFixture[str]):
    assert proofs.main(["t"]) == 1
    assert capfd.readouterr().out.count("$ python -c pass") == 1
    rows = proofs.proofs((checkout / "docs" / "PROOFS.md").read_text().splitlines())
    assert rows[1].passed == rows[0].passed != "not yet"


def test_a_changed_checkout_and_unknown_words_are_refused(checkout: Path):
    assert proofs.main(["nobody says this"]) == 2
    (checkout / "new").write_text("")
    assert proofs.main(["true"]) == 2
    assert (checkout / "docs" / "PROOFS.md").read_text() == PAGE
