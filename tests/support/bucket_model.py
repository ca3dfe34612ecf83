"""Buckets as a dictionary: what the daemon has to answer, and what has to stand in its files."""

from __future__ import annotations

import copy
import json
import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from external_edits import edit, replace_file, write_lock, written
from harness import Daemon, Response, pair

Bucket = dict[str, Any]
Name = tuple[str, str | None]
NAMES: list[Name] = [
    *(("phone/1", "log in"), ("phone/1", "..")),
    *(("tablet", "log in"), ("tablet", "..")),
    *(("phone/1", None), ("tablet", None)),
]
STATE_FILES = {"write.lock", "daemon.lock", "clock.json"}
ADOPTED_WITHIN = 3.0


def same(one: Any, other: Any) -> bool:
    """As JSON: Python takes 1 for True, the daemon must not."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


@dataclass
class Stored:
    """One bucket: None with revision 0 and no ETag where nothing is stored."""

    bucket: Bucket | None = None
    revision: int = 0
    etag: str | None = None  # None also as long as no answer has told it
    used: set[str] = field(default_factory=set)  # every ETag that it ever had
    edited: bool = False  # by somebody else, and the daemon was not asked since
    behind: bool = False  # that edit was told of, but may not have its revision in the file yet


@dataclass
class Model:
    """All buckets of one daemon, each as it has to be."""

    daemon: Daemon
    stored: dict[Name, Stored] = field(default_factory=lambda: {name: Stored() for name in NAMES})
    unlinked: set[Name] = field(default_factory=set)  # by hand, and the daemon may not know yet

    def ask(
        self, method: str, name: Name, body: Any = None, query: str = "", **more: Any
    ) -> Response:
        return self.daemon.request(method, pair(*name) + query, body, **more)

    # --- what must be answered

    def read(self, name: Name, response: Response | None = None) -> None:
        """A GET, of this or some other face of the API."""
        self._notice_edit(name)
        self._agree(name, response or self.ask("GET", name))

    def changed(self, name: Name, response: Response, after: Bucket | None) -> None:
        """One more revision and a new ETag if that changed something, else nothing at all."""
        self._notice_edit(name)
        now = self.stored[name]
        if after is None:
            now.bucket, now.revision, now.etag = None, 0, None
        elif now.bucket is None or not same(after, now.bucket):
            now.bucket, now.etag = copy.deepcopy(after), None
            now.revision += 1
        self._agree(name, response)
        now.behind = False

    def refused(self, name: Name, response: Response, status: int, code: str) -> None:
        """Nothing has changed; a failed guard tells what is there."""
        assert (response.status, response.json["code"]) == (status, code), response
        assert response.json["success"] is False
        assert response.json["error"]
        if status in (409, 412):  # the daemon has looked at what is stored
            self._notice_edit(name)
        if status == 412:
            assert response.json["revision"] == self.stored[name].revision

    def _notice_edit(self, name: Name) -> None:
        """An edit by somebody else is one more revision from when the daemon is asked."""
        now = self.stored[name]
        if now.edited:
            now.revision, now.etag, now.edited, now.behind = now.revision + 1, None, False, True

    def _agree(self, name: Name, response: Response) -> None:
        now = self.stored[name]
        assert response.status == 200, response
        label = "deviceBucket" if name[1] is None else "bucket"
        wanted = {"success": True, label: now.bucket or {}, "revision": now.revision}
        assert same(response.json, wanted), (name, response, wanted)
        if now.etag is None and now.bucket is not None:
            assert response.etag is not None
            assert response.etag not in now.used, f"the ETag of {name} came back"
            now.etag = response.etag
            now.used.add(response.etag)
        assert response.etag == now.etag, name

    # --- another program, which holds the lock

    def edit(self, name: Name, bucket: Bucket) -> None:
        self.wait_for_adoption(name)
        now = self.stored[name]
        if not same(now.bucket, bucket):
            edit(self.daemon, lambda _: bucket, *name)
            now.bucket, now.edited = copy.deepcopy(bucket), True

    def unlink(self, name: Name) -> None:
        with write_lock(self.daemon):
            self.daemon.bucket_path(*name).unlink()
        self.stored[name] = Stored(used=self.stored[name].used)
        self.unlinked.add(name)

    def see_removals(self) -> None:
        """Have the daemon told of each, and the next change of anything durable after it."""
        for name in self.unlinked:
            self.read(name)
            self.changed(name, self.ask("PATCH", name, {}), self.stored[name].bucket)
        self.unlinked.clear()

    def create(self, name: Name, bucket: Bucket) -> None:
        """A new file; it may begin at any revision, so that of the first answer counts."""
        path, now = self.daemon.bucket_path(*name), self.stored[name]
        with write_lock(self.daemon):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            replace_file(path, written(*name, bucket, revision=1))
        now.bucket, now.revision = copy.deepcopy(bucket), self.ask("GET", name).json["revision"]
        assert now.revision >= 1
        now.behind = True
        self.read(name)
        self.wait_for_adoption(name)

    def wait_for_adoption(self, name: Name) -> None:
        """An edit that was told of gets its revision into the file before long."""
        now, deadline = self.stored[name], time.monotonic() + ADOPTED_WITHIN
        while now.behind:
            self.read(name)
            now.behind = self._revision_on_disk(name) != now.revision
            assert time.monotonic() < deadline, f"the edit of {name} is not taken over"

    def _revision_on_disk(self, name: Name) -> int:
        with write_lock(self.daemon):
            return int(json.loads(self.daemon.bucket_path(*name).read_bytes())["revision"])

    # --- what must stand on disk

    def check_files(self) -> None:
        """Under the lock every file is the newest state, and there is no other file."""
        root, expected = self.daemon.state_dir, set()
        with write_lock(self.daemon):
            for name, now in self.stored.items():
                if now.bucket is not None:
                    expected.add(self._check_file(name, now))
            found = {path for path in root.rglob("*") if not path.is_dir()}
        others = {str(path.relative_to(root)) for path in found - expected}
        # What is being written, or a kill has left, is hidden, and named in no other way.
        rest = {path for path in others if not re.fullmatch(r"(.*/)?\.[^/]*\.tmp", path)}
        assert {path for path in rest if not path.startswith("journal/")} <= STATE_FILES
        assert expected <= found

    def _check_file(self, name: Name, now: Stored) -> Path:
        path = self.daemon.bucket_path(*name)
        document = json.loads(path.read_bytes())
        assert (document["device"], document["job"]) == name
        assert same(document["bucket"], now.bucket), (name, document, now)
        # Somebody who edits a file need not touch the revision in it.
        assert document["revision"] in {now.revision, now.revision - now.behind}, (name, now)
        return path
