"""A file system that cannot keep the promise is refused, or accepted with a warning that stays."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import new_daemon, pair
from images import MIB, Image, TenantDaemon, hold_daemon, hold_image
from mounts import Mounts, hold_mounts

from bucketd.fs.mounts import unfit

TARGET = pair("phone", "job")


@pytest.fixture
def mounts() -> Iterator[Mounts]:
    with hold_mounts() as held:
        if held is None:
            pytest.skip("mount namespaces need root and util-linux")
        yield held


@pytest.fixture
def tenant(mounts: Mounts, tmp_path: Path) -> Iterator[TenantDaemon]:
    """A daemon, not started yet, with its state on what the test mounts at ``mounted``."""
    daemon = TenantDaemon(new_daemon().home, program=mounts.program, mounted=tmp_path / "mounted")
    daemon.mounted.mkdir()
    try:
        yield daemon
    finally:
        daemon.remove()


@pytest.fixture
def image(request: pytest.FixtureRequest) -> Iterator[Image]:
    with hold_image("ext4", *getattr(request, "param", ())) as image:
        yield image


@pytest.fixture
def on_image(image: Image) -> Iterator[TenantDaemon]:
    with hold_daemon(image) as daemon:
        yield daemon


def is_refused(daemon: TenantDaemon, cause: str) -> None:
    daemon.spawn()
    assert daemon.process is not None
    assert daemon.process.wait(15) == 1, daemon.log
    lines = daemon.log.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith(f"bucketd: cannot keep buckets safely in {daemon.state_dir}: ")
    assert cause in lines[0]
    assert "--unsafe-filesystem" in lines[0]


def is_accepted_with_a_warning(daemon: TenantDaemon, cause: str) -> None:
    seen = len(daemon.log)
    daemon.start("--unsafe-filesystem")
    assert cause in daemon.request("GET", "/v1/status").json["store"]["unsafe_filesystem"]
    warnings = [line for line in daemon.log[seen:].splitlines() if " WARNING " in line]
    assert len(warnings) == 1
    assert cause in warnings[0]
    assert daemon.request("PUT", TARGET, {"n": 1}).status == 200


def test_in_memory(tenant: TenantDaemon, mounts: Mounts) -> None:
    mounts.small(tenant.mounted, 64 * MIB)
    is_refused(tenant, "tmpfs: it is kept in memory")
    is_accepted_with_a_warning(tenant, "tmpfs: it is kept in memory")


def test_overlay_that_does_not_sync(image: Image, on_image: TenantDaemon) -> None:
    layers = [image.point / name for name in ("lower", "upper", "work", "merged")]
    image.mounts.run("mkdir", *map(str, layers))
    lower, upper, work, merged = layers
    options = f"lowerdir={lower},upperdir={upper},workdir={work},volatile"
    image.mounts.run("mount", "-t", "overlay", "none", "-o", options, str(merged))
    on_image.mounted = merged
    is_refused(on_image, "an overlay mounted with volatile")
    is_accepted_with_a_warning(on_image, "an overlay mounted with volatile")


@pytest.mark.parametrize("image", [["nobarrier"], ["barrier=0"]], indirect=True)
def test_without_barriers(on_image: TenantDaemon) -> None:
    is_refused(on_image, "it is mounted with nobarrier")  # the kernel's word for both
    is_accepted_with_a_warning(on_image, "it is mounted with nobarrier")


def test_overlay_whose_upper_layer_is_in_memory(tenant: TenantDaemon, mounts: Mounts) -> None:
    memory = tenant.mounted.parent / "memory"
    mounts.run("mkdir", str(memory))
    mounts.run("mount", "-t", "tmpfs", "none", str(memory))
    lower, upper, work = layers = [memory / name for name in ("lower", "upper", "work")]
    mounts.run("mkdir", *map(str, layers))
    options = f"lowerdir={lower},upperdir={upper},workdir={work}"
    mounts.run("mount", "-t", "overlay", "none", "-o", options, str(tenant.mounted))
    is_refused(tenant, "overlay with its upper layer on tmpfs: it is kept in memory")
    is_accepted_with_a_warning(tenant, "overlay with its upper layer on tmpfs")


@pytest.mark.parametrize("directory", [".", "devices"])
def test_names_that_differ_in_case_are_one(
    image: Image, on_image: TenantDaemon, directory: str
) -> None:
    """The probe's two names are one file, as on ext4 with casefold, and on vfat."""
    state = on_image.state_dir
    place = state / directory
    run = image.mounts.run
    run("mkdir", "-p", "-m", "700", str(state), str(place))

    def make_one() -> None:
        run("touch", str(place / ".case-probe"))
        run("ln", "-f", str(place / ".case-probe"), str(place / ".CASE-PROBE"))

    make_one()
    is_refused(on_image, "its file system ignores case in names")
    make_one()
    is_accepted_with_a_warning(on_image, "its file system ignores case in names")


@pytest.mark.parametrize("directory", ["state", "state/devices"])
def test_a_directory_that_ignores_case(directory: str) -> None:
    """ext4 can ignore case in single directories, which hand that on to those made in them."""
    with hold_image("ext4", make=("-O", "casefold")) as image, hold_daemon(image) as daemon:
        place = image.point / directory
        image.mounts.run("mkdir", "-p", "-m", "700", str(daemon.state_dir), str(place))
        image.mounts.run("chattr", "+F", str(place))
        is_refused(daemon, "its file system ignores case in names")


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_a_local_disk_is_fit(kind: str) -> None:
    with hold_image(kind) as image, hold_daemon(image) as daemon:
        daemon.start()
        assert daemon.request("GET", "/v1/status").json["store"]["unsafe_filesystem"] is None
        assert "WARNING" not in daemon.log


ROOT = "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw"


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "smb3", "9p", "tmpfs", "ramfs"])
def test_table_of_file_systems(kind: str) -> None:
    table = f"{ROOT}\n23 22 0:5 / /srv/far\\040away rw - {kind} host:/x rw,vers=4"
    assert (unfit("/srv/far away/state", table) or "").startswith(f"{kind}: ")
    assert unfit("/srv/far", table) is None
    assert unfit("/srv", table) is None
    # The last of what is mounted over one another counts, and what is mounted below.
    over = "24 23 8:1 / /srv/far\\040away rw - xfs /dev/sda rw"
    below = "24 23 8:1 / /srv/far\\040away/state rw - xfs /dev/sda rw"
    assert unfit("/srv/far away/state", f"{table}\n{over}") is None
    assert unfit("/srv/far away/state/x", f"{table}\n{below}") is None
    assert unfit("/srv/far away/stately", f"{table}\n{below}") is not None


@pytest.mark.parametrize("option", ["nobarrier", "barrier=0", "volatile"])
def test_table_of_options(option: str) -> None:
    assert unfit("/s", f"{ROOT}\n23 22 8:1 / /s rw - ext4 /dev/sda rw,{option}") is not None
    assert unfit("/s", f"{ROOT}\n23 22 8:1 / /s rw - ext4 /dev/sda rw,no{option}x") is None
    assert unfit("/s", "") is None
