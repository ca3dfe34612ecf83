"""What is built to be installed elsewhere: installed there, and used, without this tree.

Each is built in a copy of the tree, since building leaves things beside the source.
"""

from __future__ import annotations

import email.parser
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from checkout import copy_project
from harness import REPO, Daemon, new_daemon

sys.path.insert(0, str(REPO / "release"))

import formats
import version

LICENSE = (REPO / "LICENSE").read_text()
READY = (".venv/.ready", ".venv/.tools", "client/node/node_modules/.ready")
NAMED = ("--device", "phone", "--job", "login")
pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The tree, with the tools of this one."""
    tree = tmp_path / "tree"
    copy_project(tree)
    for tools in (".venv", "client/node/node_modules"):
        if (REPO / tools).exists():
            (tree / tools).symlink_to(REPO / tools)
    return tree


def run(*command: str | Path, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("BUCKETD_", "PYTHON"))}
    done = subprocess.run(
        command, cwd=cwd or "/", env={**clean, **(env or {})}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def make(tree: Path, target: str) -> dict[str, Path]:
    """What ``make target`` puts into ``dist``, by name."""
    # The tools are those of this tree, behind links: to renew them would empty what is linked to.
    kept = [f"--old-file={ready}" for ready in READY]
    run("make", "-s", *kept, target, cwd=tree)
    return {path.name: path for path in (tree / "dist").iterdir()}


def new_environment(home: Path, *wanted: str | Path) -> Path:
    """A virtual environment with nothing but these; its commands."""
    run(sys.executable, "-m", "venv", "--without-pip", home)
    pip = [sys.executable, "-m", "pip", "--python", home / "bin/python", "install", "--quiet"]
    run(*pip, *wanted)
    return home / "bin"


def metadata(wheel: Path) -> email.message.Message:
    with zipfile.ZipFile(wheel) as archive:
        name = next(n for n in archive.namelist() if n.endswith("dist-info/METADATA"))
        licence = archive.read(name.replace("METADATA", "licenses/LICENSE")).decode()
    assert licence == LICENSE
    with zipfile.ZipFile(wheel) as archive:
        return email.parser.Parser().parsestr(archive.read(name).decode())


@pytest.mark.booted
def test_the_wheels_are_all_that_is_needed(copy: Path, tmp_path: Path) -> None:
    built = make(copy, "wheels")
    now = version.current()
    client, server = f"bucketd_client-{now}", f"bucketd-{now}"
    kinds = ("-py3-none-any.whl", ".tar.gz")
    assert set(built) == {name + kind for name in (client, server) for kind in kinds}

    about = metadata(built[f"{client}-py3-none-any.whl"])
    required = about.get_all("Requires-Dist")
    assert (about["Version"], about["Requires-Python"], required) == (now, ">=3.9", None)
    about = metadata(built[f"{server}-py3-none-any.whl"])
    assert about["Description-Content-Type"] == "text/markdown"
    assert about.get_payload() == (REPO / "README.md").read_text()
    for name in (client, server):
        with tarfile.open(built[f"{name}.tar.gz"]) as archive:
            assert f"{name}/LICENSE" in archive.getnames()
            assert not [n for n in archive.getnames() if "/tests/" in n]

    # The client alone, from no index: it needs nothing.
    alone = new_environment(tmp_path / "client", "--no-index", built[f"{client}-py3-none-any.whl"])
    assert run(alone / "bucketctl", "--version") == f"bucketctl {now}\n"

    bin_ = new_environment(
        tmp_path / "daemon", *("-c", REPO / "requirements.lock"),
        *("--find-links", copy / "dist", f"bucketd=={now}"),
    )  # fmt: skip
    assert run(bin_ / "bucketd", "--version") == f"bucketd {now}\n"
    become = f"import os, sys; os.execv({str(bin_ / 'bucketd')!r}, ['bucketd', *sys.argv[1:]])"
    installed = new_daemon(program=("-c", become))
    try:
        used_from(installed.start(), alone / "bucketctl")
        assert installed.stop() == 0, installed.log
    finally:
        installed.remove()


def used_from(daemon: Daemon, *bucketctl: str | Path) -> None:
    env = {"BUCKETD_SOCKET": daemon.socket}
    assert json.loads(run(*bucketctl, "set", *NAMED, "n:=1", env=env)) == {"n": 1}
    inner = (*bucketctl, "get", "n")
    assert run(*bucketctl, "run", *NAMED, "--", *inner, env=env).strip() == "1"


def test_bucketctl_is_one_file(copy: Path, tmp_path: Path, daemon: Daemon) -> None:
    alone = tmp_path / "bucketctl"
    shutil.move(make(copy, "zipapp")["bucketctl.pyz"], alone)
    assert os.access(alone, os.X_OK)
    with zipfile.ZipFile(alone) as archive:
        assert archive.read("LICENSE").decode() == LICENSE
        assert not [name for name in archive.namelist() if name.endswith(".pyc")]
    path = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    assert run(alone, "--version", env=path) == f"bucketctl {version.current()}\n"
    used_from(daemon, sys.executable, "-I", alone)
    failed = subprocess.run([sys.executable, alone, "no-such-command"], capture_output=True)
    assert failed.returncode == 2


@pytest.mark.booted
@pytest.mark.skipif(
    not (REPO / "client/node/node_modules").exists(), reason="Node is not installed"
)
def test_the_npm_package_is_all_that_is_needed(copy: Path, tmp_path: Path, daemon: Daemon) -> None:
    """Installed with npm, offline: so it needs nothing, nor has it to be built."""
    tarball = make(copy, "npm")[f"bucketd-client-{version.current()}.tgz"]
    user = tmp_path / "user"
    user.mkdir()
    (user / "package.json").write_text('{"private": true}')
    run("npm", "install", "--offline", "--silent", "--no-audit", tarball, cwd=user)
    home = user / "node_modules/bucketd-client"
    assert (home / "LICENSE").read_text() == LICENSE
    parts = {"LICENSE", "README.md", "dist", "node_modules", "package.json"}
    assert {p.name for p in home.iterdir()} == parts
    (user / "use.mjs").write_text(
        'import { agent } from "bucketd-client";\n'
        "console.log(JSON.stringify(await agent.utils.bucket.set({ n: 2 })));\n"
    )
    context = {"BUCKETD_SOCKET": daemon.socket, "BUCKETD_TOKEN": daemon.mint("phone", "login")}
    said = json.loads(run("node", "use.mjs", cwd=user, env=context))
    assert (said["success"], said["bucket"]) == (True, {"n": 2})
    # The server in memory needs what is in the package, and no daemon.
    dev = ("npx", "--no-install", "bucketd-client", "dev", "--", "node", "use.mjs")
    assert json.loads(run(*dev, cwd=user))["bucket"] == {"n": 2}


# --- the version


def test_the_version_is_the_same_everywhere() -> None:
    found = version.everywhere()
    assert {one for each in found.values() for one in each} == {version.current()}, found
    log = re.findall(r"^## \[(\d[^]]*)\]", (REPO / "CHANGELOG.md").read_text(), flags=re.M)
    assert log[0] == version.current()


def test_the_version_is_set_everywhere(copy: Path) -> None:
    lock = json.loads((copy / "client/node/package-lock.json").read_text())
    script = copy / "release/version.py"
    assert run(sys.executable, script, "12.34.56") == "12.34.56\n"
    assert {one for each in version.everywhere(copy).values() for one in each} == {"12.34.56"}
    lock["version"] = lock["packages"][""]["version"] = "12.34.56"
    assert json.loads((copy / "client/node/package-lock.json").read_text()) == lock
    refused = subprocess.run([sys.executable, script, "1.2"], capture_output=True)
    assert (refused.returncode, version.current(copy)) == (2, "12.34.56")


def test_each_package_has_the_licence() -> None:
    for package in ("client/python", "client/node"):
        assert (REPO / package / "LICENSE").read_text() == LICENSE


# --- the Debian package; what it does is in tests/system/test_package.py


def test_every_format_on_disk_has_a_version_that_reads_it_first() -> None:
    assert set(formats.WRITTEN) <= set(formats.READ_SINCE)
    now = [int(part) for part in version.current().split(".")]
    assert [int(part) for part in formats.oldest_reader().split(".")] <= now


@pytest.mark.skipif(shutil.which("dpkg-shlibdeps") is None, reason="there is no dpkg-dev")
def test_a_package_is_not_built_for_a_python_that_is_none_of_debian(tmp_path: Path) -> None:
    shutil.copy("/bin/true", own := tmp_path / "python3.11")
    done = subprocess.run(
        ["make", "-s", "deb", f"DEB_PYTHON={own}", f"DIST={tmp_path / 'dist'}"],
        cwd=REPO, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode != 0
    assert f"cannot build a Debian package: {own} is no package's" in done.stderr
    assert not (tmp_path / "dist").exists()
