"""The verdicts of type checkers on programs that use generated types: a table of code and verdict.

Every row is one line of code, and whether it is right. The rows of a language are one program, so
that each checker runs once.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from harness import Daemon, new_daemon
from type_checkers import Errors, bucketctl_types, errors_of

SCHEMA = {
    "type": "object",
    "properties": {
        "loggedIn": {"type": "boolean"},
        "loginTimestamp": {"type": "number", "description": "ms since 1970"},
        "steps": {"type": "array", "items": {"enum": ["open", "done"]}},
        "user": {
            "type": "object",
            "properties": {"name": {"type": "string"}, "role": {"const": "admin"}},
            "required": ["name"],
        },
        "proxy": {"type": ["string", "null"], "format": "uri"},
        "home": {"$ref": "#/$defs/address"},
        "tree": {"$ref": "#/$defs/node"},
        "answer": {"oneOf": [{"type": "string"}, {"type": "integer"}]},
        "counts": {"type": "object", "additionalProperties": {"type": "integer"}},
        "headers": {"type": "object", "patternProperties": {"^x-": {"type": "string"}}},
        "point": {"type": "array", "prefixItems": [{"type": "number"}, {"type": "number"}],
                  "minItems": 2, "items": False},
        "user-agent": {"type": "string"},
        "retries": {"type": "integer", "default": 3},
        "hosts": {"type": "array", "items": {"type": "string"}, "default": []},
        # These are names of parameters as well.
        "data": {"type": "integer"},
        "self": {"type": "integer"},
    },
    "required": ["loggedIn"],
    "$defs": {
        "address": {"type": "object", "properties": {"street": {"type": "string"}},
                    "required": ["street"]},
        "node": {"type": "object", "required": ["value"], "properties": {
            "value": {"type": "integer"},
            "children": {"type": "array", "items": {"$ref": "#/$defs/node"}}}},
    },
}  # fmt: skip
FIELDS = {
    "fields": [
        {"name": "attempts", "type": "number", "integer": True, "required": True, "max": 9},
        {"name": "status", "type": "string", "enum": ["new", "used"], "defaultValue": "new"},
        {"name": "tags", "type": "array", "items": {"type": "string"}},
        {"name": "account", "type": "object",
         "properties": [{"name": "id", "type": "number", "required": True}]},
        {"name": "extra", "type": "any"},
        {"name": "if_match", "type": "string"},
    ]
}  # fmt: skip

TYPESCRIPT_HEAD = """\
import { agent, Bucket } from "bucketd-client";
import type { LoginSessionBucket, LoginSessionBucketWithDefaults } from "./login.js";
import type { CounterBucket } from "./counter.js";
const set = agent.utils.bucket.set;
const bucket = new Bucket<LoginSessionBucket>();
const counter = new Bucket<CounterBucket>();
const result = await agent.utils.bucket.get();
if (!result.success) throw new Error(result.error);
const stored = result.bucket;
const completed = await agent.utils.bucket.get({ defaults: true });
if (!completed.success) throw new Error(completed.error);
const whole = completed.bucket;
const withDefaults = new Bucket<LoginSessionBucket, LoginSessionBucketWithDefaults>();
"""
TYPESCRIPT = [
    (True, "await set({ loginTimestamp: Date.now() })"),
    (True, 'await set({ loggedIn: true, user: { name: "ada" } })'),
    (True, 'await set({ steps: ["open", "done"] })'),
    (True, "await set({ proxy: null, answer: 3 })"),
    (True, "await set({ tree: { value: 1, children: [{ value: 2, children: [] }] } })"),
    (True, 'await set({ "user-agent": "x", counts: { a: 1 }, headers: { "x-a": "b" } })'),
    (True, "await set({ point: [1, 2] })"),
    (True, "const on: boolean = (await bucket.get()).loggedIn"),
    (True, 'const step: "open" | "done" | undefined = stored.steps?.[0]'),
    (True, "await bucket.replace({ loggedIn: true, steps: [] })"),
    (True, "await bucket.update((b) => { b.loggedIn = false; })"),
    (True, "await bucket.update((b) => ({ ...b, loginTimestamp: 1 }))"),
    (True, 'await counter.set({ status: "used", tags: ["a"], extra: [1] })'),
    (True, "await counter.replace({ attempts: 1, account: { id: 1 } })"),
    (True, "const retries: number = whole.retries"),
    (True, "const host: string | undefined = whole.hosts[0]"),
    (True, "const on: boolean = whole.loggedIn"),
    (True, "const n: number = (await withDefaults.get({ defaults: true })).retries"),
    (True, 'const n: number = (await withDefaults.get("retries", { defaults: true })).retries'),
    (True, "const n: number | undefined = (await withDefaults.get({ defaults: false })).retries"),
    (True, 'const step: "open" | "done" | undefined = whole.steps?.[0]'),
    (False, "const retries: number = stored.retries"),
    (False, "const retries: string = whole.retries"),
    (False, "const agent: string = whole['user-agent']"),
    (True, "const n: number = await bucket.value('retries', 0)"),
    (True, "const on: boolean | undefined = await bucket.value('loggedIn')"),
    (False, "const n: number = await bucket.value('retries')"),
    (False, "await bucket.value('retris', 0)"),
    (False, "const n: number = (await bucket.get()).retries"),
    (False, "const n: number = (await withDefaults.get()).retries"),
    (False, "const n: number = (await withDefaults.get({ defaults: false })).retries"),
    (False, "const n: string = (await withDefaults.get('retries', { defaults: true })).retries"),
    (False, "await withDefaults.get({ default: true })"),
    (False, "await agent.utils.bucket.get({ defaults: 1 })"),
    (False, "await set({ loginTimestmp: 1 })"),
    (False, 'await set({ loggedIn: "yes" })'),
    (False, 'await set({ steps: ["closed"] })'),
    (False, "await set({ user: {} })"),
    (False, 'await set({ user: { name: "ada", role: "guest" } })'),
    (False, "await set({ proxy: 8080 })"),
    (False, "await set({ home: { stret: 'x' } })"),
    (False, "await set({ tree: { value: 1, children: [{ value: 'x' }] } })"),
    (False, "await set({ answer: true })"),
    (False, 'await set({ counts: { a: "b" } })'),
    (False, 'await set({ headers: { "x-a": 1 } })'),
    (False, "await set({ point: [1] })"),
    (False, "console.log(stored.logedIn)"),
    (False, "const wrong: string = (await bucket.get()).loggedIn"),
    (False, 'await bucket.set({ loggedIn: "yes" })'),
    (False, "await bucket.set({ logedIn: true })"),
    (False, "await bucket.replace({ steps: [] })"),
    (False, 'await bucket.replace({ loggedIn: true, steps: ["closed"] })'),
    (False, 'await bucket.update((b) => { b.loggedIn = "yes"; })'),
    (False, 'await bucket.update((b) => { b.steps = ["closed"]; })'),
    (False, "await bucket.update((b) => { b.logedIn = true; })"),
    (False, 'await counter.set({ status: "old" })'),
    (False, "await counter.set({ tags: [1] })"),
    (False, "await counter.replace({ tags: [] })"),
]
PYTHON_HEAD = """\
from typing import Any
import bucketd_client
import counter
from login import AsyncBucket, Bucket, LoginSessionBucket, LoginSessionBucketPart
from login import LoginSessionBucketWithDefaults
from login import agent, async_agent

