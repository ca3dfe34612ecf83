"""The Debian package in a booted Debian: ``make test-packages``.

The tests share one machine and run in order. There are three packages: this
version, the next one, and one after it whose files this version could not read.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from callers import assert_all_there, calls
from checkout import copy_project
from harness import REPO
from machine import Machine, base_tree, missing, new_machine, wheels

sys.path.insert(0, str(REPO / "release"))

import version

pytestmark = [pytest.mark.booted, pytest.mark.timeout(900)]
PYTHON = "/usr/lib/bucketd/bin/python"
STATE = "/var/lib/bucketd"
NOBODY = 65534
NEXT, FAR = "98.0.0", "99.0.0"
DPKG = "DEBIAN_FRONTEND=noninteractive dpkg"
# What make install needs and the package does not.
BUILDERS = "python3-venv python3.*-venv python3-pip-whl python3-setuptools-whl make"


@dataclass(frozen=True)
class Package:
    file: str
    version: str


def build(wanted: str, home: Path, links: Path) -> Path:
    """Of a fresh checkout of that version, by a user who is not root, without a network."""
    tree = home / wanted
    copy_project(tree)
    version.change(wanted, tree)
    for path in (tree, *tree.rglob("*")):
        os.chown(path, NOBODY, NOBODY)
    become = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    env = {"PATH": os.environ["PATH"], "HOME": str(tree)}
    done = subprocess.run(
        [*become, "make", "-s", "deb"],
        cwd=tree,
        env={**env, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(links)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return tree / done.stdout.strip().splitlines()[-1]


def altered(built: Path, home: Path) -> Path:
    """The same as FAR, with files that nothing older reads."""
    root = home / "root"
    subprocess.run(["dpkg-deb", "-R", built, root], check=True)
    for name in ("control", "prerm"):
        text = (root / "DEBIAN" / name).read_text().replace(NEXT, FAR)
        text = text.replace(f'lt "{version.current()}"', f'lt "{FAR}"')
        (root / "DEBIAN" / name).write_text(text)
    target = home / built.name.replace(NEXT, FAR)
    subprocess.run(["dpkg-deb", "-Zgzip", "-z1", "-b", root, target], check=True)
    shutil.rmtree(root)
    return target


@pytest.fixture(scope="module")
def built() -> Iterator[list[Path]]:
    if (reason := missing()) is not None:
        pytest.skip(f"a booted systemd {reason}")
    if shutil.which("dpkg-shlibdeps") is None:
        pytest.skip("a Debian package needs dpkg-dev")
    home = Path(tempfile.mkdtemp(prefix="bucketd-deb-"))
    home.chmod(0o755)
    try:
        shutil.copytree(wheels(base_tree()), home / "wheels")
        now, later = (build(v, home, home / "wheels") for v in (version.current(), NEXT))
        yield [now, later, altered(later, home)]
    finally:
        shutil.rmtree(home)


@pytest.fixture(scope="module")
def machine(built: list[Path]) -> Iterator[Machine]:
    """Without what the package does not name, and not rebooted yet."""
    with new_machine() as machine:
        for path in built:
            shutil.copy(path, machine.tree / "srv")
        machine.run(f"{DPKG} --purge $({DPKG}-query -W -f '${{Package}} ' {BUILDERS})")
        yield machine


@pytest.fixture(scope="module")
def packages(built: list[Path]) -> list[Package]:
    """This version, the next one, and one that cannot be gone back from."""
    return [Package(f"/srv/{path.name}", path.name.split("_")[1]) for path in built]


def installed(machine: Machine) -> tuple[str, str]:
    """The version that dpkg knows, and that of the daemon which answers."""
    known = machine.run("dpkg-query -W -f '${db:Status-Abbrev}${Version}' bucketd").stdout
    return known.removeprefix("ii "), json.loads(machine.run("bucketctl status").stdout)["version"]


def both(package: Package) -> tuple[str, str]:
    return package.version, package.version.split("-")[0]


def kept(machine: Machine) -> str:
    """What nobody writes meanwhile, byte for byte; and the socket itself."""
    files = f"find {STATE}/devices/phone /etc/bucketd -type f -exec sha256sum {{}} + | sort -k 2"
    return machine.run(f"{files}; stat -c '%i %Z' /run/bucketd/bucketd.sock").stdout


def get_one(machine: Machine) -> str:
    return machine.run("bucketctl get --device phone --job login --raw text").stdout.strip()


def unit(machine: Machine) -> str:
    return (machine.tree / "usr/lib/systemd/system/bucketd.service").read_text()


def type_of(machine: Machine) -> str:
    version = int(machine.run("systemctl --version").stdout.split()[1])
    return "notify-reload" if version >= 253 else "notify"


# --- the tests


@pytest.mark.skipif(shutil.which("lintian") is None, reason="lintian is not installed")
def test_lintian_has_nothing_against_it(built: list[Path]) -> None:
    told = subprocess.run(
        ["lintian", "--fail-on", "warning", built[0]], capture_output=True, text=True
    )
    assert (told.returncode, told.stdout) == (0, "")


def test_it_is_installed_and_serves_at_once(machine: Machine, packages: list[Package]) -> None:
    """In silence, also where debconf finds no terminal and no program for dialogs."""
    assert machine.run("command -v whiptail dialog", check=False).stdout == ""
    done = machine.run(f"dpkg -i {packages[0].file}", timeout=300)
    assert "debconf" not in done.stdout + done.stderr
    assert re.findall("^Type=(.*)", unit(machine), flags=re.M) == [type_of(machine)]
    assert installed(machine) == both(packages[0])
    assert machine.run("systemctl is-enabled bucketd.service bucketd.socket").stdout == (
        "enabled\nenabled\n"
    )
    machine.run("bucketctl set --device phone --job login text=kept")
    machine.put("/etc/bucketd/bucketd.d/10.toml", "[limits]\nmax_bucket_bytes = 2097152\n")
    machine.run("echo '# changed here' >>/etc/bucketd/bucketd.toml")


def test_it_is_complete(machine: Machine) -> None:
    assert machine.run(f"{DPKG} --verify bucketd").stdout.split() == [
        "??5??????", "c", "/etc/bucketd/bucketd.toml",
    ]  # fmt: skip
    for path in (
        *("bash-completion/completions/bucketctl", "zsh/vendor-completions/_bucketctl"),
        *("fish/vendor_completions.d/bucketctl.fish", "man/man1/bucketctl-edit.1.gz"),
        *("man/man5/bucketd.toml.5.gz", "man/man7/bucketd.7.gz"),
        *("man/man8/bucketd.8.gz", "bucketd/move-buckets.sh", "bucketd/monitoring/alerts.yml"),
        *("doc/bucketd/copyright", "doc/bucketd/changelog.Debian.gz"),
    ):
        machine.run(f"test -s /usr/share/{path}")
    # What was built elsewhere belongs here: by owner, by name, and compiled for its place.
    others = machine.run("find /usr/lib/bucketd ! -user root").stdout
    assert others == ""
    said = machine.run(
        f"{PYTHON} -v -c 'import bucketd.daemon' 2>&1 | grep -E 'code object from .*/bucketd/'"
    ).stdout
    assert "daemon.cpython" in said
    assert re.findall(r"code object from '?/usr/lib/bucketd/\S+\.py\b", said) == []


def test_it_starts_at_boot(machine: Machine, packages: list[Package]) -> None:
    machine.power_off()
    machine.boot()
    assert machine.run("systemctl is-active bucketd.service").stdout == "active\n"
    assert machine.run("systemctl --failed --no-legend").stdout == ""
    assert installed(machine) == both(packages[0])
    assert get_one(machine) == "kept"


@pytest.mark.parametrize("target", [1, 0], ids=["upgrade", "downgrade"])
def test_another_version_under_load_fails_no_call(
    machine: Machine, packages: list[Package], target: int
) -> None:
    """Back as well: these two have the same formats, and dpkg says that it goes back."""
    before, started = kept(machine), machine.property("MainPID")
    with calls(machine, PYTHON) as acknowledged:
        said = machine.run(f"{DPKG} -i {packages[target].file} 2>&1", timeout=300).stdout
    assert_all_there(machine, acknowledged)
    assert installed(machine) == both(packages[target])
    assert kept(machine) == before
    assert machine.property("MainPID") != started
    assert machine.property("NRestarts") == "0"
    assert ("downgrading" in said) == (target == 0)


def test_a_downgrade_to_what_cannot_read_the_files_is_refused(
    machine: Machine, packages: list[Package]
) -> None:
    machine.run(f"{DPKG} -i {packages[2].file}", timeout=300)
    before, started = kept(machine), machine.property("MainPID")
    with calls(machine, PYTHON) as acknowledged:
        refused = machine.run(f"{DPKG} -i {packages[0].file}", check=False, timeout=300)
    assert refused.returncode != 0
    known = packages[0].version
    assert f"cannot replace bucketd {packages[2].version} by {known}" in refused.stderr
    assert_all_there(machine, acknowledged)
    status = machine.run("dpkg-query -W -f '${db:Status-Abbrev}${Version}' bucketd").stdout
    assert status == f"ii {packages[2].version}"
    assert (kept(machine), machine.property("MainPID")) == (before, started)
    machine.run(f"{DPKG} --audit | grep . && exit 1; true")


def test_removed_it_leaves_buckets_and_settings(machine: Machine, packages: list[Package]) -> None:
    files = f"sha256sum {STATE}/devices/phone/jobs/login.json /etc/bucketd/bucketd.toml"
    before = machine.run(files).stdout
    machine.run(f"{DPKG} --remove bucketd")
    assert machine.run(files).stdout == before
    assert machine.run("test -e /run/bucketd/bucketd.sock", check=False).returncode == 1
    assert machine.run("pgrep -u bucketd", check=False).returncode == 1
    assert machine.run("ls /usr/lib/bucketd /usr/bin/bucketctl", check=False).stdout == ""
    machine.run(f"{DPKG} -i {packages[0].file}", timeout=300)
    assert get_one(machine) == "kept"


def test_purged_it_keeps_the_buckets_and_says_so(machine: Machine, packages: list[Package]) -> None:
    said = machine.run("dpkg --purge bucketd")
    assert f"the buckets stay in {STATE}" in said.stderr
    assert "debconf" not in said.stdout + said.stderr
    left = machine.run("find /usr /etc /run /var/lib/systemd -name '*bucket*'").stdout.split()
    assert left == ["/etc/bucketd", "/etc/bucketd/bucketd.d"]  # the drop-in is not the package's
    machine.run(f"{DPKG} -i {packages[0].file}", timeout=300)
    assert get_one(machine) == "kept"


def test_purged_on_a_terminal_it_asks_and_complains_of_nothing(
    machine: Machine, packages: list[Package]
) -> None:
    said = machine.run("(sleep 5; echo no) | script -qec 'dpkg --purge bucketd' /dev/null").stdout
    assert "Delete all buckets as well?" in said
    assert "debconf:" not in said
    assert f"the buckets stay in {STATE}" in said
    machine.run(f"{DPKG} -i {packages[0].file}", timeout=300)
    assert get_one(machine) == "kept"


def test_purged_it_deletes_the_buckets_if_told_to(machine: Machine) -> None:
    answer = "echo bucketd bucketd/purge-buckets boolean true | debconf-set-selections"
    said = machine.run(f"{answer} && {DPKG} --purge bucketd")
    assert "the buckets stay" not in said.stderr
    assert machine.run(f"test -e {STATE}", check=False).returncode == 1


def test_purged_it_leaves_nothing_where_nothing_was_stored(
    machine: Machine, packages: list[Package]
) -> None:
    machine.run("rm -r /etc/bucketd/bucketd.d")
    machine.run(f"{DPKG} -i {packages[0].file}", timeout=300)
    machine.run("bucketctl status")
    assert machine.run(f"{DPKG} --purge bucketd").stderr == ""
    left = machine.run("find / -xdev -name '*bucketd*' -not -path '/src*' -not -path '/proc/*'")
    found = {p for p in left.stdout.split() if not p.startswith(("/srv/", "/var/log", "/wheels"))}
    assert found == set()
