"""bucketctl schema migrate: each bucket exactly once, whatever happens in between."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ctl_shell import CTL, Shell
from harness import Daemon, pair

# The long form has 10,000 buckets.
BUCKETS = int(os.environ.get("MIGRATION_BUCKETS", "300"))
OLD = {
    "type": "object",
    "properties": {
        "token": {"type": "string", "writeOnly": True},
        "log": {"type": "array", "items": {"$ref": "#/$defs/line"}},
        "n": {"type": "integer"},
    },
    "required": ["token"],
    "additionalProperties": False,
    "$defs": {"line": {"type": "string"}},
}
NEW = {
    "type": "object",
    "properties": {
        "sessionToken": {"type": "string", "writeOnly": True},
        "log": {"type": "array", "items": {"$ref": "#/$defs/line"}},
        "n": {"type": "integer"},
    },
    "required": ["sessionToken"],
    "additionalProperties": False,
    "$defs": {"line": {"type": "string", "maxLength": 20}},
}
# Applied twice, it fails or adds another line.
PATCH = [
    {"op": "add", "path": "/log/-", "value": "migrated"},
    {"op": "move", "from": "/token", "path": "/sessionToken"},
]
TWICE_HARMFUL = (
    "import json, sys\n"
    "bucket = json.load(sys.stdin)\n"
    "bucket['log'].append('migrated')\n"
    "bucket['sessionToken'] = bucket.pop('token', 'again')\n"
    "json.dump(bucket, sys.stdout)\n"
)
# Kill bucketctl at one of its requests, before it is sent or once it is answered.
KILLED = """
import os, signal, sys, threading
from bucketd_client.ctl import main
from bucketd_client.ctl.session import Session
when, method, part, number = os.environ["KILL"].split()
real, lock, count = Session.call, threading.Lock(), 0
def call(self, verb, target, **more):
    global count
    with lock:
        hit = verb == method and part in target and "dry_run" not in target
        count += hit
        is_last = hit and count == int(number)
        if is_last and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
    reply = real(self, verb, target, **more)
    if is_last:
        os.kill(os.getpid(), signal.SIGKILL)
    return reply
