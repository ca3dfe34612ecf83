"""What ``bucketctl types`` writes, judged by the type checkers that its users run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from harness import REPO, Daemon, new_daemon

NODE = REPO / "client" / "node"
SCHEMA = {
    "type": "object",
    "properties": {
        "loggedIn": {"type": "boolean"},
        "loginTimestamp": {"type": "number", "description": "ms since 1970"},
        "steps": {"type": "array", "items": {"enum": ["open", "done"]}},
        "user": {"type": "object", "properties": {"name": {"type": "string"}}},
    },
    "required": ["loggedIn"],
}
TYPESCRIPT = """
import { agent, Bucket } from "bucketd-client";
import type { LoginSessionBucket } from "./login.bucket.js";
const result = await agent.utils.bucket.get();
if (result.success) {
  const at: number | undefined = result.bucket.loginTimestamp;
  const step: "open" | "done" | undefined = result.bucket.steps?.[0];
  console.log(at, step, result.bucket.loggedIn);
} else console.log(result.error);
await agent.utils.bucket.set({ loginTimestamp: Date.now() });
await agent.utils.bucket.set({ loggedIn: true, user: { name: "ada" } });
const bucket = new Bucket<LoginSessionBucket>();
const on: boolean = (await bucket.get()).loggedIn;
console.log(on);
"""
WRONG_TYPESCRIPT = (
    "await agent.utils.bucket.set({ loginTimestmp: 1 });",
    'await agent.utils.bucket.set({ loginTimestamp: "yesterday" });',
    'await agent.utils.bucket.set({ steps: ["closed"] });',
    "const r = await agent.utils.bucket.get(); if (r.success) console.log(r.bucket.logedIn);",
    "const n: string = (await new Bucket<LoginSessionBucket>().get()).loggedIn;",
)
PYTHON = """
from bucketd_client import Bucket
from login_bucket import LoginSessionBucket, agent

result = agent.utils.bucket.get()
if result.success:
    on: bool = result.bucket["loggedIn"]
    at: float = result.bucket.get("loginTimestamp", 0.0)
else:
    print(result.error)
