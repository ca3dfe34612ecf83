"""The everyday work of automations: get and set, alone and many at once."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path

from . import inprocess, peers
from .load import Run, by_h2load, over_connections, over_threads
from .peers import Bucketd, Etcd
from .places import apart
from .processes import over_processes
from .report import Report, latency, micro, per_second
from .timing import Samples, alternate, one_by_one

SIZES = (100, 1024, 16 * 1024)
# Many short rounds, so that a drift of the disk or the clock affects all contestants equally.
ROUNDS = 15
Scale = Callable[[int], int]


def value_of(size: int, number: int) -> dict[str, object]:
    return {"n": number, "pad": "x" * (size - 30)}


def text_of(size: int, number: int) -> bytes:
    return json.dumps(value_of(size, number)).encode()


def single_gets(daemon: Bucketd, home: Path, report: Report, scale: Scale) -> None:
    """Measure the latency of get with one client, one request after another."""
    with (
        peers.available(peers.redis(home), report.note, "redis") as redis,
        peers.echo(home) as echo,
    ):
        servers = [daemon.socket, str(home / "echo.sock")]
        servers += [] if redis is None else [str(home / "redis.sock")]
        for size in SIZES:
            device, text = f"get-{size}", text_of(size, 1)
            bucket = daemon.client(device)
            bucket.replace(value_of(size, 1))
            runs = {"bucketd": one_by_one(lambda _, b=bucket: b.get(), scale(170))}
            runs["echo"] = one_by_one(lambda _, t=text: _echo(echo, t), scale(170))
            if redis is not None:
                redis.set("get", text)
                runs["redis"] = one_by_one(lambda _: json.loads(redis.get("get")), scale(170))
            with apart(*servers):
                found = alternate(runs, ROUNDS)
            work = f"get {_size(size)}, one client, p50"
            p50(report, work, found, "redis", 0.7)
            p50(report, work, found, "echo", 3.5)
            placed = alternate(runs, ROUNDS)
            p50(report, f"{work}, as placed", placed, "redis", 0.9)


def single_sets(daemon: Bucketd, home: Path, report: Report, scale: Scale) -> None:
    with (
        peers.available(peers.redis(home), report.note, "redis") as redis,
        peers.available(peers.etcd(home), report.note, "etcd") as etcd,
    ):
        plain, append = inprocess.safe_write(home), inprocess.bare_append(home)
        servers = [daemon.socket] + ([] if redis is None else [str(home / "redis.sock")])
        for size in SIZES:
            bucket, key = daemon.client(f"set-{size}"), f"set-{size}"
            runs = {
                "bucketd": one_by_one(lambda n, b=bucket, s=size: b.set(value_of(s, n)), scale(70))
            }
            runs["bucketd get"] = one_by_one(lambda _, b=bucket: b.get(), scale(70))
            for name, put in {"safe write": plain, "append + fdatasync": append}.items():
                runs[name] = _put(put, key, size, scale)
            if redis is not None:
                runs["redis"] = _put(redis.set, key, size, scale)
            if etcd is not None:
                runs["etcd"] = over_connections(etcd.connect, _etcd(size), 1, scale(70))
            # etcd runs on both cores.
            with apart(*servers):
                found = alternate(runs, ROUNDS)
            placed = alternate({n: runs[n] for n in ("bucketd", "redis") if n in runs}, ROUNDS)
            work, ours = f"set {_size(size)}, one client, p50", latency(found["bucketd"])
            p50(report, work, found, "redis", 1.0)
            p50(report, work, found, "etcd", 0.4)
            bound = 0.7 * found["safe write"].p50 + found["bucketd get"].p50
            name = "0.7 x safe write + get"
            report.add(work, ours, name, micro(bound), found["bucketd"].p50 / bound, "<=", 1.0)
            p50(report, work, found, "append + fdatasync", 4.0)
            p50(report, f"{work}, as placed", placed, "redis", 1.1)


def with_schema(daemon: Bucketd, _home: Path, report: Report, scale: Scale) -> None:
    """Measure set with a schema that has a field for each key, and without a schema."""
    fields = [{"name": f"f{n}", "type": "string", "maxLength": 100} for n in range(20)]
    with daemon.connect() as sock:
        body = json.dumps({"fields": [*fields, {"name": "n", "type": "number"}]}).encode()
        head = f"PUT /v1/schemas/bench HTTP/1.1\r\nHost: b\r\nContent-Length: {len(body)}\r\n\r\n"
        sock.sendall(head.encode() + body)
        if not sock.recv(65536).startswith(b"HTTP/1.1 200"):
            raise RuntimeError("the schema was refused")
    plain, checked = daemon.client("plain"), daemon.client("checked", automation="bench")

    def data(number: int) -> dict[str, object]:
        return {**{f"f{n}": "x" * 40 for n in range(20)}, "n": number}

    found = alternate(
        {
            "bucketd": one_by_one(lambda n: checked.set(data(n)), scale(400)),
            "no schema": one_by_one(lambda n: plain.set(data(n)), scale(400)),
        },
        5,
    )
    p50(report, "set 1 KiB with a schema, p50", found, "no schema", 1.15)


def many_gets(daemon: Bucketd, home: Path, report: Report, scale: Scale) -> None:
    """Measure get over sixteen connections, with the same load generator for both servers."""
    daemon.client("many").replace(value_of(1024, 1))
    answer = json.dumps({"success": True, "bucket": value_of(1024, 1), "revision": 1}).encode()
    with peers.minimal_aiohttp(home, answer) as path:
        paths = {"bucketd": daemon.socket, "aiohttp": path}
        log, total = home / "h2load.log", scale(40000)
        found = alternate({n: _gets(p, log, report, total) for n, p in paths.items()}, 5)
    _rate(report, "get 1 KiB, 16 connections", found, "aiohttp", 2.0)
    with peers.available(peers.redis(home), report.note, "redis") as redis:
        if redis is not None:
            for count in (16, 64):
                run = _gets(daemon.socket, home / "h2load.log", report, scale(40000), count)
                found = alternate({"bucketd": run}, 3)
                work = f"get 1 KiB, {count} connections"
                _redis_rate(report, work, found, home, "get", count, scale(100_000), None)


def _gets(path: str, log: Path, report: Report, total: int, connections: int = 16) -> Run:
    try:
        return by_h2load(path, Bucketd.path("many"), connections, total, log)
    except inprocess.Missing as cause:
        report.note(f"h2load is not installed ({cause}): a slower loop in Python is used instead")
    request = Bucketd.get("many")
    return over_connections(lambda: peers.connected(path), lambda *_: request, connections, total)


def many_sets(daemon: Bucketd, home: Path, report: Report, scale: Scale) -> None:
    with (
        peers.available(peers.etcd(home), report.note, "etcd") as etcd,
        peers.available(peers.redis(home), report.note, "redis") as redis,
    ):
        for count, goal in ((16, 3.0), (64, 5.0)):
            with contextlib.ExitStack() as stack:
                runs = {
                    "bucketd": over_connections(daemon.connect, _patch(count), count, scale(2000)),
                    "safe write": _threads(inprocess.safe_write(home), count, scale(640)),
                    "sqlite, one writer": _threads(
                        inprocess.sqlite_writer(home), count, scale(2000)
                    ),
                    "sqlite": stack.enter_context(
                        over_processes("sqlite", home, count, scale(2000))
                    ),
                }
                try:
                    inprocess.module("diskcache", "diskcache")
                    runs["diskcache"] = stack.enter_context(
                        over_processes("diskcache", home, count, scale(1000))
                    )
                except inprocess.Missing as cause:
                    report.note(f"diskcache is not installed ({cause})")
                if etcd is not None:
                    runs["etcd"] = over_connections(etcd.connect, _etcd(1024), count, scale(1000))
                found = alternate(runs, 3)
            work = f"set 1 KiB, {count} buckets and connections"
            _rate(report, work, found, "safe write", goal)
            _rate(report, work, found, "etcd", 2.0)
            _rate(report, work, found, "sqlite", 1.5)
            _rate(report, work, found, "sqlite, one writer", 1.5)
            _rate(report, work, found, "diskcache", 3.0)
            if redis is not None:
                least = 0.5 if count == 64 else None
                _redis_rate(report, work, found, home, "set", count, scale(100_000), least)
        runs = {
            "bucketd": over_connections(daemon.connect, _patch(16, hot=True), 16, scale(2000)),
            "safe write": _threads(inprocess.safe_write(home), 16, scale(640), hot=True),
        }
        _rate(report, "set 1 KiB, one hot bucket, 16 connections", alternate(runs, 3),
              "safe write", 5.0)  # fmt: skip


def _redis_rate(
    report: Report,
    work: str,
    found: dict[str, Samples],
    home: Path,
    operation: str,
    count: int,
    total: int,
    goal: float | None,
) -> None:
    """Add the row of ``work`` beside Redis with its own load generator."""
    try:
        theirs = peers.redis_benchmark(home, operation, count, total)
    except inprocess.Missing as cause:
        report.note(f"redis-benchmark is not installed ({cause})")
        return
    ours = found["bucketd"].rate
    shown = (per_second(ours), "redis-benchmark", per_second(theirs))
    report.add(work, *shown, ours / theirs, ">=", goal)


def _threads(put: inprocess.Setter, count: int, total: int, hot: bool = False) -> Run:
    def make(index: int) -> Callable[[int], object]:
        key = "hot" if hot else f"t{index}"
        return lambda number: put(key, text_of(1024, number))

    return over_threads(make, count, total)


def _patch(count: int, hot: bool = False) -> Callable[[int, int], bytes]:
    def request(connection: int, number: int) -> bytes:
        device = "hot" if hot else f"many-{count}-{connection}"
        return Bucketd.patch(device, text_of(1024, number))

    return request


def _etcd(size: int) -> Callable[[int, int], bytes]:
    return lambda connection, number: Etcd.put(f"k{connection}", text_of(size, number))


def _put(put: inprocess.Setter, key: str, size: int, scale: Scale) -> Callable[[Samples], None]:
    return one_by_one(lambda number: put(key, text_of(size, number)), scale(200))


def _echo(sock: object, text: bytes) -> None:
    sock.sendall(text)  # type: ignore[attr-defined]
    peers.whole(sock.recv, len(text))  # type: ignore[attr-defined]


def p50(
    report: Report,
    work: str,
    found: dict[str, Samples],
    peer: str,
    goal: float | None,
    ours: str = "bucketd",
) -> None:
    """Add the row of ``work``: the median of ``ours`` beside that of a peer that is there."""
    if peer in found:
        mine, theirs = found[ours], found[peer]
        report.add(work, latency(mine), peer, latency(theirs), mine.p50 / theirs.p50, "<=", goal)


def _rate(report: Report, work: str, found: dict[str, Samples], peer: str, goal: float) -> None:
    if peer in found:
        ours, theirs = found["bucketd"], found[peer]
        shown = f"{per_second(ours.rate)} (p99 {micro(ours.p99)})"
        other = f"{per_second(theirs.rate)} (p99 {micro(theirs.p99)})"
        report.add(work, shown, peer, other, ours.rate / theirs.rate, ">=", goal)


def _size(size: int) -> str:
    return f"{size} B" if size < 1024 else f"{size // 1024} KiB"
