"""The unit files as systemd-analyze reads them. What they do is in test_booted.py."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from harness import REPO

from bucketd.__main__ import parser

UNITS = REPO / "systemd"
MOST_EXPOSURE = 0.6
INSTALLED = "/usr/local/lib/bucketd/bin/bucketd"
INSTALLED_CTL = "/usr/local/lib/bucketd/bin/bucketctl"
INSTALLER = (UNITS / "install.sh").read_text()

analyze = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)


def run(*command: str, runtime: Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "XDG_RUNTIME_DIR": str(runtime), "SYSTEMD_COLORS": "0"}
    return subprocess.run(command, capture_output=True, text=True, env=env)


@analyze
@pytest.mark.parametrize("kind", ["system", "user"])
def test_the_units_have_no_mistake(tmp_path: Path, kind: str) -> None:
    names = ["bucketd.service", "bucketd.socket"]
    names += ["bucketd-backup.service", "bucketd-backup.timer"] if kind == "system" else []
    for name in names:
        text = (UNITS / ("user" if kind == "user" else "") / name).read_text()
        program = Path(sys.executable).parent / "bucketd"
        text = text.replace("=notify-reload", "=notify")  # this systemd may be before 253
        text = text.replace(INSTALLED, str(program))
        ctl = program.with_name("bucketctl")
        (tmp_path / name).write_text(text.replace(INSTALLED_CTL, str(ctl)))
    done = run(
        *("systemd-analyze", f"--{kind}", "--man=no", "verify"),
        *(str(tmp_path / name) for name in names),
        runtime=tmp_path,
    )
    assert [line for line in done.stderr.splitlines() if "bucketd" in line] == []
    assert done.returncode == 0, done.stderr


def exposure(tmp_path: Path) -> tuple[float, list[str]]:
    """The figure, and the directives that add to it."""
    unit = str(UNITS / "bucketd.service")
    command = ("systemd-analyze", "security", "--offline=true", "--no-pager", unit)
    said = run(*command, runtime=tmp_path).stdout
    figure = re.search(r"Overall exposure level for bucketd.service: ([\d.]+)", said)
    if figure is None:
        pytest.skip("this systemd-analyze cannot judge a unit that is not loaded")
    return float(figure[1]), re.findall(r"^✗ (\w+=)", said, flags=re.M)


@analyze
def test_the_exposure_is_small_and_all_of_it_explained(tmp_path: Path) -> None:
    figure, directives = exposure(tmp_path)
    assert figure <= MOST_EXPOSURE
    explained = (UNITS / "bucketd.service").read_text().partition("# Left out")[2]
    assert [name for name in directives if name not in explained] == []


def test_both_services_are_found_where_make_install_puts_them() -> None:
    for path in (UNITS / "bucketd.service", UNITS / "user" / "bucketd.service"):
        assert f"ExecStart={INSTALLED} serve\n" in path.read_text()


def test_the_manual_page_has_every_option_and_no_other() -> None:
    page = (UNITS / "bucketd.8").read_text().replace("\\-", "-")
    wanted = {name for action in parser()._actions for name in action.option_strings}
    assert set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", page)) == wanted


# --- make install


def test_the_files_that_documents_name_are_installed_there() -> None:
    """Each of config's beside the settings, too: the list in install.sh is by name."""
    pages = [*(REPO / "docs").glob("*.md"), *REPO.glob("*.md")]
    told = [re.findall(r"/share/bucketd/([\w/-]+\.\w+)", page.read_text()) for page in pages]
    named = {name for names in told for name in names}
    assert "move-buckets.sh" in named
    for kind in ("monitoring", "schemas"):
        found = (REPO / "config" / kind).iterdir()
        named |= {f"{kind}/{path.name}" for path in found}
    assert [name for name in named if f" ../share/bucketd/{name}\n" not in INSTALLER] == []


