"""Many clients at once: every write counts once, in one order that all agree on."""

from __future__ import annotations

import array
import fcntl
import json
import socket
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from external_edits import envelope
from harness import Daemon, encode_request, pair

TESTS = str(Path(__file__).parent.parent / "support")

PRELUDE = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from harness import Daemon
daemon, target, me, times = Daemon(Path(sys.argv[2])), sys.argv[3], sys.argv[4], int(sys.argv[5])
sock = daemon.connect(60)
sys.stdin.readline()
"""

SET_KEYS = """
for number in range(times):
    answer = daemon.request("PATCH", target, {f"{me}-{number}": number}, sock=sock)
    assert answer.status == 200, answer
    assert answer.bucket[f"{me}-{number}"] == number
    print(answer.json["revision"])
"""

COMPARE_AND_SWAP = """
for number in range(times):
    while True:
        seen = daemon.request("GET", target, sock=sock)
        guard = {"If-Match": seen.etag} if seen.etag else {"If-None-Match": "*"}
        body = {**seen.bucket, "sum": seen.bucket.get("sum", 0) + 1}
        answer = daemon.request("PUT", target, body, guard, sock=sock)
        if answer.status == 200:
            break
        assert answer.status == 412, answer
        assert answer.json["revision"] > seen.json["revision"]
    print(answer.json["revision"])
