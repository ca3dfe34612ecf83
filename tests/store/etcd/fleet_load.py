"""Writers on several hosts, who note what was acknowledged, refused and left open."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from fleet import Cluster
from harness import Daemon, Response, pair

REFUSED = (503, 507)
WAIT_SECONDS = 60.0


@dataclass
class Figures:
    """Of one fault, all its rounds."""

    fault: str
    acknowledged: int = 0
    refused: int = 0
    unknown: int = 0
    lost: int = 0
    wrong: int = 0
    longest: float = 0.0
    faults: int = 0
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.fault}: {self.faults} times, {self.acknowledged} writes acknowledged, "
            f"{self.refused} requests refused, {self.unknown} writes with unknown outcome, "
            f"{self.lost} lost, {self.wrong} wrong, longest wait {self.longest:.2f} s"
        )


class Writer(threading.Thread):
    """One key after another into a bucket of its own; each is read again on the other host."""

    def __init__(self, host: Daemon, other: Daemon, path: str, over: threading.Event) -> None:
        super().__init__(daemon=True)
        self.host, self.other, self.path, self.over = host, other, path, over
        self.acknowledged: set[str] = set()
        self.unknown: set[str] = set()
        self.refused = 0
        self.longest = 0.0
        self.wrong: list[str] = []

    def run(self) -> None:
        number = 0
        while not self.over.is_set():
            number += 1
            self._write(f"k{number}")
            self._read()

    def _write(self, key: str) -> None:
        answer = self._timed(self.host, "PATCH", {key: key})
        if answer.status == 200:
            self.acknowledged.add(key)
            self._compare(answer)
        elif answer.status == 500 and b"the outcome is unknown" in answer.body:
            self.unknown.add(key)
        else:
            self._refusal(answer)

    def _read(self) -> None:
        answer = self._timed(self.other, "GET")
        if answer.status == 200:
            self._compare(answer)
        else:
            self._refusal(answer)

    def _timed(self, host: Daemon, method: str, body: Any = None) -> Response:
        began = time.monotonic()
        try:
            return host.request(method, self.path, body)
        finally:
            self.longest = max(self.longest, time.monotonic() - began)

    def _refusal(self, answer: Response) -> None:
        self.refused += 1
        told = answer.json
        by_etcd = answer.status == 500 and "it refuses this daemon" in told["error"]
        good = (by_etcd or answer.status in REFUSED) and told["error"].startswith("cannot ")
        if not good or (answer.status == 503 and not answer.headers.get("retry-after")):
            self.wrong.append(f"{answer.status} {told}")
        time.sleep(0.01)

    def _compare(self, answer: Response) -> None:
        """All that was acknowledged is there, and nothing that was refused."""
        found = set(answer.bucket)
        if not self.acknowledged <= found <= self.acknowledged | self.unknown:
            self.wrong.append(f"{self.path}: {self.difference(found)}")

    def difference(self, found: set[str]) -> str:
        missing = sorted(self.acknowledged - found)
        return json.dumps({"lost": missing, "refused": sorted(found - self.acknowledged)})


@contextlib.contextmanager
def hosts_of(etcd: Cluster, timeout: float, **settings: str) -> Iterator[list[Daemon]]:
    """Two daemons; each asks another node first."""
    urls = [node.url for node in etcd.nodes]
    with contextlib.ExitStack() as stack:
        found: list[Daemon] = []
        for first in range(2):
            host = etcd.host(BUCKETD_STORE_ETCD_TIMEOUT_SECONDS=f"{timeout:g}", **settings)
            stack.callback(host.remove)
            order = ",".join(urls[first:] + urls[:first])
            host.env["BUCKETD_STORE_ETCD_ENDPOINTS"] = order
            found.append(host.start())
        yield found


class Load:
    """Its writers, while they run."""

    def __init__(self, writers: list[Writer]) -> None:
        self.writers = writers

    def wait_for(self, what: Callable[[Writer], int], more: int) -> None:
        """Until every writer has so many more of something."""
        wanted = [what(writer) + more for writer in self.writers]
        deadline = time.monotonic() + WAIT_SECONDS
        while any(what(w) < n for w, n in zip(self.writers, wanted, strict=True)):
            assert time.monotonic() < deadline, "the writers do not get on"
            assert all(writer.is_alive() for writer in self.writers)
            time.sleep(0.01)

    def acknowledged(self, more: int) -> None:
        self.wait_for(lambda writer: len(writer.acknowledged), more)

    def refused(self, more: int) -> None:
        self.wait_for(lambda writer: writer.refused, more)


@contextlib.contextmanager
def load(hosts: list[Daemon], figures: Figures, writers: int = 2) -> Iterator[Load]:
    """So many writers for each host; at the end all is read again, and added to the figures."""
    over, running = threading.Event(), []
    for number in range(writers * len(hosts)):
        host, other = hosts[number % len(hosts)], hosts[(number + 1) % len(hosts)]
        path = pair(f"{figures.fault} {figures.faults}", f"writer {number}")
        running.append(Writer(host, other, path, over))
    for writer in running:
        writer.start()
    try:
        yield Load(running)
    finally:
        over.set()
        for writer in running:
            writer.join(WAIT_SECONDS)
    figures.faults += 1
    for writer in running:
        _judge(writer, figures)


def _judge(writer: Writer, figures: Figures) -> None:
    found = set(writer.other.request("GET", writer.path).bucket)
    figures.acknowledged += len(writer.acknowledged)
    figures.refused += writer.refused
    figures.unknown += len(writer.unknown)
    figures.longest = max(figures.longest, writer.longest)
    figures.lost += len(writer.acknowledged - found)
    wrong = list(writer.wrong)
    if found - writer.acknowledged - writer.unknown:
        wrong.append(f"{writer.path}: {writer.difference(found)}")
    figures.wrong += len(wrong)
    figures.notes += wrong
