"""Undo under concurrent writers, against a model: the revisions explain each answer exactly.

Revisions order all changes, so the model applies them in that order: a set sets its keys; an undo
is right if no change in force between its target and itself touched the keys of the target, and a
refused one if one did at some moment while it was being answered.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from harness import Daemon, pair

KEYS = "abcdef"
CHANGES = 10_000


@dataclass
class Done:
    """One answered request: what it did, the newest revision before it, and its own."""

    data: dict[str, int] | None
    target: int | None
    known: int
    revision: int
    status: int
    bucket: dict[str, Any] = field(default_factory=dict)


class Worker(threading.Thread):
    """Sets random keys, and takes random changes of the last ones back."""

    def __init__(self, server: Daemon, path: str, seed: int, count: int) -> None:
        super().__init__()
        self.server, self.path, self.count = server, path, count
        self.dice, self.done = random.Random(seed), list[Done]()

    def run(self) -> None:
        sock, newest = self.server.connect(), 1
        for _ in range(self.count):
            data, target = None, None
            if self.dice.random() < 0.6:
                keys = self.dice.sample(KEYS, self.dice.randrange(1, 3))
                # Few values, so that a key comes back to a value that it had.
                data = {key: self.dice.randrange(2) for key in keys}
                answer = self.server.request("PATCH", self.path, data, sock=sock)
            else:
                target = max(1, newest - self.dice.randrange(4))
                answer = self.server.request(
                    "POST", f"{self.path}/undo", {"revision": target}, sock=sock
                )
            made = Done(data, target, newest, 0, answer.status)
            if answer.status == 200:
                made.revision, made.bucket = answer.json["revision"], answer.bucket
                newest = made.revision
            self.done.append(made)
        sock.close()


def done_by_workers(daemon: Daemon, path: str, seed: int, count: int) -> list[Done]:
    """Let four workers write at once, and return what each request did."""
    workers = [Worker(daemon, path, 10 * seed + number, count) for number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return [one for worker in workers for one in worker.done]


def all_history(daemon: Daemon, path: str) -> list[dict[str, Any]]:
    """All pages of a history, the newest change first."""
    found, cursor = list[dict[str, Any]](), ""
    while True:
        page = daemon.request("GET", f"{path}/history?limit=1000{cursor}").json
        found += page["history"]
        if page["next_cursor"] is None:
            return found
        cursor = f"&cursor={page['next_cursor']}"


def touched_since(history: dict[int, Any], target: int, now: int) -> set[str]:
    """The keys that changes after ``target`` have touched and that were not taken back, by the
    definition: from the newest to the oldest.
    """
    taken, touched = set(), set()
    for revision in range(now, target, -1):
        entry = history[revision]
        if revision in taken:
            continue
        undoes = entry.get("undoes")
        if undoes is not None:
            taken.add(undoes)
            if undoes > target:
                continue
        touched |= {*entry["set"], *entry["removed"]}
    return touched


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.timeout(3600)
def test_undo_under_concurrent_writers(
    keeping: Callable[[int], Daemon], engine: str, seed: int
) -> None:
    daemon, is_exact = keeping(10_000), engine == "file"
    path = pair("phone", f"undo-{seed}")
    daemon.request("PUT", path, {"base": 0})
    count = int(60 * max(1.0, 10 * float(os.environ.get("CRASH_SCALE", "0.02"))))
    done = done_by_workers(daemon, path, seed, count)
    newest = max(one.revision for one in done)
    told = {entry["revision"]: entry for entry in all_history(daemon, path)}
    assert [*told] == [*range(newest, 0, -1)]
    undone = refused = 0
    states: dict[int, dict[str, Any]] = {1: {"base": 0}}
    entries: dict[int, dict[str, Any]] = {1: {"set": ["base"], "removed": []}}

    def applied(one: Done, now: int) -> dict[str, Any] | None:
        """Return the state that the request leads to; None if it has to be refused."""
        state = states[now]
        if one.data is not None:
            return {**state, **one.data}
        target = one.target or 0
        keys = {*entries[target]["set"], *entries[target]["removed"]}
        # On etcd a value that is set and set back while the undo is under way counts as untouched.
        earliest = now if is_exact else min(now, max(target, one.known))
        if target > now or not any(
            not keys & touched_since(entries, target, at)
            and all(states[at].get(key) == state.get(key) for key in keys)
            for at in range(earliest, now + 1)
        ):
            return None
        old = states[target - 1] if target > 1 else {}
        kept = {key: value for key, value in state.items() if key not in keys}
        return kept | {key: old[key] for key in keys if key in old}

    for revision in range(2, newest + 1):
        before = states[revision - 1]
        of_this = [one for one in done if one.revision == revision]
        after, undoes = of_this[0].bucket, told[revision].get("undoes")
        maker = next(
            one
            for one in of_this
            if one.target == undoes and applied(one, revision - 1) == after != before
        )
        states[revision] = after
        changed = {key for key in {*before, *after} if before.get(key) != after.get(key)}
        entries[revision] = {
            "set": [key for key in changed if key in after],
            "removed": [key for key in changed if key not in after],
            "undoes": maker.target,
        }
        assert {*told[revision]["set"]} == {*entries[revision]["set"]}
        undone += maker.target is not None
        for one in of_this:
            # All others have changed nothing.
            assert one is maker or applied(one, revision) == after, (revision, one)
            assert one.bucket == after
    for one in done:
        if one.status == 409 and one.target is not None and one.target <= newest:
            keys = {*entries[one.target]["set"], *entries[one.target]["removed"]}
            moments = range(max(one.known, one.target), newest + 1)
            assert any(keys & touched_since(entries, one.target, now) for now in moments), one
            refused += 1
        assert one.status in (200, 404, 409, 410), one
    print(f"{newest} revisions, {undone} undone, {refused} refused")
    assert undone > 5
    assert refused > 5


@pytest.mark.timeout(3600)
def test_many_random_changes_undone_one_by_one(stopped_daemon: Daemon) -> None:
    """Through the daemon, with a restart in between; the long form has 10,000 of them."""
    scale = min(1.0, float(os.environ.get("CRASH_SCALE", "0.02")))
    count = max(100, int(CHANGES * scale))
    daemon, dice = stopped_daemon, random.Random(25)
    daemon.env |= {
        "BUCKETD_HISTORY_REVISIONS": f"{2 * count + 10}",
        "BUCKETD_HISTORY_BYTES": f"{2000 * count}",
    }
    daemon.start()
    path, bodies = pair("phone", "many"), list[bytes]()
    first = daemon.request("PUT", path, {"first": {"b": 1, "a": [2.5, "x"]}, "n": 1})
    bodies.append(first.body.partition(b',"revision"')[0])
    with daemon.connect() as sock:
        while len(bodies) <= count:
            data = {f"k{n}": dice.choice([0, 1.5, None, "ü", [1, {}]]) for n in range(12)}
            keys = dice.sample([*data], dice.randrange(1, 4))
            match dice.randrange(4):
                case 0:
                    body = {key: data[key] for key in dice.sample([*data], 6)}
                    answer = daemon.request("PUT", path, body, sock=sock)
                case 1:
                    query = "&".join(f"key={key}" for key in keys)
                    answer = daemon.request("DELETE", f"{path}?{query}", sock=sock)
                case _:
                    body = {key: data[key] for key in keys}
                    answer = daemon.request("PATCH", path, body, sock=sock)
            if answer.json["revision"] == len(bodies) + 1:
                bodies.append(answer.body.partition(b',"revision"')[0])
    daemon.restart()
    with daemon.connect() as sock:
        for number in range(count + 1, 1, -1):
            body = {"revision": number}
            answer = daemon.request("POST", f"{path}/undo", body, sock=sock)
            assert answer.status == 200, answer
            assert answer.body.partition(b',"revision"')[0] == bodies[number - 2]
    assert daemon.request("GET", path).bucket == first.bucket