bucket = Bucket(device="d", job="j")
later = AsyncBucket(device="d", job="j")
other = counter.Bucket(device="d", job="c")
explicit: bucketd_client.Bucket[
    LoginSessionBucket, LoginSessionBucketPart, LoginSessionBucketWithDefaults
] = bucket
content_only: bucketd_client.Bucket[LoginSessionBucket] = bucketd_client.Bucket()
data: dict[str, Any] = {}
part: LoginSessionBucketPart = {"steps": ["open"]}
full = bucket.get(defaults=True)
"""
PYTHON = [
    (True, 'bucket.set({"loginTimestamp": 1.5})'),
    (True, 'bucket.set({"loggedIn": True, "user": {"name": "ada"}})'),
    (True, 'bucket.set({"steps": ["open", "done"]}, returning=False)'),
    (True, "bucket.set(loggedIn=True, steps=['open'])"),
    (True, 'bucket.set({"user-agent": "x"}, loggedIn=True, if_match=None)'),
    (True, "bucket.set(part)"),
    (True, "bucket.set({'data': 1}, self=2)"),
    (False, "bucket.set(data='x')"),
    (True, 'bucket.set({"proxy": None, "answer": 3})'),
    (True, 'bucket.set({"home": {"street": "x"}})'),
    (True, 'bucket.set({"tree": {"value": 1, "children": [{"value": 2}]}})'),
    (True, 'bucket.set({"counts": {"a": 1}, "headers": {"x-a": "b"}, "point": [1, 2]})'),
    (True, "on: bool = bucket.get()['loggedIn']"),
    (True, "whole: LoginSessionBucket = bucket.set(part)"),
    (True, 'bucket.replace({"loggedIn": True, "steps": []})'),
    (True, 'bucket.update(lambda b: {**b, "loggedIn": False})'),
    (True, 'bucket.update(lambda b: b.update({"steps": ["done"]}))'),
    (True, "bucket.merge_patch({'user': {'name': None}})"),
    (True, 'explicit.set({"steps": ["done"]})'),
    (True, 'explicit.replace({"loggedIn": True})'),
    (True, 'content_only.set({"anything": 1}, more=2)'),
    (True, "content_only.replace(data)"),
    (True, 'agent.utils.bucket.set({"loginTimestamp": 1})'),
    (True, "async def a(): await later.set({'loggedIn': True}, steps=['open'])"),
    (True, "async def b(): await later.replace({'loggedIn': True})"),
    (True, "async def c(): await later.update(lambda b: {**b, 'loggedIn': False})"),
    (True, "async def d(): await async_agent.utils.bucket.set({'loggedIn': True})"),
    (True, "other.set({'status': 'used', 'tags': ['a'], 'extra': [1]})"),
    (True, "other.set({'if_match': 'x'}, if_match=None)"),
    (False, "other.set(tags=['a'])"),
    (True, "other.replace({'attempts': 1, 'account': {'id': 1}})"),
    (True, "retries: int = full['retries']"),
    (True, "hosts: list[str] = bucket.get('hosts', defaults=True)['hosts']"),
    (True, "logged: bool = full['loggedIn']"),
    (True, "maybe: int = bucket.get().get('retries', 0)"),
    (True, "tries: int = bucket.value('retries', 0)"),
    (True, "agent_name: str | None = bucket.value('user-agent')"),
    (True, "steps: list[Any] = bucket.value('steps') or []"),
    (False, "never: int = bucket.value('retries')"),
    (False, "bucket.value('retries', 'x')"),
    (False, "bucket.value('retris', 0)"),
    (True, "perhaps: int = bucket.get(defaults=False).get('retries', 0)"),
    (True, "complete: LoginSessionBucketWithDefaults = explicit.get(defaults=True)"),
    (True, "async def j(): print((await later.get(defaults=True))['retries'] + 1)"),
    (True, "any_key: object = content_only.get(defaults=True).get('retries')"),
    (True, "state: str = other.get(defaults=True)['status']"),
    (False, "partly: LoginSessionBucketWithDefaults = bucket.get()"),
    (False, "half: LoginSessionBucketWithDefaults = bucket.get(defaults=False)"),
    (False, "text: str = full['retries']"),
    (False, "print(full['retrys'])"),
    (False, "bucket.get(default=True)"),
    (False, "bucket.get(defaults='yes')"),
    (False, "async def k(): print((await later.get(defaults=True))['retries'] + 'x')"),
    (False, "number: int = other.get(defaults=True)['status']"),
    (False, 'bucket.set({"loggedIn": "yes"})'),
    (False, 'bucket.set({"logedIn": True})'),
    (False, 'bucket.set({"steps": ["closed"]})'),
    (False, 'bucket.set({"user": {}})'),
    (False, 'bucket.set({"user": {"name": "ada", "role": "guest"}})'),
    (False, 'bucket.set({"proxy": 8080})'),
    (False, 'bucket.set({"home": {"stret": "x"}})'),
    (False, 'bucket.set({"tree": {"value": 1, "children": [{"value": "x"}]}})'),
    (False, 'bucket.set({"answer": 1.5})'),
    (False, 'bucket.set({"counts": {"a": "b"}})'),
    (False, 'bucket.set({"headers": {"x-a": 1}})'),
    (False, 'bucket.set({"point": ["x", "y"]})'),
    (False, 'bucket.set(loggedIn="yes")'),
    (False, "bucket.set(logedIn=True)"),
    (False, 'bucket.set(steps=["closed"])'),
    (False, "bucket.set(data)"),
    (False, "bucket.set({'steps': ['open']}, returning=False)['loggedIn']"),
    (False, 'bucket.replace({"steps": []})'),
    (False, 'bucket.replace({"loggedIn": True, "x": 1})'),
    (False, 'bucket.replace({"loggedIn": True, "steps": ["closed"]})'),
    (False, 'bucket.update(lambda b: {**b, "loggedIn": "no"})'),
    (False, 'bucket.update(lambda b: {"loggedIn": True, "logedIn": True})'),
    (False, 'bucket.update(lambda b: b.update({"steps": ["closed"]}))'),
    (False, "print(bucket.get()['logedIn'])"),
    (False, "name: str = bucket.get()['loggedIn']"),
    (False, 'explicit.set({"logedIn": True})'),
    (False, "explicit.replace(data)"),
    (False, "content_only.get()['logedIn']"),
    (False, 'agent.utils.bucket.set({"loginTimestmp": 1})'),
    (False, 'agent.utils.bucket.set({"steps": ["closed"]})'),
    (False, "async def e(): await later.set({'loggedIn': 'yes'})"),
    (False, "async def f(): await later.set({}, logedIn=True)"),
    (False, "async def g(): await later.replace({'steps': []})"),
    (False, "async def h(): await later.update(lambda b: {**b, 'loggedIn': 'no'})"),
    (False, "async def i(): await async_agent.utils.bucket.set({'logedIn': True})"),
    (False, "other.set({'status': 'old'})"),
    (False, "other.set({'tags': [1]})"),
    (False, "other.replace({'tags': []})"),
]


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the types of both schemas in both languages, and the programs."""
    place = tmp_path_factory.mktemp("generated")
    daemon = new_daemon().start()
    try:
        for name, automation, schema in (
            ("login", "login-session", SCHEMA),
            ("counter", "counter", FIELDS),
        ):
            assert daemon.request("PUT", f"/v1/schemas/{automation}", schema).status == 200
            _generate(daemon, automation, "python", place / f"{name}.py")
            _generate(daemon, automation, "typescript", place / f"{name}.d.ts")
    finally:
        daemon.remove()
    # Two augmentations of one program would contradict each other.
    text = (place / "counter.d.ts").read_text()
    (place / "counter.d.ts").write_text(text[: text.index("declare module")])
    return place