agent.utils.bucket.set({"loginTimestamp": 1.5})
agent.utils.bucket.set({"loggedIn": True, "user": {"name": "ada"}})
bucket: Bucket[LoginSessionBucket] = Bucket(device="d", job="j")
again: bool = bucket.get()["loggedIn"]
"""
WRONG_PYTHON = (
    'agent.utils.bucket.set({"loginTimestmp": 1})',
    'agent.utils.bucket.set({"loginTimestamp": "yesterday"})',
    'agent.utils.bucket.set({"steps": ["closed"]})',
    'print(bucket.get()["logedIn"])',
    'name: str = bucket.get()["loggedIn"]',
)


@pytest.fixture(scope="module")
def daemon_with_schema() -> Iterator[Daemon]:
    daemon = new_daemon().start()
    try:
        assert daemon.request("PUT", "/v1/schemas/login-session", SCHEMA).status == 200
        yield daemon
    finally:
        daemon.remove()


def ctl(daemon: Daemon, *words: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "BUCKETD_SOCKET": daemon.socket}
    command = [sys.executable, "-m", "bucketd_client.ctl", "types", "login-session", *words]
    return subprocess.run(command, cwd=NODE, env=environ, capture_output=True, text=True)


def here(program: str) -> str:
    """A program beside this Python, or in node_modules; skips where it is not installed."""
    for place in (Path(sys.executable).parent / program, NODE / "node_modules" / ".bin" / program):
        if place.exists():
            return str(place)
    pytest.skip(f"{program} is not installed")


def wrong_lines(name: str, right: str, wrong: Sequence[str]) -> set[tuple[str, str]]:
    """File and line of each error there must be: one a wrong line, and none in what is right."""
    first = len(right.splitlines()) + 1
    return {(name, str(number)) for number in range(first, first + len(wrong))}


def tsc(place: Path, text: str) -> subprocess.CompletedProcess[str]:
    (place / "program.mts").write_text(text)
    options = {"strict": True, "noEmit": True, "module": "nodenext", "target": "es2022",
               "moduleResolution": "nodenext", "types": ["node"], "skipLibCheck": False,
               "typeRoots": [str(NODE / "node_modules" / "@types")]}  # fmt: skip
    (place / "tsconfig.json").write_text(
        json.dumps({"compilerOptions": options, "files": ["program.mts", "login.bucket.d.ts"]})
    )
    return subprocess.run([here("tsc"), "-p", str(place)], capture_output=True, text=True)


def test_typescript(daemon_with_schema: Daemon, tmp_path: Path) -> None:
    here("json2ts")
    if not (NODE / "dist").exists():
        pytest.skip("the TypeScript client is not built")
    modules = tmp_path / "node_modules"
    modules.mkdir()
    (modules / "bucketd-client").symlink_to(NODE)
    target = tmp_path / "login.bucket.d.ts"
    done = ctl(daemon_with_schema, "--lang", "typescript", "--output", str(target))
    assert done.returncode == 0, done.stderr
    done = tsc(tmp_path, TYPESCRIPT + "\n".join(WRONG_TYPESCRIPT))
    found = re.findall(r"([^\s/]+)\((\d+),\d+\): error ", done.stdout)
    assert set(found) == wrong_lines("program.mts", TYPESCRIPT, WRONG_TYPESCRIPT), done.stdout


def checked(checker: str, place: Path, text: str) -> subprocess.CompletedProcess[str]:
    (place / "program.py").write_text(text)
    words = [here(checker), "program.py"]
    if checker == "mypy":
        words = [sys.executable, "-m", "mypy", "--strict", "--no-incremental", "program.py"]
        words += ["--cache-dir", str(place / "cache")]
    else:
        (place / "pyrightconfig.json").write_text(
            json.dumps({"extraPaths": [str(REPO / "client" / "python")], "strict": ["."]})
        )
        words += ["--pythonpath", sys.executable]
    environ = {**os.environ, "MYPYPATH": str(REPO / "client" / "python")}
    return subprocess.run(words, cwd=place, env=environ, capture_output=True, text=True)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_python(daemon_with_schema: Daemon, tmp_path: Path, checker: str) -> None:
    here("datamodel-codegen")
    here(checker)
    target = tmp_path / "login_bucket.py"
    done = ctl(daemon_with_schema, "--lang", "python", "--output", str(target))
    assert done.returncode == 0, done.stderr
    subprocess.run([sys.executable, "-c", "import login_bucket"], cwd=tmp_path, check=True)
    done = checked(checker, tmp_path, PYTHON + "\n".join(WRONG_PYTHON))
    found = re.findall(r"([^\s/]+):(\d+):.* error: ", done.stdout)
    found += re.findall(r"([^\s/]+):(\d+):\d+ - error", done.stdout)
    assert set(found) == wrong_lines("program.py", PYTHON, WRONG_PYTHON), done.stdout


def test_check_tells_when_a_file_is_out_of_date(daemon: Daemon, tmp_path: Path) -> None:
    here("datamodel-codegen")
    daemon.request("PUT", "/v1/schemas/login-session", SCHEMA)
    target = str(tmp_path / "login_bucket.py")
    assert ctl(daemon, "--lang", "python", "--output", target).returncode == 0
    before = Path(target).read_bytes()
    assert ctl(daemon, "--lang", "python", "--check", target).returncode == 0
    daemon.request("PUT", "/v1/schemas/login-session", {**SCHEMA, "required": []})
    done = ctl(daemon, "--lang", "python", "--check", target)
    assert done.returncode == 1
    assert "out of date" in done.stderr
    assert Path(target).read_bytes() == before


LINKED = {
    "$ref": "#/$defs/A~1%20b",
    "$defs": {
        "A/ b": {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "next": {"$ref": "#/$defs/A~1%20b"}},
        }
    },
}


@pytest.mark.parametrize(
    ("language", "program", "said"),
    [
        ("python", "datamodel-codegen", r"class LoginSessionBucket\(TypedDict\):\s+a: "),
        ("typescript", "json2ts", r"interface LoginSessionBucket {\s+a\?: number;"),
    ],
)
def test_a_reference_at_the_root(daemon: Daemon, language: str, program: str, said: str) -> None:
    here(program)
    daemon.request("PUT", "/v1/schemas/login-session", LINKED)
    done = ctl(daemon, "--lang", language)
    assert re.search(said, done.stdout), done


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#x", "$defs": {"A": {"$anchor": "x", "type": "object"}}},
        {"$ref": "#/$defs/A", "$defs": {"A": {"required": ["a"]}}, "required": ["b"]},
    ],
)
def test_a_reference_at_the_root_that_leads_nowhere(daemon: Daemon, schema: object) -> None:
    daemon.request("PUT", "/v1/schemas/login-session?force=true", schema)
    done = ctl(daemon, "--lang", "python")
    assert (done.returncode, "; put the object at the root" in done.stderr) == (2, True), done


def test_no_schema_and_no_language(daemon: Daemon) -> None:
    assert ctl(daemon, "--lang", "python").returncode == 1
    assert ctl(daemon).returncode == 2
    assert ctl(daemon, "--lang", "cobol").returncode == 2
