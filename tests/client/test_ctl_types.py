"""``bucketctl types`` as a command: its files, its checks, its watch, and what it says."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from harness import Daemon
from type_checkers import PYTHON, bucketctl_types

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"loggedIn": {"type": "boolean"}, "at": {"type": "number"}},
    "required": ["loggedIn"],
}
LANGUAGES = ("python", "typescript")


def put(daemon: Daemon, schema: Any, automation: str = "login") -> None:
    response = daemon.request("PUT", f"/v1/schemas/{automation}?force=true", schema)
    assert response.status == 200, response


def types_of(daemon: Daemon, schema: Any, language: str) -> tuple[str, str]:
    """Return the types of a schema, without their first comment, and what is said about it."""
    put(daemon, schema)
    done = bucketctl_types(daemon, "login", "--lang", language)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


# --- one file


def test_needs_nothing_but_python(shared_daemon: Daemon, tmp_path: Path) -> None:
    """No other package and no program is there: neither on PATH, nor beside this Python."""
    put(shared_daemon, SCHEMA)
    command = [sys.executable, "-I", "-S", "-c", "import sys; sys.path.insert(0, sys.argv.pop(1)); "
               "from bucketd_client.ctl import main; sys.exit(main())", str(PYTHON)]  # fmt: skip
    for language in LANGUAGES:
        done = subprocess.run(
            [*command, "types", "login", "--lang", language], cwd=tmp_path,
            env={"BUCKETD_SOCKET": shared_daemon.socket, "PATH": str(tmp_path)},
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "LoginBucket" in done.stdout


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_file_names_the_schema(shared_daemon: Daemon, language: str) -> None:
    """Equal schemas have equal hashes; what is stored in another order is equal."""
    hashes = []
    swapped = {**SCHEMA, "properties": dict(reversed(SCHEMA["properties"].items()))}
    for schema in (SCHEMA, swapped, {**SCHEMA, "required": []}):
        text, _ = types_of(shared_daemon, schema, language)
        first, second = text.splitlines()[:2]
        assert f"bucketctl types login --lang {language}" in first
        hashes += re.findall(r"^(?:#|//) Schema: sha256 ([0-9a-f]{16})$", second)
    assert len(hashes) == 3
    assert hashes[0] == hashes[1] != hashes[2]


@pytest.mark.parametrize("language", LANGUAGES)
def test_check(shared_daemon: Daemon, tmp_path: Path, language: str) -> None:
    put(shared_daemon, SCHEMA)
    target = tmp_path / "types"
    words = ("login", "--lang", language)
    assert bucketctl_types(shared_daemon, *words, "--output", str(target)).returncode == 0
    before = target.read_bytes()
    done = bucketctl_types(shared_daemon, *words, "--check", str(target))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    put(shared_daemon, {**SCHEMA, "required": []})
    done = bucketctl_types(shared_daemon, *words, "--check", str(target))
    assert done.returncode == 1
    assert re.search(r"out of date: it is of schema [0-9a-f]{16}, now it is [0-9a-f]", done.stderr)
    assert target.read_bytes() == before
    put(shared_daemon, SCHEMA)
    target.write_bytes(before + b"\n")
    done = bucketctl_types(shared_daemon, *words, "--check", str(target))
    assert (done.returncode, "it was edited" in done.stderr) == (1, True)
    done = bucketctl_types(shared_daemon, *words, "--check", str(tmp_path / "missing"))
    assert (done.returncode, "cannot read" in done.stderr) == (2, True)


def test_the_output_keeps_its_link_and_its_mode(shared_daemon: Daemon, tmp_path: Path) -> None:
    put(shared_daemon, SCHEMA)
    target, link = tmp_path / "types.py", tmp_path / "link.py"
    target.write_text("old")
    target.chmod(0o640)
    link.symlink_to(target.name)
    assert bucketctl_types(
        shared_daemon, "login", "--lang", "python", "--output", str(link)
    ).returncode == 0  # fmt: skip
    assert link.is_symlink()
    assert "LoginBucket" in target.read_text()
    assert target.stat().st_mode & 0o777 == 0o640
    assert sorted(each.name for each in tmp_path.iterdir()) == ["link.py", "types.py"]


def test_an_output_that_cannot_be_written(shared_daemon: Daemon, tmp_path: Path) -> None:
    put(shared_daemon, SCHEMA)
    target = str(tmp_path / "no" / "types.py")
    done = bucketctl_types(shared_daemon, "login", "--lang", "python", "--output", target)
    assert (done.returncode, "No such file" in done.stderr) == (1, True)


def test_usage(shared_daemon: Daemon) -> None:
    assert bucketctl_types(shared_daemon, "none", "--lang", "python").returncode == 1
    for words in (
        (), ("--lang", "cobol"), ("--lang", "python", "--watch"),
        ("--lang", "python", "--check", "a", "--output", "b"),
        ("--lang", "python", "--check", "a", "--watch"),
    ):  # fmt: skip
        done = bucketctl_types(shared_daemon, "login", *words)
        assert (done.returncode, done.stdout) == (2, ""), words


# --- what is in it


def both(daemon: Daemon, schema: Any) -> tuple[str, str]:
    python, _ = types_of(daemon, schema, "python")
    typescript, _ = types_of(daemon, schema, "typescript")
    return python, typescript


def test_references(shared_daemon: Daemon) -> None:
    """By pointer, anchor and $id, to definitions that refer to themselves, and at the root."""
    schema = {
        "$id": "https://example.com/login",
        "$ref": "#/$defs/A~1%20b",
        "$defs": {
            "A/ b": {
                "properties": {
                    "next": {"$ref": "#/$defs/A~1%20b"},
                    "by-anchor": {"$ref": "#there"},
                    "by-id": {"$ref": "other"},
                    "whole": {"$ref": "https://example.com/login#"},
                    "class": {"$ref": "#/$defs/class"},
                }
            },
            "anchored": {"$anchor": "there", "type": "string"},
            "other": {"$id": "other", "type": "array", "items": {"$ref": "#/$defs/item"},
                      "$defs": {"item": {"type": "integer"}}},
            "class": {"type": "object", "required": ["a"]},
        },
    }  # fmt: skip
    python, typescript = both(shared_daemon, schema)
    assert "next?: AB;" in typescript
    assert '"by-anchor"?: Anchored;' in typescript
    assert "export type Anchored = string;" in typescript
    assert "export type Other = Item[];" in typescript
    assert "whole?: LoginBucket;" in typescript
    assert "\"next\": 'NotRequired[AB]'" in python
    assert "Class: TypeAlias = 'dict[str, Any]'" in python


def test_combinations(shared_daemon: Daemon) -> None:
    schema = {
        "type": "object",
        "properties": {
            "all": {"allOf": [{"properties": {"a": {"type": "string"}}}, {"required": ["a"]}]},
            "narrow": {"type": "string", "enum": ["a", 1]},
            "extended": {"$ref": "#/$defs/base", "properties": {"b": {"const": 2}}},
            "nested": {"type": ["object", "null"], "properties": {"a": {"enum": [None, "x"]}}},
            "choice": {"type": "object", "properties": {"kind": {"enum": ["a", "b"]}},
                       "if": {"properties": {"kind": {"const": "a"}}, "required": ["kind"]},
                       "then": {"required": ["x"], "properties": {"x": {"type": "string"}}}},
        },
        "$defs": {"base": {"type": "object", "properties": {"a": {"type": "integer"}}}},
        "anyOf": [{"required": ["all"]}, {"required": ["narrow", "all"]}],
        "dependentSchemas": {"all": {"properties": {"later": {"type": "integer"}}}},
    }  # fmt: skip
    _, typescript = both(shared_daemon, schema)
    flat = " ".join(typescript.split())
    assert "all: { a: string; };" in flat
    assert "later?: number;" in flat
    assert 'narrow?: "a";' in flat
    assert "extended?: { b?: 2; a?: number; };" in flat
    assert 'nested?: { a?: null | "x"; } | null;' in flat
    assert 'choice?: { kind: "a"; x: string; } | { kind?: "a" | "b"; };' in flat


def test_what_a_type_cannot_express_is_said(shared_daemon: Daemon) -> None:
    schema = {
        "type": "object",
        "properties": {
            "a": {"not": {"type": "string"}},
            "b": {"$dynamicRef": "#x"},
            "c": {"type": "object", "properties": {"d": {}}, "additionalProperties": True},
            "toString": {"type": "string"},
            "open": {"type": "object", "properties": {"e": {"type": "string"}},
                     "unevaluatedProperties": {"type": "integer"}},
        },
        "$defs": {"x": {"$dynamicAnchor": "x"}},
    }  # fmt: skip
    python, said = types_of(shared_daemon, schema, "python")
    assert "a: NotRequired[Any]" in python
    for expected in ("not at #/properties/a", r"\$dynamicRef at #/properties/b"):
        assert re.search(expected, said), said
    schema["properties"]["c"]["properties"]["d"] = {"type": "string"}  # type: ignore[index]
    _, said = types_of(shared_daemon, schema, "python")
    assert "additionalProperties at #/properties/c (of LoginBucketC)" in said
    assert "unevaluatedProperties at #/properties/open (of LoginBucketOpen)" in said
    typescript, said = types_of(shared_daemon, schema, "typescript")
    assert "a?: unknown;" in typescript
    assert "toString?: unknown;" in typescript
    assert "[key: string]: number | string | undefined;" in typescript
    assert "additionalProperties" not in said


@pytest.mark.parametrize(
    "schema", [True, {}, {"type": "string"}, {"enum": [{"a": 1}, {"b": None}]}]
)
def test_roots_without_properties(shared_daemon: Daemon, schema: Any) -> None:
    if shared_daemon.request("PUT", "/v1/schemas/login", schema).status == 200:
        assert all("LoginBucket" in text for text in both(shared_daemon, schema))


def test_comments(shared_daemon: Daemon) -> None:
    note = 'one */ two\n"""three"""\\'
    schema = {
        "type": "object",
        "description": note,
        "properties": {
            "at": {"type": "string", "format": "date-time", "description": "when", "default": "x"},
            "key": {"type": "string", "writeOnly": True, "default": "s3cr3t", "deprecated": True},
        },
    }
    python, typescript = both(shared_daemon, schema)
    compile(python, "generated", "exec")
    assert '    """one */ two\n    \\"\\"\\"three\\"\\"\\"\\\\\n    """' in python
    assert '    at: NotRequired[str]\n    """when\n    Format: date-time\n' in python
    assert '/**\n * one *\\/ two\n * """three"""\\\n */' in typescript
    assert '@default "x"' in typescript
    assert "/** @deprecated */" in typescript
    assert "s3cr3t" not in python + typescript


