"""Large buckets: a browser's login, of which one run changes a counter."""

from __future__ import annotations

import json
from pathlib import Path

from . import peers
from .peers import Bucketd
from .places import apart
from .probes import daemon_status
from .report import Report
from .storage_state import size_of, storage_state
from .timing import alternate, one_by_one
from .works import Scale, p50, value_of

SIZES = (300_000, 900_000)
ROUNDS = 8
JOURNAL_BYTES = 4096  # that a set of one key may take


def large_buckets(daemon: Bucketd, home: Path, report: Report, scale: Scale) -> None:
    small, kib = daemon.client("small"), daemon.client("kib")
    small.replace(value_of(100, 1))
    kib.replace(value_of(1024, 1))
    with peers.available(peers.redis(home), report.note, "redis") as redis:
        for size in SIZES:
            state = storage_state(size)
            text = json.dumps(state, separators=(",", ":")).encode()
            bucket = daemon.client(f"large-{size}")
            bucket.replace(state)
            # The first change of a bucket makes its members known.
            bucket.set({"n": 1})
            runs = {
                "set": one_by_one(lambda n, b=bucket: b.set({"n": n}), scale(50)),
                "set, no bucket back": one_by_one(
                    lambda n, b=bucket: b.set({"n": n}, returning=False), scale(50)
                ),
                "replace": one_by_one(lambda n, b=bucket, s=state: b.replace({**s, "n": n}),
                                      scale(20)),
                "get": one_by_one(lambda _, b=bucket: b.get(), scale(50)),
                "get of one key": one_by_one(lambda _, b=bucket: b.get("n"), scale(100)),
                "a get of 100 B": one_by_one(lambda _: small.get(), scale(100)),
                "a set in 1 KiB": one_by_one(lambda n: kib.set({"n": n}), scale(50)),
            }  # fmt: skip
            servers = [daemon.socket]
            if redis is not None:
                servers.append(str(home / "redis.sock"))
                runs["redis SET"] = one_by_one(lambda _, t=text: redis.set("s", t), scale(50))
                runs["redis GET"] = one_by_one(lambda _: json.loads(redis.get("s")), scale(50))
            with apart(*servers):
                found = alternate(runs, ROUNDS)
            what = f"{size_of(state) // 1000} KB"
            p50(report, f"set of one key in {what}", found, "redis SET", 1.0, "set")
            p50(report, f"the same, no bucket back, {what}", found, "a set in 1 KiB", 1.5,
                "set, no bucket back")  # fmt: skip
            p50(report, f"get of one key out of {what}", found, "a get of 100 B", 1.5,
                "get of one key")  # fmt: skip
            p50(report, f"get of {what}", found, "redis GET", None, "get")
            p50(report, f"replacement of {what}", found, "redis SET", None, "replace")
            _journal(daemon, report, bucket, what, scale(1000))


def _journal(daemon: Bucketd, report: Report, bucket: object, what: str, times: int) -> None:
    before = daemon_status(daemon)["journal_bytes"]
    for number in range(times):
        bucket.set({"n": number}, returning=False)  # type: ignore[attr-defined]
    each = (daemon_status(daemon)["journal_bytes"] - before) / times
    report.add(f"journal bytes of a set of one key in {what}", f"{each:.0f} B", "4 KiB",
               f"{JOURNAL_BYTES} B", each / JOURNAL_BYTES, "<=", 1.0)  # fmt: skip