def _generate(daemon: Daemon, automation: str, language: str, path: Path) -> None:
    done = bucketctl_types(daemon, automation, "--lang", language, "--output", str(path))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def _check(errors: Errors, program: str, head: str, rows: list[tuple[bool, str]]) -> None:
    first = head.count("\n") + 1
    found = {line for name, line in errors if name == program}
    verdicts = {code: number not in found for number, (_, code) in enumerate(rows, first)}
    wrong = [f"{code}: {verdicts[code]}" for right, code in rows if verdicts[code] != right]
    others = {key: text for key, text in errors.items() if key[0] != program or key[1] < first}
    assert (wrong, others) == ([], {}), errors


def test_typescript(generated: Path) -> None:
    lines = [f"{{ {code}; }}" for _, code in TYPESCRIPT]
    program = generated / "program.mts"
    program.write_text(TYPESCRIPT_HEAD + "\n".join(lines))
    files = [program, generated / "login.d.ts", generated / "counter.d.ts"]
    _check(errors_of("tsc", generated, files), "program.mts", TYPESCRIPT_HEAD, TYPESCRIPT)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_python(generated: Path, checker: str) -> None:
    lines = [code.replace("():", "() -> None:") for _, code in PYTHON]
    program = generated / "program.py"
    program.write_text(PYTHON_HEAD + "\n".join(lines))
    files = [program, generated / "login.py", generated / "counter.py"]
    _check(errors_of(checker, generated, files), "program.py", PYTHON_HEAD, PYTHON)


def test_a_generated_module_runs(generated: Path) -> None:
    """It imports the client only when a bucket is first used, and then it is the client's own."""
    code = (
        "import sys, login\n"
        "assert not [name for name in sys.modules if name.startswith('bucketd_client')]\n"
        "import bucketd_client\n"
        "from bucketd_client import aio\n"
        "assert login.Bucket is bucketd_client.Bucket and login.agent is bucketd_client.agent\n"
        "assert login.async_agent is aio.agent and login.AsyncBucket is aio.AsyncBucket\n"
        "assert login.LoginSessionBucket(loggedIn=True) == {'loggedIn': True}\n"
        "assert not hasattr(login, 'Bukcet')\n"
        "bucketd_client.Bucket[login.LoginSessionBucket]\n"
        "bucketd_client.Bucket[login.LoginSessionBucket, login.LoginSessionBucketPart]\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=generated, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
