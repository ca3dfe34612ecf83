"""The journal says who made each change: by a token, by an operator, by retention, by an editor."""

from __future__ import annotations

import json
import os
import pwd
import time
from typing import Any

from external_edits import edit
from harness import Daemon, pair

from bucketd.store.file import records

USER = pwd.getpwuid(os.getuid()).pw_name


def journaled(daemon: Daemon) -> list[tuple[str | None, Any]]:
    """Return the job of each change in the journal and its author, in order."""
    found = []
    texts = [path.read_bytes() for path in sorted((daemon.state_dir / "journal").iterdir())]
    for generation, text in sorted((records.generation_of(text) or 0, text) for text in texts):
        if generation:
            for _, payload in records.payloads(text, generation, records.HEADER_BYTES):
                value = json.loads(payload)
                if "checkpoint" not in value:
                    found.append((value["job"], value.get("by")))
                    if "by" in value:
                        assert records.decode(payload).author.members() == value["by"]
    return found


def test_the_journal_says_who_made_each_change(stopped_daemon: Daemon) -> None:
    daemon = stopped_daemon
    daemon.start()
    body = {"device": "phone", "job": "login", "automation": "shop", "label": "run 7"}
    context = daemon.request("POST", "/v1/contexts", body).json
    by_token = {
        "user": USER,
        "context": context["id"],
        "device": "phone",
        "job": "login",
        "run": "run 7",
    }
    token = context["token"]
    large = {f"k{n}": "x" * 200 for n in range(100)}
    assert daemon.request("PUT", "/v1/bucket", large, token=token).status == 200
    assert daemon.request("PATCH", "/v1/bucket", {"n": 1}, token=token).status == 200
    assert daemon.request("PATCH", pair("phone", "login"), {"n": 2}).status == 200
    assert daemon.request("GET", "/v1/status").status == 200
    edit(daemon, lambda _bucket: {"edited": True}, "phone", "login")
    assert daemon.request("GET", pair("phone", "login")).json["revision"] == 4
    assert daemon.request("DELETE", "/v1/bucket", token=token).status == 200
    assert [by for job, by in journaled(daemon) if job == "login"] == [
        by_token,
        by_token,
        {"user": USER},
        {"edit": True},
        by_token,
    ]
    daemon.kill()
    daemon.start()
    assert daemon.request("GET", pair("phone", "login")).json["revision"] == 0


def test_retention_is_an_author(stopped_daemon: Daemon) -> None:
    daemon = stopped_daemon
    daemon.env["BUCKETD_RETENTION_INTERVAL_SECONDS"] = "0.05"
    daemon.env["BUCKETD_RETENTION_DAYS"] = "30"
    daemon.start()
    kept = "created_at=2020-01-01T00:00:00.000Z&updated_at=2020-01-01T00:00:00.000Z"
    assert daemon.request("PUT", f"{pair('d', 'old')}?{kept}", {"n": 1}).status == 200
    deadline = time.monotonic() + 20
    while daemon.request("GET", pair("d", "old")).json["revision"]:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert journaled(daemon) == [("old", {"user": USER}), ("old", {"retention": True})]
