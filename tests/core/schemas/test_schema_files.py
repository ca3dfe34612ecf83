"""Schema files: taken up when they change, and never a reason to stop checking."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness import Daemon, encode_name, pair

NUMBER = {"fields": [{"name": "n", "type": "number"}]}
TEXT = {"type": "object", "properties": {"n": {"type": "string"}}}


def save(path: Path, document: Any) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_text(document if isinstance(document, str) else json.dumps(document))
    fresh.rename(path)


def put(daemon: Daemon, value: Any, automation: str = "login") -> int:
    return daemon.request("PUT", pair("d", "j") + f"?automation={automation}", {"n": value}).status


def eventually(condition: Callable[[], bool], seconds: float = 1.0) -> None:
    """A change is in force within a second (and a bit, for a machine that is busy)."""
    deadline = time.monotonic() + seconds + 2
    while not condition():
        assert time.monotonic() < deadline, "it did not come into force"
        time.sleep(0.02)


def problems(daemon: Daemon) -> Any:
    return daemon.request("GET", "/v1/status").json["schemas"]["problems"]


def test_a_file_is_in_force_from_the_start(configured: Daemon, schema_files: Path) -> None:
    save(schema_files / "login.json", NUMBER)
    configured.start()
    assert [put(configured, 1), put(configured, "x")] == [200, 422]


def test_changes_come_into_force_without_a_restart(configured: Daemon, schema_files: Path) -> None:
    configured.start()
    assert put(configured, "x") == 200
    save(schema_files / "login.json", NUMBER)
    eventually(lambda: put(configured, "x") == 422)
    save(schema_files / "login.json", TEXT)
    eventually(lambda: put(configured, "x") == 200)
    assert put(configured, 1) == 422
    (schema_files / "login.json").unlink()
    eventually(lambda: put(configured, 1) == 200)


def test_a_directory_that_is_made_later(configured: Daemon) -> None:
    configured.start()
    (configured.home / "schemas").mkdir()
    save(configured.home / "schemas" / "login.json", NUMBER)
    eventually(lambda: put(configured, "x") == 422)


def test_the_last_good_one_stays_in_force(configured: Daemon, schema_files: Path) -> None:
    save(schema_files / "login.json", NUMBER)
    configured.start()
    save(schema_files / "login.json", json.dumps(NUMBER)[:-9])
    eventually(lambda: bool(problems(configured)))
    [problem] = problems(configured)
    assert problem["path"] == str(schema_files / "login.json")
    assert "not valid JSON" in problem["problem"]
    assert str(schema_files / "login.json") in configured.log
    assert put(configured, "x") == 422
    for end in (configured.stop, configured.kill):
        end()  # also when an operator breaks it and the machine starts again
        configured.start()
        assert put(configured, "x") == 422
    save(schema_files / "login.json", TEXT)
    eventually(lambda: put(configured, "x") == 200)
    assert problems(configured) == []


def test_a_file_that_was_never_good(configured: Daemon, schema_files: Path) -> None:
    save(schema_files / "login.json", {"type": "strin"})
    configured.start()
    assert "/type" in problems(configured)[0]["problem"]
    assert put(configured, "x") == 200
    [row] = configured.request("GET", "/v1/schemas").json["schemas"]
    assert (row["automation"], row["form"]) == ("login", None)


def test_replaced_while_it_is_read(configured: Daemon, schema_files: Path) -> None:
    """Never half of one: what is in force is one of the two, all the time."""
    path = schema_files / "login.json"
    save(path, {**TEXT, "description": "x" * 300_000})
    configured.start()
    for number in range(60):
        save(path, {**TEXT, "description": "x" * (300_000 + number)})
        assert put(configured, 1) == 422
    assert problems(configured) == []


def test_the_api_wins_over_a_file(configured: Daemon, schema_files: Path) -> None:
    save(schema_files / "login.json", NUMBER)
    configured.start()
    assert configured.request("PUT", "/v1/schemas/login", TEXT).status == 200
    assert [put(configured, "x"), put(configured, 1)] == [200, 422]
    assert configured.request("GET", "/v1/schemas/login").json["source"] == "api"
    assert configured.request("DELETE", "/v1/schemas/login").status == 200
    assert [put(configured, 1), put(configured, "x")] == [200, 422]
    answer = configured.request("DELETE", "/v1/schemas/login")
    assert (answer.status, answer.json["code"]) == (404, "not_found")
    assert str(schema_files / "login.json") in answer.json["error"]


def test_plain_and_encoded_file_names(configured: Daemon, schema_files: Path) -> None:
    save(schema_files / "my job.json", NUMBER)
    save(schema_files / "a%2Fb.json", NUMBER)
    save(schema_files / ".hidden.json", NUMBER)
    configured.start()
    names = [s["automation"] for s in configured.request("GET", "/v1/schemas").json["schemas"]]
    assert names == ["a/b", "my job"]


def test_names_never_leave_the_directory(configured: Daemon) -> None:
    configured.start()
    names = ["..", "../../x", "/etc/x", "a/b", "é" * 128, "\U0001f600" * 128, "%2e%2e"]
    for name in names:
        target = "/v1/schemas/" + "".join(f"%{b:02X}" for b in name.encode())
        assert configured.request("PUT", target, NUMBER).status == 200, name
        assert configured.request("GET", target).json["automation"] == name
        assert (configured.state_dir / "schemas" / f"{encode_name(name)}.json").is_file()
    for _ in range(2):
        rows = configured.request("GET", "/v1/schemas").json["schemas"]
        assert sorted(row["automation"] for row in rows) == sorted(names)
        configured.restart()
    outside = [p for p in configured.home.rglob("*.json") if configured.state_dir not in p.parents]
    assert outside == []
    assert os.stat(configured.state_dir / "schemas").st_mode & 0o077 == 0
