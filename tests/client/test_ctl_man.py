"""The manual pages say what the help says, and troff has nothing against them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from bucketd_client.ctl.commands.man import pages
from bucketd_client.ctl.table.all import every
from harness import REPO

from bucketd.settings.sections import SECTIONS, fields


def shown(path: Path) -> str:
    """As a reader sees it, without bold and with words apart by one blank."""
    done = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww", "-P-c", "-P-b", "-P-u", path],
        capture_output=True,
        check=True,
        encoding="utf-8",
    )
    assert done.stderr == ""
    return re.sub(r"\s+", " ", re.sub(r"‐\s+", "", done.stdout))


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed")
def test_each_page_has_all_of_its_command(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "bucketd_client.ctl.commands.man", tmp_path], check=True)
    for command in every():
        text = shown(tmp_path / f"bucketctl-{command.name.replace(' ', '-')}.1")
        notes = " ".join(command.notes.split())
        for part in (command.summary, notes, *(f"--{o.name}" for o in command.options)):
            assert part in text, (command.name, part)
        for line in command.example.split("\n"):
            assert " ".join(line.split()) in text
    overview = shown(tmp_path / "bucketctl.1")
    assert all(f"bucketctl-{c.name.replace(' ', '-')}(1)" in overview for c in every())


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed")
@pytest.mark.parametrize("name", ["bucketd.7", "bucketd.8", "bucketd.toml.5"])
def test_the_pages_of_the_daemon_have_their_words(name: str) -> None:
    text = shown(REPO / "systemd" / name)
    expected = {
        "bucketd.7": ["bucketctl run phone-1/login", "usermod -aG bucketd ada", "bucketd.toml(5)"],
        "bucketd.8": ["--check-config", "SIGHUP", "bucketd(7)"],
        "bucketd.toml.5": [f"[{section}]" for section in SECTIONS],
    }
    expected["bucketd.toml.5"] += [key for section in SECTIONS for key in fields(section)]
    assert [words for words in expected[name] if words not in text] == []


def test_a_page_for_each_command_and_no_other() -> None:
    names = {f"bucketctl-{command.name.replace(' ', '-')}.1" for command in every()}
    assert set(pages()) == names | {"bucketctl.1"}


def test_nothing_begins_with_a_stray_request() -> None:
    known = r"\.(TH|SH|SS|TP|B|BR|nf|fi)( |$)"
    for name, text in pages().items():
        for line in text.splitlines():
            assert not line.startswith("'"), (name, line)
            assert not line.startswith(".") or re.match(known, line), (name, line)


def test_the_recorded_sessions_show_every_command() -> None:
    pages = ("bucketctl.md", "operator.md")
    text = "".join((REPO / "docs" / name).read_text() for name in pages)
    missing = {c.name for c in every() if not re.search(rf"bucketctl {c.name}\b", text)}
    assert missing == set()
    shown = re.findall(r"^\$ bucketctl (\w+)", text, re.M)
    assert set(shown) - {"gte"} <= {c.name.split()[0] for c in every()}


def test_the_changelog_names_every_command() -> None:
    text = (REPO / "CHANGELOG.md").read_text()
    missing = [c.name for c in every() if not re.search(rf"\b{c.name.split()[0]}\b", text)]
    assert missing == []
