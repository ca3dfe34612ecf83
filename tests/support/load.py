"""Writers that record the acknowledged values, to compare them with the stored ones."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

from harness import Daemon, pair

# The errors of a request that the daemon may not have read. The end of the stream is not among
# them: a daemon that stops cleanly has read the request, and has to respond.
GONE = (ConnectionResetError, BrokenPipeError, ConnectionRefusedError, FileNotFoundError)


@dataclass
class Writer:
    """Increment ``n`` of its own bucket, on one connection, until the daemon is gone."""

    daemon: Daemon
    job: str
    begun: int = 0
    acknowledged: int = 0
    revision: int = 0
    refused: int = 0
    trouble: list[BaseException] = field(default_factory=list)
    wanted: threading.Event = field(default_factory=threading.Event)

    @property
    def target(self) -> str:
        return pair("load", self.job)

    def run(self) -> None:
        try:
            with self.daemon.connect() as sock:
                while not self.wanted.is_set() and self._write(sock):
                    pass
        except GONE:
            pass
        except BaseException as error:
            self.trouble.append(error)

    def _write(self, sock: object) -> bool:
        self.begun = self.acknowledged + 1
        body = {"n": self.begun, "text": "x" * (self.begun * 37 % 3000)}
        answer = self.daemon.request("PUT", self.target, body, sock=sock)  # type: ignore[arg-type]
        if answer.status == 200:
            assert answer.json["revision"] > self.revision, answer
            self.acknowledged, self.revision = self.begun, answer.json["revision"]
            return True
        assert (answer.status, answer.json["code"]) == (503, "shutting_down"), answer
        assert answer.headers["connection"] == "close"
        assert "retry-after" in answer.headers
        self.refused += 1
        return False

    def read(self) -> tuple[int, int]:
        """Return the stored ``n`` and revision."""
        answer = self.daemon.request("GET", self.target)
        if answer.bucket:
            assert answer.bucket["text"] == "x" * (answer.bucket["n"] * 37 % 3000)
        return answer.bucket.get("n", 0), answer.json["revision"]


@contextlib.contextmanager
def load(writers: list[Writer], killed: bool = False) -> Iterator[None]:
    """Run writers during the block; ``killed``: SIGKILL ends the daemon, so responses may lack."""
    threads = [threading.Thread(target=writer.run, daemon=True) for writer in writers]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for writer in writers:
            writer.wanted.set()
        for thread in threads:
            thread.join(20)
    for writer in writers:
        if killed:
            writer.trouble = [e for e in writer.trouble if not isinstance(e, ConnectionError)]
        assert writer.trouble == [], writer.trouble