def shell(script: str, **env: str) -> str:
    """Return the output of a part of install.sh, with systemd's version given from outside."""
    done = subprocess.run(
        ["sh", "-euc", script], cwd=REPO, capture_output=True, text=True, env={**os.environ, **env}
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize(
    ("version", "kind"), [("252", "notify"), ("253", "notify-reload"), ("257", "notify-reload")]
)
@pytest.mark.parametrize("unit", ["bucketd.service", "user/bucketd.service"])
def test_the_unit_is_that_of_the_systemd_it_is_for(
    tmp_path: Path, version: str, kind: str, unit: str
) -> None:
    functions = INSTALLER.partition("case ${1:-} in")[0].replace('cd "$(dirname "$0")/.."', "")
    target = tmp_path / "unit"
    shell(f"{functions}\nput systemd/{unit} {target}", SYSTEMD_VERSION=version)
    assert re.findall("^Type=(.*)", target.read_text(), flags=re.M) == [kind]


def test_installed_settings_make_a_group_operators_and_leave_all_else() -> None:
    functions = INSTALLER.partition("case ${1:-} in")[0].replace('cd "$(dirname "$0")/.."', "")
    settings = tomllib.loads(shell(f"{functions}\nsettings"))
    tables = {name: table for name, table in settings.items() if table not in ({}, {"etcd": {}})}
    assert tables == {"access": {"operator_groups": ["bucketd"]}}
    assert re.search("^u bucketd ", (UNITS / "sysusers.conf").read_text(), flags=re.M)


def install(
    target: str, root: Path, prefix: str = "/usr/local"
) -> subprocess.CompletedProcess[str]:
    command = ["make", "-s", target, f"DESTDIR={root}", f"PREFIX={prefix}"]
    done = subprocess.run(
        [*command, f"PYTHON={sys.executable}"], cwd=REPO, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def entries(root: Path) -> set[str]:
    return {str(p.relative_to(root)) for p in root.rglob("*") if not p.is_dir()}


@pytest.mark.booted  # in nothing, but it takes as long as what is
@pytest.mark.timeout(300)
def test_install_and_uninstall_leave_what_is_not_theirs(tmp_path: Path) -> None:
    root = tmp_path / "root"
    for name in ("var/lib/bucketd/devices/phone/device.json", "opt/b/bin/other"):
        (root / name).parent.mkdir(parents=True)
        (root / name).write_text("mine")
    before = entries(root)

    install("install", root, "/opt/b")
    assert (root / "opt/b/share/man/man1/bucketctl-edit.1").is_file()
    assert (root / "opt/b/share/man/man8/bucketd.8").is_file()
    assert "complete" in (root / "opt/b/share/bash-completion/completions/bucketctl").read_text()
    assert (root / "opt/b/bin/bucketctl").is_symlink()
    assert os.access(root / "opt/b/share/bucketd/move-buckets.sh", os.X_OK)
    assert (root / "opt/b/share/bucketd/monitoring/alerts.yml").is_file()
    assert (root / "opt/b/share/bucketd/schemas/login-session.json").is_file()
    unit = (root / "opt/b/lib/systemd/system/bucketd.service").read_text()
    assert "ExecStart=/opt/b/lib/bucketd/bin/bucketd serve" in unit
    named = [
        path
        for path in (root / "opt/b").rglob("*")
        if path.is_file() and str(tmp_path).encode() in path.read_bytes()
    ]
    assert named == []  # it works at the place where it will be, and was not built for this one

    config = root / "etc/bucketd/bucketd.toml"
    pristine = config.read_text()
    config.write_text("[log]\nlevel = 'debug'\n")
    install("uninstall", root, "/opt/b")
    assert entries(root) == before | {"etc/bucketd/bucketd.toml"}

    config.write_text(pristine)
    install("uninstall", root, "/opt/b")
    assert entries(root) == before
    assert not (root / "opt/b/share/bucketd").exists()


@pytest.mark.parametrize(
    "unit", ["bucketd.service", "user/bucketd.service", "bucketd-backup.service"]
)
def test_memory_with_secrets_stays_out_of_swap_and_core_dumps(unit: str) -> None:
    lines = (UNITS / unit).read_text().splitlines()
    assert "MemorySwapMax=0" in lines
    assert "LimitCORE=0" in lines
