"""Compare buckets in etcd with plain requests to etcd, and with the file store."""

from __future__ import annotations

from pathlib import Path

from . import peers
from .load import over_connections
from .peers import Bucketd, Etcd
from .report import Report, micro, per_second
from .timing import Samples, alternate
from .works import Scale, text_of

ROUNDS = 15
SIZES = (100, 1024, 16 * 1024)


def fleet(home: Path, report: Report, scale: Scale) -> None:
    """Measure set and get, one after another and then 16 at once, with one load generator."""
    for nodes in (1, 3):
        with peers.available(peers.etcd(home, nodes), report.note, "etcd") as etcd:
            if etcd is not None:
                _beside(home / f"on-{nodes}", etcd, f"etcd of {nodes}", report, scale)


def _beside(home: Path, etcd: Etcd, name: str, report: Report, scale: Scale) -> None:
    home.mkdir()
    config = home / "fleet.toml"
    url = "http://{}:{}".format(*etcd.address)
    config.write_text(f'[store]\nengine = "etcd"\n[store.etcd]\nendpoints = ["{url}"]\n')
    fleet, files = Bucketd(home / "fleet"), Bucketd(home / "files")
    fleet.home.mkdir()
    files.home.mkdir()
    with fleet.running("--config", str(config)), files.running():
        for size in SIZES:
            _one_client(fleet, files, etcd, size, name, report, scale)
        _many(fleet, files, etcd, name, report, scale)


def _one_client(
    fleet: Bucketd, files: Bucketd, etcd: Etcd, size: int, name: str, report: Report, scale: Scale
) -> None:
    runs = {
        f"{who} {what}": over_connections(connect, request, 1, scale(100))
        for who, connect, put, get in _contestants(fleet, files, etcd, size)
        for what, request in (("set", put), ("get", get))
    }
    found = alternate(runs, ROUNDS)
    shown = f"{size} B" if size < 1024 else f"{size // 1024} KiB"
    for what, goal in (("set", 1.3), ("get", 2.0)):
        work = f"{what} {shown} on {name}, p50"
        ours = found[f"fleet {what}"]
        for peer, bound in (("etcd", goal), ("files", 40.0)):
            theirs = found[f"{peer} {what}"]
            label = "bare etcd" if peer == "etcd" else "file store"
            report.add(work, micro(ours.p50), label, micro(theirs.p50), ours.p50 / theirs.p50,
                       "<=", bound)  # fmt: skip


def _many(
    fleet: Bucketd, files: Bucketd, etcd: Etcd, name: str, report: Report, scale: Scale
) -> None:
    runs = {
        who: over_connections(connect, put, 16, scale(1000))
        for who, connect, put, _ in _contestants(fleet, files, etcd, 1024)
    }
    found = alternate(runs, 3)
    for peer, label in (("etcd", "bare etcd"), ("files", "file store")):
        ours, theirs = found["fleet"], found[peer]
        report.add(f"set 1 KiB on {name}, 16 buckets and connections", _shown(ours), label,
                   _shown(theirs), ours.rate / theirs.rate, ">=", 0.05)  # fmt: skip


def _shown(samples: Samples) -> str:
    return f"{per_second(samples.rate)} (p99 {micro(samples.p99)})"


def _contestants(fleet: Bucketd, files: Bucketd, etcd: Etcd, size: int):  # type: ignore[no-untyped-def]
    """Return each contestant's name, its connect function, and its put and get requests."""

    def put(connection: int, number: int) -> bytes:
        return Bucketd.patch(f"f{size}-{connection}", text_of(size, number))

    def get(connection: int, _number: int) -> bytes:
        return Bucketd.get(f"f{size}-{connection}")

    yield "fleet", fleet.connect, put, get
    yield "files", files.connect, put, get
    yield (
        "etcd",
        etcd.connect,
        lambda connection, number: Etcd.put(f"k{size}-{connection}", text_of(size, number)),
        lambda connection, _number: Etcd.get(f"k{size}-{connection}"),
    )