@pytest.mark.parametrize(
    ("automation", "name"),
    [
        ("login-session", "LoginSessionBucket"), ("2fa", "Job2faBucket"), ("any", "JobAnyBucket"),
        ("async", "JobAsyncBucket"), ("登录", "登录Bucket"), ("*/ \u202e", "JobBucket"),
        ("größe x", "GrößeXBucket"), ("agent", "JobAgentBucket"),
    ],
)  # fmt: skip
def test_names(shared_daemon: Daemon, automation: str, name: str) -> None:
    path = "".join(f"%{byte:02X}" for byte in automation.encode())
    put(shared_daemon, SCHEMA, path)
    for language, text in (("python", f"class {name}("), ("typescript", f"interface {name} ")):
        done = bucketctl_types(shared_daemon, "--lang", language, "--", automation)
        assert text in done.stdout, done
        assert "\u202e" not in done.stdout


# --- watch


@contextmanager
def watching(daemon: Daemon, target: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "bucketd_client.ctl", "types", "login", "--lang", "python"]
    command += ["--output", str(target), "--watch", "--timeout", "0.5"]
    process = subprocess.Popen(
        command, cwd=PYTHON, env={**os.environ, "BUCKETD_SOCKET": daemon.socket}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def line_of(process: subprocess.Popen[str], stream: str = "stdout") -> str:
    source = getattr(process, stream)
    assert select.select([source], [], [], 20)[0], "nothing was written for 20 s"
    return str(source.readline())


def test_watch(daemon: Daemon, tmp_path: Path) -> None:
    """The file follows the schema; it stays while the daemon is away, which is said once."""
    put(daemon, SCHEMA)
    target = tmp_path / "login.py"
    with watching(daemon, target) as process:
        assert "login.py is written" in line_of(process)
        assert "at: NotRequired" in target.read_text()
        put(daemon, {**SCHEMA, "required": ["at"]})
        assert "login.py is written" in line_of(process)
        written = target.read_text()
        assert "at: float" in written
        assert daemon.stop() == 0
        assert "stays as it is" in line_of(process, "stderr")
        # Long enough for several more attempts.
        time.sleep(4)
        assert target.read_text() == written
        daemon.start()
        assert "can be read again" in line_of(process, "stderr")
        put(daemon, SCHEMA)
        assert "login.py is written" in line_of(process)
        before = os.times()
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=20)
        assert (process.returncode, out, errors) == (130, "", "")
        used = os.times().children_user - before.children_user
        # No busy loop: most of it is the start of Python.
        assert used < 2, used
    assert [each.name for each in tmp_path.iterdir()] == ["login.py"]


def test_watch_ends_with_its_reader(daemon: Daemon, tmp_path: Path) -> None:
    put(daemon, SCHEMA)
    with watching(daemon, tmp_path / "login.py") as process:
        line_of(process)
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(20) == 141
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_watch_needs_a_schema_to_begin_with(daemon: Daemon, tmp_path: Path) -> None:
    with watching(daemon, tmp_path / "login.py") as process:
        assert process.wait(20) == 1
