"""A model of the daemon's buckets: the expected responses, and the expected files."""

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
    """Report whether two values have the same JSON: 1 and True are equal in Python only."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


@dataclass
class Stored:
    """The expected state of one bucket; None with revision 0 and no ETag if none is stored."""

    bucket: Bucket | None = None
    revision: int = 0
    # None also until a response has shown the ETag.
    etag: str | None = None
    # All ETags of the bucket so far.
    used: set[str] = field(default_factory=set)
    # Another program has edited the file, and no request has been sent since.
    edited: bool = False
    # A response has shown that edit, but the file may not have its revision yet.
    behind: bool = False


@dataclass
class Model:
    """The expected states of all buckets of one daemon."""

    daemon: Daemon
    stored: dict[Name, Stored] = field(default_factory=lambda: {name: Stored() for name in NAMES})
    # Buckets whose files were unlinked by hand, which the daemon may not have noticed yet.
    unlinked: set[Name] = field(default_factory=set)

    def ask(
        self, method: str, name: Name, body: Any = None, query: str = "", **more: Any
    ) -> Response:
        return self.daemon.request(method, pair(*name) + query, body, **more)

    # --- the expected responses

    def read(self, name: Name, response: Response | None = None) -> None:
        """Check a read, by GET or by the given response."""
        self._notice_edit(name)
        self._agree(name, response or self.ask("GET", name))

    def changed(self, name: Name, response: Response, after: Bucket | None) -> None:
        """Check a change: a new revision and ETag, or none if the value is unchanged."""
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
        """Check a refusal: nothing has changed; a failed precondition shows the revision."""
        assert (response.status, response.json["code"]) == (status, code), response
        assert response.json["success"] is False
        assert response.json["error"]
        # For these two the daemon has read the bucket.
        if status in (409, 412):
            self._notice_edit(name)
        if status == 412:
            assert response.json["revision"] == self.stored[name].revision

    def _notice_edit(self, name: Name) -> None:
        """Count an edit by another program as a revision, from the next request on."""
        now = self.stored[name]
        if now.edited:
            now.revision, now.etag, now.edited, now.behind = now.revision + 1, None, False, True

    def _agree(self, name: Name, response: Response) -> None:
        now = self.stored[name]
        assert response.status == 200, response
        label = "deviceBucket" if name[1] is None else "bucket"
        wanted = {"success": True, label: now.bucket or {}, "revision": now.revision}
        # A deletion says where in the trash the bucket is.
        told = {member: value for member, value in response.json.items() if member != "trash"}
        assert same(told, wanted), (name, response, wanted)
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
        """Read each unlinked bucket and change it, so that its removal is durable as well."""
        for name in self.unlinked:
            self.read(name)
            self.changed(name, self.ask("PATCH", name, {}), self.stored[name].bucket)
        self.unlinked.clear()

    def create(self, name: Name, bucket: Bucket) -> None:
        """Create a bucket file by hand; the first response determines its revision."""
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
        """Wait until the file has the revision of an edit that a response has shown."""
        now, deadline = self.stored[name], time.monotonic() + ADOPTED_WITHIN
        while now.behind:
            self.read(name)
            now.behind = self._revision_on_disk(name) != now.revision
            assert time.monotonic() < deadline, f"the edit of {name} is not ingested"

    def _revision_on_disk(self, name: Name) -> int:
        with write_lock(self.daemon):
            return int(json.loads(self.daemon.bucket_path(*name).read_bytes())["revision"])

    # --- the expected files

    def check_files(self) -> None:
        """Check under the lock that every file has the newest state, and no other file exists."""
        root, expected = self.daemon.state_dir, set()
        with write_lock(self.daemon):
            for name, now in self.stored.items():
                if now.bucket is not None:
                    expected.add(self._check_file(name, now))
            found = {path for path in root.rglob("*") if not path.is_dir()}
        others = {str(path.relative_to(root)) for path in found - expected}
        # A write in progress, or a kill, leaves temporary files, whose names begin with a dot.
        rest = {path for path in others if not re.fullmatch(r"(.*/)?\.[^/]*\.tmp", path)}
        own = ("journal/", "history/", "trash/")
        assert {path for path in rest if not path.startswith(own)} <= STATE_FILES
        assert expected <= found

    def _check_file(self, name: Name, now: Stored) -> Path:
        path = self.daemon.bucket_path(*name)
        document = json.loads(path.read_bytes())
        assert (document["device"], document["job"]) == name
        assert same(document["bucket"], now.bucket), (name, document, now)
        # An edit by hand may leave the revision in the file unchanged.
        assert document["revision"] in {now.revision, now.revision - now.behind}, (name, now)
        return path
