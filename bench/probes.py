"""Further measurements: starts, imports, system calls, syncs, memory, and a million buckets."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

from bucketd.fs import files
from bucketd.model import changes
from bucketd.model.apply import apply
from bucketd.model.bucket import ABSENT, BucketKey, Snapshot
from bucketd.model.preconditions import Preconditions
from bucketd.store.file import envelope, paths

from .load import over_connections
from .peers import Bucketd, answers
from .report import Report, micro
from .timing import Samples, alternate, one_by_one, percentile
from .works import Scale, _patch, value_of

HTTP_CLIENT = """
import http.client, json, socket, sys
class Connection(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX); self.sock.connect(sys.argv[1])
connection = Connection("localhost")
connection.request("GET", "/v1/devices/d/jobs/job/bucket")
print(json.loads(connection.getresponse().read())["bucket"])
"""


def commands(home: Path, report: Report, scale: Scale) -> None:
    """Measure whole processes: bucketctl, and the import of the client."""
    daemon, python = Bucketd(home), _installed(home)
    ctl = str(Path(python).parent / "bucketctl")
    names = {
        "bucketctl": [ctl, "get", "--device", "d", "--job", "job"],
        "python": [python, "-c", "pass"],
        "http.client": [python, "-c", HTTP_CLIENT, daemon.socket],
        "import": [python, "-c", "import bucketd_client; bucketd_client.Bucket"],
    }
    environ = {**os.environ, "BUCKETD_SOCKET": daemon.socket}
    with daemon.running():
        daemon.client("d").replace({"n": 1})
        found = alternate(
            {n: one_by_one(lambda _, w=w: _run(w, environ), scale(10)) for n, w in names.items()}, 5
        )
    ours = found["bucketctl"].p50
    for peer, goal in (("python", 1.5), ("http.client", 0.5)):
        name = "python -c pass" if peer == "python" else "python with http.client"
        theirs = found[peer].p50
        report.add(
            "bucketctl get, whole process", micro(ours), name, micro(theirs), ours / theirs, "<=",
            goal,
        )  # fmt: skip
    extra = found["import"].p50 - found["python"].p50
    report.add("import bucketd_client", micro(extra), "10 ms", "10.0 ms", extra / 0.010, "<=", 1.0)


def _installed(home: Path) -> str:
    """Return the interpreter of an environment with the client as its users install it.

    The interpreter of the checkout also imports what an editable install needs at each start.
    """
    python, copy = home / "installed" / "bin" / "python", home / "client"
    shutil.copytree(Path(__file__).parents[1] / "client" / "python", copy)
    _run([sys.executable, "-m", "venv", str(home / "installed")], None)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _run([*pip, "--no-deps", str(copy)], None)
    return str(python)


def start(home: Path, report: Report, scale: Scale) -> None:
    """Measure the start from exec to the first response, and the daemon's imports alone."""
    imports = [sys.executable, "-c", "import aiohttp.web, orjson, uvloop"]

    def ready(_number: int) -> None:
        with Bucketd(home).running():
            pass

    def to_ready(samples: Samples) -> None:
        for _ in range(scale(5) // 4 or 1):
            began = time.perf_counter()
            with Bucketd(home).running():
                samples.seconds.append(time.perf_counter() - began)

    found = alternate(
        {"bucketd": to_ready, "imports": one_by_one(lambda _: _run(imports, None), 5)}, 3
    )
    ours, theirs = found["bucketd"].p50, found["imports"].p50
    report.add(
        "start to ready", micro(ours), "its imports alone", micro(theirs), ours / theirs, "<=", 1.3
    )


def system_calls(home: Path, report: Report, scale: Scale) -> None:
    if shutil.which("strace") is None:
        report.note("strace is not installed (apt install strace)")
        return
    daemon, times = Bucketd(home), scale(2000)
    with daemon.running() as server:
        daemon.client("d").replace(value_of(1024, 1))
        request = daemon.get("d")
        run = over_connections(daemon.connect, lambda *_: request, 1, times)
        run(Samples())
        counted = _traced(server.pid, home, lambda: run(Samples()))
        calls = sum(counted.values()) / times
        report.add("system calls per get", f"{calls:.1f}", "5", "5", calls / 5, "<=", 1.0)
        sets = over_connections(daemon.connect, _patch(64), 64, times)
        before = daemon_status(daemon)
        sets(Samples())
        after = daemon_status(daemon)
        syncs = sum(after[n] - before[n] for n in ("journal_syncs", "file_syncs")) / times
        report.add("syncs per set, 64 connections", f"{syncs:.3f}", "0.05", "0.05",
                   syncs / 0.05, "<=", 1.0)  # fmt: skip


def device_bytes(home: Path, report: Report, scale: Scale) -> None:
    """Measure the bytes that reach the disk for each set of a hot bucket, and by safe writes."""
    from .inprocess import safe_write
    from .works import text_of

    daemon, times = Bucketd(home), scale(4000)
    with daemon.running():
        run = over_connections(daemon.connect, _patch(16, hot=True), 16, times)
        run(Samples())
        before = written(home)
        run(Samples())
        os.sync()
        ours = (written(home) - before) / times
    put = safe_write(home)
    before = written(home)
    for number in range(times // 4):
        put("hot", text_of(1024, number))
    os.sync()
    theirs = (written(home) - before) / (times // 4)
    if theirs == 0:
        report.note("this disk does not count what is written to it")
        return
    report.add("bytes written per set of a hot bucket", f"{ours:.0f} B", "safe write",
               f"{theirs:.0f} B", ours / theirs, "<=", 0.3)  # fmt: skip


def memory(home: Path, report: Report, _scale: Scale) -> None:
    daemon = Bucketd(home)
    with daemon.running() as server:
        idle = _resident(server.pid)
        report.add("memory, idle", f"{idle:.0f} MiB", "60 MiB", "60 MiB", idle / 60, "<=", 1.0)


def watchers(home: Path, report: Report, scale: Scale) -> None:
    """Measure 1,000 streams of a bucket that changes ten times a second, and gets of another.

    The streams are in a separate process, which shares the cores.
    """
    daemon, changes = Bucketd(home), scale(100)
    with daemon.running():
        bucket, other = daemon.client("watched"), daemon.client("other")
        other.replace(value_of(1024, 1))
        path = "/v1/devices/watched/jobs/job/bucket/events"
        words = [sys.executable, "-m", "bench.watchers", daemon.socket, path, str(changes)]
        alone, among = Samples(), Samples()
        gets = one_by_one(lambda _: other.get(), 20)
        begun = []
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None  # noqa: S101  (it is a pipe)
            # The process prints a line once all streams are open.
            process.stdout.readline()
            for _ in range(changes):
                gets(alone)
                time.sleep(0.05)
            for number in range(changes):
                begun.append(time.monotonic())
                bucket.set({"n": number})
                gets(among)
                time.sleep(0.05)
            heard = json.loads(process.stdout.readline())
    took = [there - begin for begin, there in zip(begun, heard, strict=True)]
    report.add("one change to 1,000 watchers, until the last has it, p50",
               micro(percentile(took, 50)), "50 ms", "50 ms", percentile(took, 50) / 0.05,
               "<=", 1.0)  # fmt: skip
    report.add("get while 1,000 watchers are told, p99", micro(among.p99), "without changes",
               micro(alone.p99), among.p99 / alone.p99, "<=", 3.0)  # fmt: skip


def holds(home: Path, report: Report, scale: Scale) -> None:
    """Measure 500 holders and 500 waiters on 500 phones: memory, a set beside them, a hand-over."""
    count, quiet, busy = 500, Bucketd(home / "quiet"), Bucketd(home / "busy")
    for one in (quiet, busy):
        one.home.mkdir()
    with quiet.running(), busy.running() as server:
        buckets = {"quiet": quiet.client("d"), "busy": busy.client("d")}
        runs = {
            name: one_by_one(lambda n, bucket=bucket: bucket.set({"n": n}), scale(500))
            for name, bucket in buckets.items()
        }
        alternate(runs, 1)
        before = _resident(server.pid)
        held = [_hold(busy, number) for number in range(count)]
        for sock in held:
            _until_held(sock)
        waiting = [_hold(busy, number) for number in range(count)]
        while daemon_status(busy, "counts")["hold_waiters"] < count:
            time.sleep(0.01)
        used = (_resident(server.pid) - before) * 1024 / count / 2
        found = alternate(runs, 5)
        took = []
        for sock, next_ in zip(held, waiting, strict=True):
            began = time.perf_counter()
            sock.close()
            _until_held(next_)
            took.append(time.perf_counter() - began)
            next_.close()
    a, b = found["busy"].p50, found["quiet"].p50
    report.add("set beside 500 holders and 500 waiters, p50", micro(a), "without", micro(b), a / b,
               "<=", 1.02)  # fmt: skip
    report.add("memory of a holder or a waiter", f"{used:.0f} KiB", "32 KiB", "32 KiB", used / 32,
               "<=", 1.0)  # fmt: skip
    report.add("release until the next one has the hold, p99", micro(percentile(took, 99)),
               "50 ms", "50 ms", percentile(took, 99) / 0.05, "<=", 1.0)  # fmt: skip


def _hold(daemon: Bucketd, number: int) -> socket.socket:
    body = b'{"wait_seconds": 600}'
    head = f"POST /v1/devices/phone-{number}/hold HTTP/1.1\r\nHost: b\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    sock = daemon.connect()
    sock.sendall(head.encode() + body)
    return sock


def _until_held(sock: socket.socket) -> None:
    text = b""
    while b"event: hold" not in text:
        text += sock.recv(65536) or b"event: hold"


PROBES = (commands, start, system_calls, device_bytes, memory, watchers, holds)


def million(home: Path, report: Report, scale: Scale) -> None:
    """Measure start, get, set and memory with 1,000,000 bucket files on disk."""
    few, many = home / "few", home / "many"
    plant(few, 100)
    plant(many, 1_000_000)
    starts: dict[str, list[float]] = {"few": [], "many": []}
    for _ in range(5):
        for name, place in (("few", few), ("many", many)):
            began = time.perf_counter()
            with Bucketd(place).running():
                starts[name].append(time.perf_counter() - began)
    one, two = (percentile(starts[name], 50) for name in ("many", "few"))
    report.add("start, 1,000,000 buckets", micro(one), "100 buckets", micro(two), one / two,
               "<=", 1.5)  # fmt: skip
    with Bucketd(few).running(), Bucketd(many).running() as server:
        gets = {n: Bucketd(p) for n, p in (("few", few), ("many", many))}
        for work, goal in (("get", 1.2), ("set", 1.2)):
            found = alternate({n: _spread(work, b, n, scale) for n, b in gets.items()}, 5)
            a, b = found["many"].p50, found["few"].p50
            report.add(f"{work} p50, 1,000,000 buckets", micro(a), "100 buckets", micro(b), a / b,
                       "<=", goal)  # fmt: skip
        connect = Bucketd(many).connect
        run = over_connections(
            connect,
            lambda _c, n: Bucketd.get(f"d{n % 1000}", f"j{n // 1000 % 1000}"),
            16,
            1_000_000,
        )
        run(Samples())
        used = _resident(server.pid)
        report.add("memory after 1,000,000 distinct gets", f"{used:.0f} MiB", "64 + 60 MiB",
                   "124 MiB", used / 124, "<=", 1.0)  # fmt: skip


def _spread(work: str, daemon: Bucketd, name: str, scale: Scale):  # type: ignore[no-untyped-def]
    """Return a contestant with requests to the same hundred buckets, one after another."""
    buckets = [daemon.client(f"d{n}", "j0") for n in range(100 if name == "many" else 10)]

    def call(number: int) -> object:
        bucket = buckets[number % len(buckets)]
        return bucket.get() if work == "get" else bucket.set({"n": number})

    return one_by_one(call, scale(500))


def plant(home: Path, count: int) -> None:
    """Write ``count`` bucket files as the daemon leaves them, without the daemon."""
    jobs = min(1000, max(10, count // 1000))
    (home / "state").mkdir(parents=True, mode=0o700)
    root = os.open(home / "state", os.O_RDONLY | os.O_DIRECTORY)
    for number in range(count):
        key = BucketKey(f"d{number // jobs}", f"j{number % jobs}")
        change = changes.replace({"n": number})
        snapshot = apply(change, Preconditions(), None, key, ABSENT)

        def text_for(origin: str, key: BucketKey = key, snapshot: Snapshot = snapshot) -> bytes:
            return envelope.write(key, snapshot, origin)

        files.write(root, *paths.parts(key), text_for, durably=False)
    os.close(root)


def daemon_status(daemon: Bucketd, section: str = "store") -> dict[str, int]:
    with daemon.connect() as sock:
        sock.sendall(b"GET /v1/status HTTP/1.1\r\nHost: b\r\nConnection: close\r\n\r\n")
        text = b""
        while chunk := sock.recv(65536):
            text += chunk
    found: dict[str, int] = json.loads(text.partition(b"\r\n\r\n")[2])[section]
    return found


def _run(words: list[str], environ: dict[str, str] | None) -> None:
    subprocess.run(words, env=environ, stdout=subprocess.DEVNULL, check=True)


def _traced(pid: int, home: Path, work) -> dict[str, int]:  # type: ignore[no-untyped-def]
    log = home / "strace"
    tracer = subprocess.Popen(["strace", "-f", "-c", "-o", str(log), "-p", str(pid)],
                              stderr=subprocess.DEVNULL)  # fmt: skip
    time.sleep(1)
    work()
    tracer.send_signal(2)
    tracer.wait(10)
    rows = re.findall(r"^\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s+(?:\d+\s+)?(\w+)$",
                      log.read_text(), re.M)  # fmt: skip
    return {name: int(count) for count, name in rows if name != "total"}


def _resident(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) / 1024


def written(home: Path) -> int:
    """Return the bytes written so far to the device of a directory (sectors of 512 bytes)."""
    number = os.stat(home).st_dev
    path = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}/stat")
    return int(path.read_text().split()[6]) * 512 if path.exists() else 0


__all__ = ["PROBES", "answers", "million"]
