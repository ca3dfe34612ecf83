"""Writers that note what was acknowledged, so that what is found afterwards can be judged."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

from harness import Daemon, pair

# What a request may meet that was never read. The end of the stream after a whole request is
# something else: a daemon that stops in an orderly way has read that one, and owes an answer.
GONE = (ConnectionResetError, BrokenPipeError, ConnectionRefusedError, FileNotFoundError)


@dataclass
class Writer:
    """Counts ``n`` of its own bucket up, on one kept connection, until the daemon is gone."""

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

    def look(self) -> tuple[int, int]:
        """``n`` and revision as the daemon has them now."""
        answer = self.daemon.request("GET", self.target)
        if answer.bucket:
            assert answer.bucket["text"] == "x" * (answer.bucket["n"] * 37 % 3000)
        return answer.bucket.get("n", 0), answer.json["revision"]


@contextlib.contextmanager
def load(writers: list[Writer], killed: bool = False) -> Iterator[None]:
    """All of them at once; the block ends them. ``killed``: by SIGKILL, which owes no answer."""
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
