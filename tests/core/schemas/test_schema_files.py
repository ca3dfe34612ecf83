"""Schema files: taken up when they change, and never a reason to stop checking."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import Daemon, encode_name, escape, pair

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


def test_a_removed_schema_is_told_as_removed(configured: Daemon) -> None:
    """Also where the file beside it, which has its long name, cannot be removed."""
    configured.start()
    name = "é" * 100
    target = f"/v1/schemas/{escape(name)}"
    assert configured.request("PUT", target, NUMBER).status == 200
    (beside,) = (configured.state_dir / "schemas").glob("*.name")
    beside.unlink()
    (beside / "in the way").mkdir(parents=True)
    assert configured.request("DELETE", target).status == 200
    assert configured.request("GET", target).status == 404
    assert "cannot remove the name of a removed schema" in configured.log


def alien_entries(place: Path) -> set[str]:
    """Put all kinds of things beside the schemas; return the names that cannot be schemas."""
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    texts = {
        "empty.json": b"",
        "garbage.json": b"\x00" * 4096,
        "text.json": b'"a text"',
        "bytes.json": b'{"fields": "\xff"}',
        "deep.json": b'{"not":' * 100_000,
        "huge.json": b'{"minimum": 1' + b"0" * 400 + b"}",
        "large.json": b'{"title": "' + b"x" * (4 << 20) + b'"}',
        "pattern.json": b'{"pattern": "("}',
        "lost-reference.json": b'{"$ref": "#/nowhere"}',
        "number%ZZ.json": b"7",
    }
    for name, text in texts.items():
        (place / name).write_bytes(text)
    (place / "directory.json").mkdir()
    (place / "loop.json").symlink_to("loop.json")
    (place / "device.json").symlink_to("/dev/null")
    os.mkfifo(place / "pipe.json")
    # What editors and file managers leave is nobody's schema.
    for name in (".hidden.json", "good.json~", "README", "cut~00.name"):
        (place / name).write_bytes(b"\xff")
    (place / ".directory").mkdir()
    return {*texts, "directory.json", "loop.json", "device.json", "pipe.json"}


@pytest.mark.parametrize("source", ["file", "api"])
def test_alien_entries_hurt_no_other_schema(
    configured: Daemon, schema_files: Path, source: str
) -> None:
    """Each is told by its path, the schemas beside it are in force, and new ones are taken up."""
    place = schema_files if source == "file" else configured.state_dir / "schemas"
    configured.state_dir.mkdir(mode=0o700)
    aliens = alien_entries(place)
    save(place / "login.json", NUMBER)
    configured.start()
    for _ in range(2):
        status = configured.request("GET", "/v1/status").json
        told = [entry["path"] for entry in status["schemas"]["problems"]]
        told += [name for name in status["problems"] for name in name.split(" ") if "/" in name]
        assert {os.path.basename(path.rstrip(":")) for path in told} == aliens
        assert put(configured, 1) == 200
        assert put(configured, "text") == 422
        listed = configured.request("GET", "/v1/schemas").json["schemas"]
        assert [row["automation"] for row in listed if row["problem"] is None] == ["login"]
        configured.restart()
    save(place / "login.json", TEXT)
    eventually(lambda: put(configured, "text") == 200)
    assert configured.request("PUT", "/v1/schemas/other", NUMBER).status == 200
    assert put(configured, "text", "other") == 422
    assert configured.request("DELETE", "/v1/schemas/other").status == 200
    assert "Traceback" not in configured.log


def test_a_directory_of_schemas_that_may_not_be_read_is_told(nobodys_daemon: Daemon) -> None:
    daemon = nobodys_daemon
    daemon.config.write_text("")
    place = daemon.home / "schemas"
    place.mkdir()
    save(place / "login.json", NUMBER)
    save(place / "secret.json", NUMBER)
    (place / "secret.json").chmod(0o000)
    daemon.start()
    assert put(daemon, "text") == 422
    assert put(daemon, "text", "secret") == 200
    (problem,) = problems(daemon)
    assert (problem["path"], problem["problem"]) == (
        str(place / "secret.json"),
        "Permission denied",
    )
    place.chmod(0o000)
    daemon.restart()
    told = daemon.request("GET", "/v1/status").json["problems"]
    assert told == [f"cannot read the schemas in {place}: Permission denied"]
    assert daemon.request("GET", "/v1/schemas").status == 200
    place.chmod(0o755)
    eventually(lambda: daemon.request("GET", "/v1/status").json["problems"] == [], 35)
    assert put(daemon, "text") == 422