"""


def processes(daemon: Daemon, code: str, target: str, count: int, times: int) -> list[int]:
    """Run ``code`` in so many processes, which begin together; all numbers that they print."""
    command = [sys.executable, "-c", PRELUDE + code, TESTS, str(daemon.home), target]
    running = [
        subprocess.Popen(
            [*command, str(me), str(times)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for me in range(count)
    ]
    for process in running:
        assert process.stdin is not None
        process.stdin.write(b"go\n")
        process.stdin.flush()
    printed = [process.communicate(timeout=60)[0] for process in running]
    assert [process.returncode for process in running] == [0] * count
    return [int(line) for text in printed for line in text.split()]


def test_eight_processes_set_keys_of_one_bucket(shared_daemon: Daemon) -> None:
    target = pair("many", "keys")
    revisions = processes(shared_daemon, SET_KEYS, target, 8, 40)
    assert sorted(revisions) == list(range(1, 321))
    seen = shared_daemon.request("GET", target)
    assert seen.bucket == {f"{me}-{n}": n for me in range(8) for n in range(40)}
    assert seen.json["revision"] == 320
    document = envelope(shared_daemon, "many", "keys")
    assert (document["bucket"], document["revision"]) == (seen.bucket, 320)


def test_compare_and_swap_in_several_processes(shared_daemon: Daemon) -> None:
    target = pair("many", "sum")
    revisions = processes(shared_daemon, COMPARE_AND_SWAP, target, 4, 60)
    assert sorted(revisions) == list(range(1, 241))
    assert shared_daemon.request("GET", target).bucket == {"sum": 240}


def at_once(count: int, work: Callable[[int], None]) -> None:
    """``work(0)`` … ``work(count - 1)``, each in a thread of its own, begun together."""
    gate = threading.Barrier(count)

    def one(number: int) -> None:
        gate.wait(20)
        work(number)

    with ThreadPoolExecutor(count) as pool:
        for future in [pool.submit(one, number) for number in range(count)]:
            future.result(60)


def test_every_revision_once(shared_daemon: Daemon) -> None:
    target, seen = pair("many", "revisions"), []

    def work(me: int) -> None:
        with shared_daemon.connect() as sock:
            for number in range(10):
                body = {"last": [me, number]}
                answer = shared_daemon.request("PATCH", target, body, sock=sock)
                assert answer.bucket == body
                seen.append((answer.json["revision"], answer.etag))

    at_once(32, work)
    assert sorted(revision for revision, _ in seen) == list(range(1, 321))
    assert len({etag for _, etag in seen}) == 320


def test_a_connection_for_each_write(shared_daemon: Daemon) -> None:
    target, revisions = pair("many", "connections"), []

    def work(me: int) -> None:
        for number in range(5):
            answer = shared_daemon.request("PATCH", target, {f"{me}-{number}": 1})
            revisions.append(answer.json["revision"])

    at_once(24, work)
    assert sorted(revisions) == list(range(1, 121))
    assert len(shared_daemon.request("GET", target).bucket) == 120


def test_sixteen_threads_on_buckets_of_their_own(shared_daemon: Daemon) -> None:
    def work(me: int) -> None:
        target = pair("own", str(me))
        with shared_daemon.connect() as sock:
            for number in range(1, 26):
                answer = shared_daemon.request("PATCH", target, {str(number): me}, sock=sock)
                assert answer.json["revision"] == number
                read = shared_daemon.request("GET", target, sock=sock)
                assert read.bucket == answer.bucket
                assert len(read.bucket) == number

    at_once(16, work)
    for me in range(16):
        assert envelope(shared_daemon, "own", str(me))["revision"] == 25


def test_a_device_bucket_and_its_jobs_are_apart(shared_daemon: Daemon) -> None:
    def work(me: int) -> None:
        target = pair("apart", None if me == 0 else str(me))
        for number in range(1, 16):
            answer = shared_daemon.request("PATCH", target, {"me": me, "n": number})
            assert answer.bucket == {"me": me, "n": number}
            assert answer.json["revision"] == number

    at_once(5, work)


def test_creating_is_won_by_one(shared_daemon: Daemon) -> None:
    for attempt in range(5):
        target, statuses = pair("first", str(attempt)), []

        def work(me: int, target: str = target, statuses: list[int] = statuses) -> None:
            guard = {"If-None-Match": "*"}
            statuses.append(shared_daemon.request("PUT", target, {"me": me}, guard).status)

        at_once(8, work)
        assert sorted(statuses) == [200] + [412] * 7


def test_deletes_and_sets_at_the_same_time(shared_daemon: Daemon) -> None:
    """A revision is never one that follows from both a deleted and a living bucket."""
    target, etags = pair("many", "deleted"), []

    def work(me: int) -> None:
        for number in range(20):
            if me == 0:
                answer = shared_daemon.request("DELETE", target)
                assert (answer.bucket, answer.json["revision"]) == ({}, 0)
                continue
            answer = shared_daemon.request("PATCH", target, {f"{me}-{number}": 1})
            assert len(answer.bucket) == answer.json["revision"]
            etags.append(answer.etag)

    at_once(5, work)
    assert len(set(etags)) == len(etags)


def test_readers_see_only_what_was_written_and_in_order(shared_daemon: Daemon) -> None:
    target, done = pair("many", "readers"), threading.Event()
    shared_daemon.request("PUT", target, {"a": 0, "b": 0})

    def write() -> None:
        with shared_daemon.connect() as sock:
            for number in range(1, 300):
                body = {"a": number, "b": number}
                assert shared_daemon.request("PATCH", target, body, sock=sock).status == 200
        done.set()

    def read() -> None:
        last, etag = 0, None
        with shared_daemon.connect() as sock:
            while not done.is_set():
                guard = {"If-None-Match": etag} if etag else {}
                answer = shared_daemon.request("GET", target, headers=guard, sock=sock)
                if answer.status == 304:
                    continue
                bucket, revision = answer.bucket, answer.json["revision"]
                assert bucket["a"] == bucket["b"] == revision - 1
                assert last < revision
                last, etag = revision, answer.etag

    at_once(5, lambda me: write() if me == 0 else read())


def test_a_read_after_an_answer_sees_it_on_any_connection(shared_daemon: Daemon) -> None:
    target = pair("many", "seen")
    with shared_daemon.connect() as writer, shared_daemon.connect() as reader:
        for number in range(1, 150):
            shared_daemon.request("PATCH", target, {"n": number}, sock=writer)
            seen = shared_daemon.request("GET", target, sock=reader)
            assert (seen.bucket, seen.json["revision"]) == ({"n": number}, number)


def test_writes_in_one_packet_are_applied_in_order(shared_daemon: Daemon) -> None:
    target = pair("many", "pipelined")
    with shared_daemon.connect() as sock:
        body = [json.dumps({"n": number}).encode() for number in range(20)]
        head = f"PATCH {target} HTTP/1.1\r\nHost: b\r\nContent-Length: "
        sock.sendall(b"".join(head.encode() + b"%d\r\n\r\n%s" % (len(b), b) for b in body))
        text = b""
        while text.count(b'"success":true') < 20:
            chunk = sock.recv(65536)
            assert chunk, text
            text += chunk
    seen = shared_daemon.request("GET", target)
    assert (seen.bucket, seen.json["revision"]) == ({"n": 19}, 20)
    order = [text.index(b'{"n":%d}' % number) for number in range(20)]
    assert order == sorted(order)


def test_large_changes_of_one_bucket_are_all_applied(daemon: Daemon) -> None:
    """Each is worked out beforehand, upon a state that others change meanwhile."""
    target, pad = pair("phone", "large"), "x" * 70_000

    def work(job: int) -> list[int]:
        with daemon.connect(60) as sock:
            answers = [
                daemon.request("PATCH", target, body, sock=sock)
                for n in range(5)
                for body in ({f"{job}": [n, pad]}, {f"{job}-{n}": n})
            ]
        assert {answer.status for answer in answers} == {200}
        return [answer.json["revision"] for answer in answers]

    with ThreadPoolExecutor(6) as pool:
        revisions = [r for found in pool.map(work, range(6)) for r in found]
    assert sorted(revisions) == list(range(1, 61))
    wanted: dict[str, object] = {f"{job}": [4, pad] for job in range(6)}
    wanted |= {f"{job}-{n}": n for job in range(6) for n in range(5)}
    assert daemon.request("GET", target).bucket == wanted


def test_a_guard_comes_before_what_a_large_change_comes_to(daemon: Daemon) -> None:
    target, large = pair("phone", "guarded"), {"pad": "x" * 900_000}
    old = daemon.request("PUT", target, large).etag
    now = daemon.request("PATCH", target, {"n": 1}).etag
    assert old is not None
    assert now is not None
    too_much = {"more": "x" * 900_000}
    assert daemon.request("PATCH", target, too_much, {"If-Match": old}).status == 412
    assert daemon.request("PATCH", target, too_much, {"If-Match": now}).status == 413
    same = daemon.request("PUT", target, {**large, "n": 1}, {"If-Match": now})
    assert (same.status, same.etag) == (200, now)


def test_slow_patches_of_one_bucket_do_not_hold_up_writes_of_others(daemon: Daemon) -> None:
    """Each takes over a second to work out: beside the loop, and never in the turn of others."""
    slow, other = pair("slow", "job"), pair("other", "job")
    daemon.request("PUT", slow, {"a": [1] * 300_000})
    moves = [{"op": "move", "from": "/a/0", "path": "/a/-"}] * 12_000
    kind = {"Content-Type": "application/json-patch+json"}
    text = [json.dumps([*moves, {"op": "add", "path": f"/k{n}", "value": n}]) for n in range(3)]
    took: list[float] = []
    started = time.monotonic()
    with ThreadPoolExecutor(3) as pool:
        patches = [pool.submit(patched, daemon, slow, one.encode(), kind) for one in text]
        while not all(patch.done() for patch in patches):
            began = time.monotonic()
            assert daemon.request("PATCH", other, {"n": began}).status == 200
            took.append(time.monotonic() - began)
            time.sleep(0.01)
    assert [patch.result() for patch in patches] == [200] * 3
    kept = daemon.request("GET", f"{slow}?key=k0&key=k1&key=k2").bucket
    assert kept == {"k0": 0, "k1": 1, "k2": 2}
    assert max(took) < (time.monotonic() - started) / 6  # one in its turn would take a third


def patched(daemon: Daemon, target: str, body: bytes, kind: dict[str, str]) -> int:
    with daemon.connect(120) as sock:
        return daemon.request("PATCH", target, body, kind, sock=sock).status


def test_a_peer_that_reads_nothing_is_answered_no_further(daemon: Daemon) -> None:
    """Not even one that sends its next request just when the one before has been read."""
    target = pair("unread", "job")
    daemon.request("PUT", target, {"pad": "x" * 1_000_000})
    request = encode_request("PATCH", target, {"n": 1}, close=False)
    with daemon.connect() as sock:
        for _ in range(2):
            assert daemon.request("PATCH", target, {"n": 1}, sock=sock).status == 200
        for _ in range(100):
            sock.sendall(request)
            until = time.monotonic() + 0.5
            while unread(sock) and time.monotonic() < until:
                time.sleep(0.001)
            if unread(sock):
                break
        resident = Path(f"/proc/{daemon.pid}/status").read_text().partition("VmRSS:")[2]
        assert int(resident.split()[0]) < 90 * 1024


def unread(sock: socket.socket) -> int:
    """Bytes that its other end has not taken yet."""
    found = array.array("i", [0])
    fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, found)
    return found[0]