Session.call = call
sys.exit(main())
"""


class Farm:
    """A daemon with buckets of the automation ``login``, and a directory for the files."""

    def __init__(self, daemon: Daemon, place: Path, count: int) -> None:
        self.daemon, self.place, self.ctl = daemon, place, Shell(daemon)
        self.count = count
        assert daemon.request("PUT", "/v1/schemas/login", OLD).status == 200
        for number in range(count):
            path = f"{pair(f'phone-{number}', 'login')}?automation=login"
            assert daemon.request("PUT", path, self.old(number)).status == 200
        for name, value in (("new.json", NEW), ("patch.json", PATCH)):
            (place / name).write_text(json.dumps(value))
        (place / "cmd.py").write_text(TWICE_HARMFUL)

    @staticmethod
    def old(number: int) -> dict[str, Any]:
        return {"token": f"secret-{number}", "log": [], "n": number}

    @staticmethod
    def new(number: int) -> dict[str, Any]:
        return {"sessionToken": f"secret-{number}", "log": ["migrated"], "n": number}

    def words(self, *more: str) -> list[str]:
        how = [] if "--run" in more else ["--patch", "patch.json"]
        words = ["schema", "migrate", "login", "--to", "new.json", *how]
        return [*words, "--backup", "before.ndjson", *more]

    def run(self, *more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*CTL, *self.words(*more)], cwd=self.place, env=self.ctl.environ,
            capture_output=True, text=True, timeout=600,
        )  # fmt: skip

    def killed(self, kill: str, *more: str) -> None:
        command = [sys.executable, "-c", KILLED, *self.words("--yes", *more)]
        environ = {**self.ctl.environ, "KILL": kill}
        done = subprocess.run(
            command, cwd=self.place, env=environ, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == -signal.SIGKILL, (done.stdout, done.stderr)

    def bucket(self, number: int | str) -> Any:
        device = f"phone-{number}" if isinstance(number, int) else number
        return self.daemon.request("GET", pair(device, "login")).bucket

    def set(self, number: int, data: dict[str, Any]) -> None:
        reply = self.daemon.request("PATCH", f"{pair(f'phone-{number}', 'login')}", data)
        assert reply.status == 200, reply.json

    def schema(self) -> Any:
        return self.daemon.request("GET", "/v1/schemas/login").json["schema"]

    def backup(self) -> dict[str, Any]:
        """Return the buckets in the backup; an import takes the last line of each."""
        path = self.place / "before.ndjson"
        assert path.stat().st_mode & 0o777 == 0o600
        assert (self.place / "before.ndjson.state").stat().st_mode & 0o777 == 0o600
        envelopes = map(json.loads, path.read_text().splitlines())
        return {envelope["device"]: envelope["bucket"] for envelope in envelopes}

    def files(self) -> set[str]:
        return {path.name for path in self.place.iterdir()}

    def assert_done(self, said: subprocess.CompletedProcess[str]) -> dict[str, Any]:
        """Check that each bucket is changed exactly once, and that nothing is lost."""
        assert said.returncode == 0, (said.stdout, said.stderr)
        wrong = [n for n in range(self.count) if self.bucket(n) != self.new(n)]
        assert wrong == []
        assert self.schema() == NEW
        assert self.backup() == {f"phone-{n}": self.old(n) for n in range(self.count)}
        found: dict[str, Any] = json.loads(said.stdout)
        assert found["complete"]
        return found

    def assert_untouched(self) -> None:
        assert all(self.bucket(n) == self.old(n) for n in range(self.count))
        assert self.schema() == OLD
        assert self.files() <= {"new.json", "patch.json", "cmd.py"}


@pytest.fixture
def farm(daemon: Daemon, tmp_path: Path) -> Farm:
    return Farm(daemon, tmp_path, 12)


def test_all_buckets_and_the_schema_are_changed(farm: Farm) -> None:
    before = farm.daemon.request("GET", pair("phone-3", "login")).json["revision"]
    other = f"{pair('phone-3', 'other')}?automation=other"
    farm.daemon.request("PUT", other, {"token": "mine"})
    found = farm.assert_done(farm.run("--yes"))
    assert found["changed"] == 12
    assert farm.daemon.request("GET", pair("phone-3", "login")).json["revision"] == before + 1
    assert farm.daemon.request("GET", pair("phone-3", "other")).bucket == {"token": "mine"}


def test_a_second_run_changes_nothing(farm: Farm) -> None:
    farm.assert_done(farm.run("--yes"))
    again = farm.run("--yes")
    assert "this migration is complete" in again.stderr
    farm.assert_done(again)


def test_a_command_changes_the_buckets(farm: Farm) -> None:
    run = f'test "$BUCKETD_JOB" = login && {sys.executable} cmd.py'
    farm.assert_done(farm.run("--yes", "--run", run))


def test_a_dry_run_changes_nothing_and_shows_no_secret(farm: Farm) -> None:
    files = farm.files()
    said = farm.run("--dry-run")
    assert said.returncode == 0, said.stderr
    shown = json.loads(said.stdout)
    assert (shown["changed"], shown["unchanged"], shown["refused"]) == (12, 0, 0)
    assert len(shown["examples"]) == 3
    changes = {change["path"]: change for change in shown["examples"][0]["changes"]}
    assert changes["/sessionToken"]["after"] == "••••"
    assert changes["/log"]["after"] == ["migrated"]
    words = farm.words("--dry-run", "--backup", str(farm.place / "before.ndjson"))
    words[words.index("new.json")] = str(farm.place / "new.json")
    words[words.index("patch.json")] = str(farm.place / "patch.json")
    on_terminal = farm.ctl.on_terminal(*words)
    assert "… and 9 buckets more" in on_terminal
    assert "12 changed, 0 unchanged, 0 refused" in on_terminal
    for text in (said.stdout, said.stderr, on_terminal):
        assert "secret-" not in text
    farm.assert_untouched()
    assert farm.files() == files


def test_nobody_was_asked(farm: Farm) -> None:
    said = farm.run()
    assert (said.returncode, said.stdout) == (2, "")
    assert "give --yes, or check first with --dry-run" in said.stderr
    farm.assert_untouched()


# --- killed

POINTS = [
    "before GET /v1/export 2", "after GET /v1/export 2",
    "before PUT /v1/schemas/ 1", "after PUT /v1/schemas/ 1",
    "before PUT /bucket 1", "after PUT /bucket 1", "before PUT /bucket 7", "after PUT /bucket 7",
    "after PUT /bucket 12",
    "before PUT /v1/schemas/ 2", "after PUT /v1/schemas/ 2",
]  # fmt: skip


BY_COMMAND = ["before PUT /bucket 7", "after PUT /bucket 7"]


@pytest.mark.parametrize(
    ("point", "more"),
    [
        *((point, []) for point in POINTS),
        *((point, ["--run", f"{sys.executable} cmd.py"]) for point in BY_COMMAND),
    ],
)
def test_killed_and_continued(farm: Farm, point: str, more: list[str]) -> None:
    farm.killed(point, *more)
    # Whatever an automation of the old form, or of the new one, writes validly is accepted.
    for number in range(farm.count):
        farm.set(number, {"n": number + 1})
        assert farm.bucket(number)["n"] == number + 1
        farm.set(number, {"n": number})
    said = farm.run("--yes", *more)
    assert said.returncode == 0, said.stderr
    farm.assert_done(said)


@pytest.mark.timeout(1200)
def test_killed_again_and_again(daemon: Daemon, tmp_path: Path) -> None:
    farm = Farm(daemon, tmp_path, 0)
    lines = (
        json.dumps({"device": f"phone-{n}", "job": "login", "automation": "login",
                    "bucket": farm.old(n)})
        for n in range(BUCKETS)
    )  # fmt: skip
    (tmp_path / "buckets").write_text("\n".join(lines))
    command = [*CTL, "import", str(tmp_path / "buckets")]
    subprocess.run(command, env=farm.ctl.environ, check=True, capture_output=True)
    farm.count = BUCKETS
    state = farm.place / "before.ndjson.state"
    began, kills = time.monotonic(), 0
    for target in sorted(random.sample(range(1, BUCKETS), 4)):
        process = subprocess.Popen(
            [*CTL, *farm.words("--yes")], cwd=farm.place, env=farm.ctl.environ,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        while process.poll() is None:
            if state.exists() and state.read_bytes().count(b'"outcome"') >= target:
                process.kill()
            time.sleep(0.01)
        kills += process.wait() == -signal.SIGKILL
    found = farm.assert_done(farm.run("--yes"))
    assert found["changed"] == BUCKETS
    assert kills
    print(f"{BUCKETS} buckets, {kills} kills, {time.monotonic() - began:.1f} s")


@pytest.mark.parametrize(
    ("point", "writes", "expected", "status"),
    [
        # The change was not made, and others have written since.
        ("before", [{"n": 5}, {"n": 6}], {"n": 6, "log": ["migrated"]}, 0),
        ("before", [{"log": ["x"]}], {"log": ["x", "migrated"]}, 0),
        # The change was made, and others have written since.
        ("after", [{"n": 5}, {"n": 6}], {"n": 6, "log": ["migrated"]}, 0),
        # Others have written the same keys, so nobody can know.
        ("after", [{"n": 5}, {"log": ["y"]}], {"n": 5, "log": ["y"]}, 1),
    ],
)
def test_a_change_of_unknown_outcome(
    daemon: Daemon, tmp_path: Path, point: str, writes: list[dict[str, Any]],
    expected: dict[str, Any], status: int,
) -> None:  # fmt: skip
    farm = Farm(daemon, tmp_path, 1)
    farm.killed(f"{point} PUT /bucket 1")
    for data in writes:
        farm.set(0, data)
    said = farm.run("--yes")
    assert said.returncode == status, said.stderr
    assert ("it is unknown whether it was made" in said.stderr) == bool(status)
    assert farm.bucket(0) == {**farm.new(0), **expected}
    assert farm.schema() == NEW


def test_another_directory_does_not_begin_again(farm: Farm, tmp_path: Path) -> None:
    farm.killed("after PUT /bucket 5")
    elsewhere = farm.run("--yes", "--backup", "other.ndjson")
    assert elsewhere.returncode == 2
    assert str(farm.place / "before.ndjson") in elsewhere.stderr
    (farm.place / "before.ndjson.state").rename(farm.place / "hidden")
    lost = farm.run("--yes")
    assert lost.returncode == 2
    assert "which says what is changed already" in lost.stderr
    (farm.place / "hidden").rename(farm.place / "before.ndjson.state")
    farm.assert_done(farm.run("--yes"))


def test_a_backup_that_exists_is_not_overwritten(farm: Farm) -> None:
    (farm.place / "before.ndjson").write_text("precious")
    said = farm.run("--yes")
    assert said.returncode == 2
    assert "exists; name another file" in said.stderr
    assert (farm.place / "before.ndjson").read_text() == "precious"
    assert farm.schema() == OLD


def test_the_backup_restores_what_was(farm: Farm) -> None:
    farm.assert_done(farm.run("--yes"))
    (farm.place / "old.json").write_text(json.dumps(OLD))
    old, backup = str(farm.place / "old.json"), str(farm.place / "before.ndjson")
    assert farm.ctl("schema", "set", "login", old, "--force").returncode == 0
    assert farm.ctl("import", backup).returncode == 0
    assert all(farm.bucket(n) == farm.old(n) for n in range(farm.count))


# --- others at work


@pytest.fixture
def writer(farm: Farm) -> Iterator[Callable[[], int]]:
    """A thread that counts in one bucket without pause; the call ends it and returns the count."""
    stop, made = threading.Event(), 0

    def write() -> None:
        nonlocal made
        while not stop.is_set():
            farm.set(3, {"n": made + 1})
            made += 1

    thread = threading.Thread(target=write)
    thread.start()

    def end() -> int:
        stop.set()
        thread.join()
        return made

    yield end
    end()


def test_a_bucket_that_changes_meanwhile(farm: Farm, writer: Callable[[], int]) -> None:
    said = farm.run("--yes")
    made = writer()
    # A writer that never pauses may win five times in a row; then the same command goes on.
    if said.returncode == 6:
        assert "others have changed it" in said.stderr
        said = farm.run("--yes")
    assert said.returncode == 0, said.stderr
    assert farm.bucket(3) == {**farm.new(3), "n": made}
    assert farm.schema() == NEW


def test_buckets_that_appear_and_vanish_meanwhile(farm: Farm) -> None:
    """A new bucket is changed if it is in the old form, and stays if it is in the new one."""
    farm.killed("before PUT /bucket 4")
    for device, data in (("a", farm.old(20)), ("b", farm.new(21))):
        path = f"{pair(device, 'login')}?automation=login"
        assert farm.daemon.request("PUT", path, data).status == 200
    for number in (10, 11):
        assert farm.daemon.request("DELETE", pair(f"phone-{number}", "login")).status == 200
    path = f"{pair('phone-11', 'login')}?automation=login"
    assert farm.daemon.request("PUT", path, farm.new(11)).status == 200
    said = farm.run("--yes")
    assert said.returncode == 0, said.stderr
    assert (farm.bucket("a"), farm.bucket("b")) == (farm.new(20), farm.new(21))
    assert (farm.bucket(10), farm.bucket(11)) == ({}, farm.new(11))
    assert all(farm.bucket(n) == farm.new(n) for n in range(10))
    assert farm.schema() == NEW
    # Whatever was changed is in the backup as it was.
    assert farm.backup()["a"] == farm.old(20)


@pytest.mark.parametrize("end", ["restart", "kill"])
def test_the_daemon_restarts_meanwhile(daemon: Daemon, tmp_path: Path, end: str) -> None:
    farm = Farm(daemon, tmp_path, 150)
    process = subprocess.Popen(
        [*CTL, *farm.words("--yes")], cwd=farm.place, env=farm.ctl.environ,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    state = farm.place / "before.ndjson.state"
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        if state.exists() and '"changed"' in state.read_text():
            break
        time.sleep(0.005)
    if end == "kill":
        daemon.kill()
        daemon.start()
    else:
        daemon.restart()
    stdout, stderr = process.communicate(timeout=60)
    said = subprocess.CompletedProcess([], process.returncode, stdout, stderr)
    if said.returncode == 4:
        # The daemon was away for longer than a client waits.
        assert "give the same command again to continue" in stderr
        said = farm.run("--yes")
    farm.assert_done(said)


def test_a_bucket_is_written_wrongly_after_its_change(farm: Farm) -> None:
    """It is not changed twice; the schema is set once it is corrected."""
    farm.killed("before PUT /v1/schemas/ 2")
    farm.daemon.request("PUT", pair("phone-2", "login"), farm.old(2))
    said = farm.run("--yes")
    assert said.returncode == 5
    assert "phone-2, login" in said.stderr
    assert farm.bucket(2) == farm.old(2)
    farm.daemon.request("PUT", pair("phone-2", "login"), farm.new(2))
    farm.assert_done(farm.run("--yes"))


# --- refused

BAD = [
    (["--to", "none.json"], 2, "cannot read none.json: No such file"),
    (["--to", "bad.json"], 2, "as JSON"),
    (["--to", "number.json"], 1, "cannot use the schema"),
    (["--to", "wrong.json"], 1, "cannot use the schema"),
    (["--patch", "bad.json"], 2, "as JSON"),
    (["--patch", "number.json"], 2, "it must be an array of operations"),
    (["--patch", "wrong.json"], 2, "it must be an array of operations"),
    (["--patch", "op.json"], 2, 'operation 0: "op" must be one of'),
    (["--patch", "fails.json"], 1, "the bucket has no such place"),
    (["--patch", "array.json"], 1, "a bucket is a JSON object"),
    (["--patch", "invalid.json"], 5, "by the schema of 'login', /log/0"),
    (["--patch", "patch.json", "--run", "true"], 2, "one of them"),
    (["--run-timeout", "3"], 2, "it goes with --run"),
    (["--backup", "no/such/place.ndjson"], 2, "No such file"),
]  # fmt: skip
FILES = {
    "bad.json": "{", "number.json": "3", "wrong.json": '{"type": "strin"}',
    "op.json": '[{"op": "replce", "path": "/a"}]',
    "fails.json": '[{"op": "remove", "path": "/nothing"}]',
    "array.json": '[{"op": "replace", "path": "", "value": []}]',
    "invalid.json": json.dumps([*PATCH, {"op": "add", "path": "/log/0", "value": "x" * 21}]),
}  # fmt: skip
COMMANDS = [
    ("no-such-command", 2, "cannot run 'no-such-command': it is not found"),
    ("   ", 2, "the command is empty"),
    ("exit 3", 1, "the command ended with exit status 3"),
    ("kill -9 $$", 1, "the command ended with signal 9"),
    ("echo nonsense", 1, "as JSON"),
    ("printf '\\377'", 1, "it is not valid UTF-8"),
    ("echo '[]'", 1, "the command printed an array"),
    ("true", 1, "as JSON"),
    ("echo '{\"a\": NaN}'", 1, "NaN is not JSON"),
    ("cat", 5, "by the schema of 'login'"),
    ("sleep 60", 1, "the command did not end within 0.3 s"),
    ("sleep 60 & echo '{}'", 1, "the command did not end within 0.3 s"),
]


@pytest.mark.parametrize(("words", "status", "message"), BAD)
def test_bad_files_change_nothing(farm: Farm, words: list[str], status: int, message: str) -> None:
    for name, text in FILES.items():
        (farm.place / name).write_text(text)
    said = farm.run("--yes", *words)
    assert (said.returncode, message in said.stderr) == (status, True), said.stderr
    assert "secret-" not in said.stderr + said.stdout
    for name in FILES:
        (farm.place / name).unlink()
    farm.assert_untouched()


@pytest.mark.parametrize(("command", "status", "message"), COMMANDS)
def test_bad_commands_change_nothing(farm: Farm, command: str, status: int, message: str) -> None:
    said = farm.run("--yes", "--run", command, "--run-timeout", "0.3")
    assert (said.returncode, message in said.stderr) == (status, True), said.stderr
    farm.assert_untouched()


def test_a_patch_that_fails_on_some_buckets(farm: Farm) -> None:
    farm.set(4, {"log": ["x" * 21]})
    farm.set(5, {"log": ["x" * 21]})
    said = farm.run("--yes")
    assert said.returncode == 5
    assert "cannot migrate login: 2 buckets cannot be changed; nothing was changed" in said.stderr
    assert "phone-4, login" in said.stderr
    assert farm.schema() == OLD
    assert "before.ndjson" not in farm.files()


def test_over_the_size_limit(farm: Farm) -> None:
    command = 'printf \'{"sessionToken": "%1100000d"}\' 0'
    said = farm.run("--yes", "--run", command)
    assert said.returncode == 1
    assert "allowed are 1048576" in said.stderr
    farm.assert_untouched()


def test_an_unreadable_bucket_is_left_alone(farm: Farm) -> None:
    path = farm.daemon.bucket_path("phone-7", "broken")
    # The directory exists once the daemon has written its files.
    farm.daemon.restart()
    path.write_bytes(b"{ rotten")
    said = farm.run("--yes")
    assert said.returncode == 1, said.stderr
    assert "left alone, because it cannot be read" in said.stderr
    assert not json.loads(said.stdout)["complete"]
    assert path.read_bytes() == b"{ rotten"
    assert farm.schema() == NEW
    # Once it is readable, the same command finds what it has left.
    broken = f"{pair('phone-7', 'broken')}?automation=login"
    assert farm.daemon.request("PUT", broken, farm.new(7)).status == 200
    said = farm.run("--yes")
    assert (said.returncode, json.loads(said.stdout)["complete"]) == (0, True)
    assert all(farm.bucket(n) == farm.new(n) for n in range(12))


def test_two_at_a_time(farm: Farm) -> None:
    run = f"sleep 0.2; {sys.executable} cmd.py"
    first = subprocess.Popen(
        [*CTL, *farm.words("--yes", "--run", run)], cwd=farm.place, env=farm.ctl.environ,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    second = farm.run("--yes", "--run", run)
    _, stderr = first.communicate(timeout=60)
    codes = {first.returncode, second.returncode}
    assert 0 in codes, (stderr, second.stderr)
    farm.assert_done(farm.run("--yes"))


def test_without_a_schema_before(daemon: Daemon, tmp_path: Path) -> None:
    farm = Farm(daemon, tmp_path, 3)
    daemon.request("DELETE", "/v1/schemas/login")
    farm.killed("after PUT /bucket 2")
    farm.assert_done(farm.run("--yes"))


@pytest.mark.parametrize("id_", [{}, {"$id": "https://example.org/login"}])
def test_schemas_of_one_name(daemon: Daemon, tmp_path: Path, id_: dict[str, str]) -> None:
    """Both may have an $id, and the field form may become a JSON Schema."""
    farm = Farm(daemon, tmp_path, 3)
    assert daemon.request("PUT", "/v1/schemas/login", {**OLD, **id_}).status == 200
    (tmp_path / "new.json").write_text(json.dumps({**NEW, **id_}))
    said = farm.run("--yes")
    assert said.returncode == 0, said.stderr
    assert ("cannot be combined" in said.stderr) == bool(id_)
    assert farm.schema() == {**NEW, **id_}
    assert all(farm.bucket(n) == farm.new(n) for n in range(3))


def test_a_schema_that_tolerates(daemon: Daemon, tmp_path: Path) -> None:
    """What it lets pass passes while the migration runs, too."""
    farm = Farm(daemon, tmp_path, 3)
    narrow = {**OLD, "properties": {**OLD["properties"], "n": {"maximum": 0}}}
    path = "/v1/schemas/login?existing=tolerate"
    assert daemon.request("PUT", path, narrow).status == 200
    farm.killed("before PUT /bucket 1")
    farm.set(2, {"log": []})
    farm.assert_done(farm.run("--yes"))
