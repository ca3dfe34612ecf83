"""The file system fills up, turns read-only or is removed while the daemon uses it."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import Daemon, Response, pair
from images import MIB, Image, TenantDaemon, hold_daemon, hold_image
from ledger import Ledger, compare, count_torn_files

TARGET = pair("phone", "job")
PATHS = [TARGET, pair("phone", "other"), pair("tablet")]
SMALL_JOURNAL = {
    "BUCKETD_STORE_JOURNAL_BYTES": "200000",
    "BUCKETD_LIMITS_MAX_BUCKET_BYTES": "60000",
}


@pytest.fixture
def image() -> Iterator[Image]:
    with hold_image("ext4", "errors=remount-ro", size=24 * MIB) as image:
        yield image


@pytest.fixture
def tenant(image: Image) -> Iterator[TenantDaemon]:
    """Started, with some buckets, and idle."""
    with hold_daemon(image, **SMALL_JOURNAL) as daemon:
        yield daemon.start()


@pytest.fixture
def ledger(tenant: TenantDaemon) -> Ledger:
    ledger = Ledger()
    assert write_all(tenant, ledger, 1) == []
    time.sleep(0.1)
    return ledger


def write_all(daemon: Daemon, ledger: Ledger, number: int) -> list[Response]:
    """A set of each bucket; what was refused."""
    answers = [ledger.put(daemon, path, number) for path in PATHS]
    time.sleep(0.03)
    return [answer for answer in answers if answer.status != 200]


def until_refused(daemon: Daemon, ledger: Ledger) -> list[Response]:
    for number in range(10, 500):
        refused = write_all(daemon, ledger, number)
        if refused:
            return refused
    raise AssertionError("no write was ever refused")


def back_to_normal(daemon: Daemon, ledger: Ledger) -> None:
    deadline = time.monotonic() + 5
    while ledger.put(daemon, TARGET, 1000).status != 200:
        assert time.monotonic() < deadline, daemon.log
        time.sleep(0.1)
    assert write_all(daemon, ledger, 1001) == []


def nothing_is_lost(image: Image, daemon: TenantDaemon, ledger: Ledger) -> None:
    compare(daemon, ledger)
    ledger.torn += sum(count_torn_files(image.inside / "state" / "devices"))
    assert ledger.wrong == (0, 0, 0)


def is_still_read(daemon: Daemon, ledger: Ledger) -> None:
    assert daemon.request("GET", "/healthz").status == 200
    assert daemon.request("GET", "/v1/status").json["store"]["healthy"] is False
    for path, known in ledger.known.items():
        assert daemon.request("GET", path).bucket["n"] == known.number


def fill(directory: Path) -> Path:
    """Use up all space."""
    filler = directory / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (65536, 4096, 1024):
            try:
                while True:
                    file.write(b"\0" * size)
            except OSError:
                continue
    return filler


@pytest.mark.parametrize("killed", [False, True], ids=["lives", "killed"])
def test_full(image: Image, tenant: TenantDaemon, ledger: Ledger, killed: bool) -> None:
    filler = fill(image.inside)
    refused = until_refused(tenant, ledger)
    assert {(r.status, r.json["code"]) for r in refused} == {(507, "storage_full")}
    assert all("nothing was changed" in r.json["error"] for r in refused)
    is_still_read(tenant, ledger)
    if killed:
        tenant.kill()
        filler.unlink(missing_ok=True)
        tenant.start()
        nothing_is_lost(image, tenant, ledger)
    filler.unlink(missing_ok=True)
    back_to_normal(tenant, ledger)
    nothing_is_lost(image, tenant, ledger)
    tenant.restart()
    nothing_is_lost(image, tenant, ledger)


def test_a_full_disk_deletes_for_good(image: Image, tenant: TenantDaemon, ledger: Ledger) -> None:
    """Deleting is the way to make room, so it may not need any."""
    filler = fill(image.inside)
    assert until_refused(tenant, ledger)
    answer = ledger.put(tenant, PATHS[1], 0)
    assert (answer.status, answer.bucket) == (200, {})
    assert "trash" not in answer.json
    assert tenant.log.count("it is deleted for good") == 1
    assert tenant.request("GET", "/v1/trash").json["trash"] == []
    filler.unlink()
    back_to_normal(tenant, ledger)
    nothing_is_lost(image, tenant, ledger)
    assert ledger.put(tenant, PATHS[2], 0).json["trash"]


@pytest.mark.parametrize("quota", ["0", "100000000"])
def test_full_of_buckets(image: Image, quota: str) -> None:
    """Removing some of them is what makes space, also large ones, and where they are counted."""
    settings = {**SMALL_JOURNAL, "BUCKETD_STORE_JOURNAL_BYTES": "600000"}
    settings |= {"BUCKETD_LIMITS_MAX_BUCKET_BYTES": "200000"}
    settings |= {"BUCKETD_LIMITS_MAX_DEVICE_BYTES": quota}
    with hold_daemon(image, **settings) as tenant:
        full_of_buckets(tenant.start())


def full_of_buckets(tenant: TenantDaemon) -> None:
    paths = [pair("phone", f"{number}") for number in range(1000)]
    stored = []
    for path in paths:
        answer = tenant.request("PUT", path, {"pad": "x" * 150_000})
        if answer.status != 200:
            break
        stored.append(path)
        time.sleep(0.02)
    assert (answer.status, answer.json["code"]) == (507, "storage_full")
    for path in stored[:20]:
        assert tenant.request("DELETE", path).bucket == {}
    assert tenant.request("PATCH", stored[-1], {"n": 1}).bucket["n"] == 1
    assert tenant.request("GET", stored[0]).bucket == {}
    for path in stored[20:]:
        assert "pad" in tenant.request("GET", path).bucket
    assert tenant.stop() == 0


def test_full_and_then_cut(image: Image, tenant: TenantDaemon, ledger: Ledger) -> None:
    """What was acknowledged and found no room for its file is in the journal, durably."""
    filler = fill(image.inside)
    until_refused(tenant, ledger)
    image.cut()
    tenant.kill()
    image.unmount()
    image.mount()
    filler.unlink(missing_ok=True)
    tenant.start()
    nothing_is_lost(image, tenant, ledger)


def test_files_read_only(image: Image, tenant: TenantDaemon, ledger: Ledger) -> None:
    devices = tenant.state_dir / "devices"
    image.mounts.read_only(devices)
    refused = until_refused(tenant, ledger)
    assert {(r.status, r.json["code"]) for r in refused} == {(503, "read_only")}
    assert all("nothing was changed" in r.json["error"] for r in refused)
    is_still_read(tenant, ledger)
    image.mounts.undo(devices)
    back_to_normal(tenant, ledger)
    tenant.restart()
    nothing_is_lost(image, tenant, ledger)


def test_stopped_while_files_cannot_be_written(
    image: Image, tenant: TenantDaemon, ledger: Ledger
) -> None:
    devices = tenant.state_dir / "devices"
    image.mounts.read_only(devices)
    until_refused(tenant, ledger)
    assert tenant.stop() == 0
    assert "the next start completes them" in tenant.log
    image.mounts.undo(devices)
    tenant.start()
    assert tenant.request("GET", "/v1/status").json["store"]["replayed_files"] > 0
    nothing_is_lost(image, tenant, ledger)


def test_read_only_by_hand(image: Image, tenant: TenantDaemon, ledger: Ledger) -> None:
    """The kernel does not do it while the journal is open for writing; nothing notices the try."""
    with pytest.raises(subprocess.CalledProcessError, match="remount"):
        image.remount("ro")
    assert write_all(tenant, ledger, 2) == []
    nothing_is_lost(image, tenant, ledger)
    tenant.stop()
    image.remount("ro")
    before = len(tenant.log)
    tenant.spawn()
    assert tenant.process is not None
    assert tenant.process.wait(15) == 1
    assert len(tenant.log[before:].strip().splitlines()) == 1
    image.remount("rw")
    tenant.start()
    nothing_is_lost(image, tenant, ledger)
    back_to_normal(tenant, ledger)


def test_read_only_after_an_error(image: Image, tenant: TenantDaemon, ledger: Ledger) -> None:
    """What ext4 does by itself; the journal cannot be written then."""
    trigger = Path("/sys/fs/ext4") / image.device.name / "trigger_fs_error"
    if not trigger.exists():
        pytest.skip("this kernel's ext4 has no error to trigger")
    trigger.write_text("by the test")
    first, *others = until_refused(tenant, ledger)
    assert (first.status, first.json["code"]) == (500, "internal")
    assert "unknown" in first.json["error"]
    assert {(r.status, r.json["code"]) for r in others} == {(503, "read_only")}
    is_still_read(tenant, ledger)
    tenant.kill()
    image.unmount()
    image.check()
    image.mount()
    tenant.start()
    nothing_is_lost(image, tenant, ledger)
    back_to_normal(tenant, ledger)


def attempts(daemon: Daemon) -> list[Response | None]:
    """Writes of buckets old and new; None where the connection was closed without an answer."""
    answers: list[Response | None] = []
    for number in range(2, 5):
        for method, path in (("PUT", TARGET), ("PUT", pair("new", "job")), ("DELETE", PATHS[1])):
            body = {"n": number} if method == "PUT" else None
            try:
                answers.append(daemon.request(method, path, body))
            except ConnectionError:
                answers.append(None)
    return answers


def test_removed(daemon: Daemon) -> None:
    """No false success, and nothing comes into being in its place or elsewhere."""
    fill_and_remove(daemon, idle=0.1)
    before = sorted(path.name for path in daemon.home.iterdir())
    assert all(answer is None or answer.status >= 500 for answer in attempts(daemon))
    assert daemon.request("GET", TARGET).status == 500
    assert daemon.request("GET", "/healthz").status == 200
    assert sorted(path.name for path in daemon.home.iterdir()) == before
    daemon.kill()
    assert daemon.start().request("GET", TARGET).bucket == {}


def fill_and_remove(daemon: Daemon, idle: float) -> None:
    for path in PATHS:
        assert daemon.request("PUT", path, {"n": 1}).status == 200
    time.sleep(idle)
    while daemon.state_dir.exists():  # the daemon may just be writing a file in one of them
        shutil.rmtree(daemon.state_dir, ignore_errors=True)


def test_removed_and_everybody_is_answered(daemon: Daemon) -> None:
    fill_and_remove(daemon, idle=0.1)
    answers = attempts(daemon)
    assert None not in answers
    assert not any("another program" in answer.json["error"] for answer in answers if answer)


def test_removed_and_listed(daemon: Daemon) -> None:
    fill_and_remove(daemon, idle=0.1)
    assert daemon.request("GET", "/v1/buckets").status >= 500


def test_removed_between_two_writes(daemon: Daemon) -> None:
    """A write right behind another one is acknowledged in a journal that has no name any more."""
    fill_and_remove(daemon, idle=0)
    assert all(answer is None or answer.status >= 500 for answer in attempts(daemon))
