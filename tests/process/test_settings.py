"""Flags, environment, files: what is in force, and what is refused with which words."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from harness import REPO, Daemon, pair

Outcome = subprocess.CompletedProcess[str]


def bucketd(*args: str, env: dict[str, str] | None = None) -> Outcome:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("BUCKETD_", "XDG_"))}
    clean["XDG_RUNTIME_DIR"] = "/tmp"  # who is not root needs one
    command = [sys.executable, "-W", "error", "-m", "bucketd", *args]
    return subprocess.run(
        command, cwd=REPO, env={**clean, **(env or {})}, capture_output=True, text=True, timeout=20
    )


def in_force(*args: str, env: dict[str, str] | None = None) -> dict[str, str]:
    """What ``--check-config`` shows."""
    outcome = bucketd("--check-config", *args, env=env)
    assert (outcome.returncode, outcome.stderr) == (0, ""), outcome
    lines = (line.split("  # ")[0] for line in outcome.stdout.splitlines())
    return dict(line.split(" = ", 1) for line in lines)


def refused(outcome: Outcome, *words: str) -> None:
    """One line on standard error that holds these words, and exit status 1."""
    assert outcome.returncode == 1, outcome
    assert outcome.stdout == ""
    assert "Traceback" not in outcome.stderr, outcome.stderr
    assert len(outcome.stderr.strip().splitlines()) == 1, outcome.stderr
    assert outcome.stderr.startswith("bucketd: cannot "), outcome.stderr
    for word in words:
        assert word in outcome.stderr, outcome.stderr


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "bucketd.toml"
    path.write_text("")
    return path


def test_version() -> None:
    outcome = bucketd("--version")
    assert outcome.returncode == 0
    assert outcome.stdout.startswith("bucketd 0.")


def test_help_names_every_flag() -> None:
    outcome = bucketd("--help")
    assert outcome.returncode == 0
    flags = "--config --state-dir --runtime-dir --socket --log-level --unsafe-filesystem"
    for flag in [*flags.split(), "--check-config", "--version", "--help"]:
        assert flag in outcome.stdout


@pytest.mark.parametrize(
    "args",
    [
        *(["--nonsense"], ["--state", "/tmp/x"], ["--check"], ["--vers"], ["start"]),
        *(["serve", "serve"], ["--state-dir"], ["--version=1"], ["-x"], ["--unsafe"]),
    ],
)
def test_usage_errors(args: list[str]) -> None:
    outcome = bucketd(*args)
    assert outcome.returncode == 2, outcome
    assert outcome.stdout == ""
    assert "usage: bucketd" in outcome.stderr


def test_checking_makes_nothing(tmp_path: Path) -> None:
    state, runtime = tmp_path / "state", tmp_path / "run"
    found = in_force("--state-dir", str(state), "--runtime-dir", str(runtime))
    assert found["paths.state_dir"] == json.dumps(str(state))
    assert found["socket.path"] == json.dumps(str(runtime / "bucketd.sock"))
    assert list(tmp_path.iterdir()) == []


def test_what_is_changed_is_shown_alone(config: Path) -> None:
    config.write_text("[limits]\nmax_watchers = 7\nmax_holds = 4000\n")
    outcome = bucketd("--check-config", "--changed", "--config", str(config), "--state-dir", "/s")
    assert outcome.stdout.splitlines() == [
        'paths.state_dir = "/s"  # command line',
        f"limits.max_watchers = 7  # {config}",
    ]


def test_a_quiet_check_says_only_what_is_wrong(config: Path) -> None:
    outcome = bucketd("--check-config", "--quiet", "--config", str(config))
    assert (outcome.returncode, outcome.stdout, outcome.stderr) == (0, "", "")
    config.write_text("[limits]\nmax_watcher = 7\n")
    refused(bucketd("--check-config", "--quiet", "--config", str(config)), "max_watchers")


@pytest.mark.parametrize("flag", ["--changed", "--quiet"])
def test_what_belongs_to_a_check_is_refused_elsewhere(flag: str) -> None:
    outcome = bucketd(flag)
    assert (outcome.returncode, "without --check-config" in outcome.stderr) == (2, True)


def test_serve_is_optional() -> None:
    assert in_force() == in_force("serve")


def test_defaults() -> None:
    found = in_force()
    assert found["store.durability"] == '"strict"'
    assert found["limits.max_bucket_bytes"] == str(1024 * 1024)
    assert found["socket.mode"] == '"0666"'
    assert found["limits.header_timeout_seconds"] == "10.0"
    assert found["limits.body_timeout_seconds"] == "30.0"


def test_directories_of_root_and_of_systemd() -> None:
    if os.geteuid() == 0:
        found = in_force()
        assert found["paths.state_dir"] == '"/var/lib/bucketd"'
        assert found["socket.path"] == '"/run/bucketd/bucketd.sock"'
    env = {"STATE_DIRECTORY": "/a/state", "RUNTIME_DIRECTORY": "/a/run:/b/run"}
    found = in_force(env=env)
    assert found["paths.state_dir"] == '"/a/state"'
    assert found["socket.path"] == '"/a/run/bucketd.sock"'


def test_environment_names_every_setting() -> None:
    """Each may be given as it is shown."""
    given = {name: value.strip('"') for name, value in in_force().items() if value != "[]"}
    env = {f"BUCKETD_{name.replace('.', '_').upper()}": given[name] for name in given}
    assert {name: value.strip('"') for name, value in in_force(env=env).items()}.items() >= (
        given.items()
    )
    env = {
        "BUCKETD_LIMITS_MAX_CONNECTIONS": "12",
        "BUCKETD_STORE_LOCK_TIMEOUT_SECONDS": "1.5",
        "BUCKETD_STORE_UNSAFE_FILESYSTEM": "true",
        "BUCKETD_ACCESS_OPERATOR_USERS": "root, daemon",
        "BUCKETD_SOCKET_PATH": "/somewhere/else.sock",
        "BUCKETD_LOG_LEVEL": "error",
    }
    found = in_force(env=env)
    assert found["limits.max_connections"] == "12"
    assert found["store.lock_timeout_seconds"] == "1.5"
    assert found["store.unsafe_filesystem"] == "true"
    assert found["access.operator_users"] == '["root", "daemon"]'
    assert found["socket.path"] == '"/somewhere/else.sock"'
    assert found["log.level"] == '"error"'


def test_what_is_shown_may_be_kept_as_a_file(config: Path) -> None:
    shown = bucketd("--check-config", env={"BUCKETD_ACCESS_OPERATOR_USERS": "root, daemon"}).stdout
    config.write_text(shown)
    before = [line.partition("  # ")[0] for line in shown.splitlines()]
    after = [f"{name} = {value}" for name, value in in_force("--config", str(config)).items()]
    assert after == before


def test_variables_of_clients_do_not_matter() -> None:
    clients = {"SOCKET": "/x", "TOKEN": "t", "TOKEN_FILE": "/t", "DEVICE": "d", "JOB": "j"}
    env = {f"BUCKETD_{name}": value for name, value in clients.items()}
    assert in_force(env={**env, "BUCKETD_AUTOMATION": "a"}) == in_force()


def test_flag_then_environment_then_drop_ins_then_file_then_default(config: Path) -> None:
    config.write_text(
        '[log]\nlevel = "debug"\n[limits]\nmax_connections = 1\nidle_timeout_seconds = 1\n'
        "[contexts]\nmax_live = 1\n[store]\nlock_timeout_seconds = 1\n"
    )
    drop_ins = config.with_name("bucketd.d")
    drop_ins.mkdir()
    (drop_ins / "10-first.toml").write_text(
        "[limits]\nmax_connections = 2\nidle_timeout_seconds = 2\n[contexts]\nmax_live = 2\n"
    )
    (drop_ins / "20-second.toml").write_text('[limits]\nmax_connections = 3\n[log]\nlevel="info"\n')
    (drop_ins / "30-no.conf").write_text("this is not read")
    env = {"BUCKETD_LIMITS_MAX_CONNECTIONS": "4", "BUCKETD_LOG_LEVEL": "warning"}
    found = in_force("--config", str(config), "--log-level", "error", env=env)
    assert found["log.level"] == '"error"'
    assert found["limits.max_connections"] == "4"
    assert in_force("--config", str(config))["limits.max_connections"] == "3"
    assert float(found["limits.idle_timeout_seconds"]) == 2
    assert found["contexts.max_live"] == "2"
    assert float(found["store.lock_timeout_seconds"]) == 1
    assert found["limits.max_bucket_bytes"] == in_force()["limits.max_bucket_bytes"]


def test_a_user_has_directories_of_his_own(nobodys_daemon: Daemon) -> None:
    home = nobodys_daemon.home
    config = home / "config" / "bucketd" / "bucketd.toml"
    config.parent.mkdir(parents=True)
    config.write_text("[limits]\nmax_connections = 17\n")
    nobodys_daemon.env |= {f"XDG_{n}": str(home / n.split("_")[0].lower()) for n in XDG}
    command = [sys.executable, *nobodys_daemon.program, "--check-config"]
    environ = nobodys_daemon.environ()
    outcome = subprocess.run(command, cwd=REPO, env=environ, capture_output=True, text=True)
    assert outcome.returncode == 0, outcome
    assert f'paths.state_dir = "{home}/state/bucketd"' in outcome.stdout
    assert f'socket.path = "{home}/runtime/bucketd/bucketd.sock"' in outcome.stdout
    assert "limits.max_connections = 17" in outcome.stdout


XDG = ("CONFIG_HOME", "STATE_HOME", "RUNTIME_DIR")


def test_a_home_that_may_not_be_entered(nobodys_daemon: Daemon) -> None:
    """As after ``setpriv`` or ``sudo`` without a new HOME: it starts, or one line says why not."""
    closed = nobodys_daemon.home / "closed"
    closed.mkdir(mode=0o700)
    nobodys_daemon.env["HOME"] = str(closed)
    try:
        nobodys_daemon.start()
    except AssertionError:
        assert "Traceback" not in nobodys_daemon.log
        assert str(closed) in nobodys_daemon.log


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[limits]\nmax_bucket_byte = 1\n", ["max_bucket_bytes"]),
        ("[limit]\nmax_bucket_bytes = 1\n", ["[limit]", "limits"]),
        ("[limits]\nmax_connections = 'many'\n", ["max_connections", "a string of 4 characters"]),
        ("[limits]\nmax_connections = true\n", ["limits.max_connections"]),
        ("[limits]\nmax_connections = 1.5\n", ["limits.max_connections"]),
        ("[limits]\nmax_connections = 0\n", ["limits.max_connections"]),
        ("[limits]\nmax_connections = -1\n", ["limits.max_connections"]),
        ("[limits]\nidle_timeout_seconds = nan\n", ["limits.idle_timeout_seconds"]),
        ("[limits]\nidle_timeout_seconds = inf\n", ["limits.idle_timeout_seconds"]),
        (f"[limits]\nidle_timeout_seconds = 1{'0' * 400}\n", ["limits.idle_timeout_seconds"]),
        ("[retention]\ndays = 1e9\n", ["retention.days", "36525", "100 years"]),
        ("[retention]\ninterval_seconds = 1e18\n", ["retention.interval_seconds", "100 years"]),
        ("[contexts]\nmax_ttl_seconds = 1e300\n", ["contexts.max_ttl_seconds", "100 years"]),
        ("[store]\ndurability = 'stict'\n", ["store.durability", "strict"]),
        ("[store]\nunsafe_filesystem = 'perhaps'\n", ["store.unsafe_filesystem"]),
        ("[socket]\nmode = '999'\n", ["socket.mode"]),
        ("[socket]\nmode = 666\n", ["socket.mode"]),
        ("[log]\nlevel = 'loud'\n", ["log.level", "warning"]),
        ("[access]\noperator_users = 5\n", ["access.operator_users"]),
        ("[access]\noperator_users = ['nobody-of-this-name']\n", ["nobody-of-this-name"]),
        ("[access]\noperator_groups = ['no-such-group-']\n", ["no-such-group-"]),
        ("[store.etcd]\nstale_reads = '5'\n", ["store.etcd.stale_reads", '"5m"']),
        ("[store.etcd]\nstale_reads = '-5m'\n", ["store.etcd.stale_reads"]),
        ("[store.etcd]\nstale_reads = 'nans'\n", ["store.etcd.stale_reads"]),
        ("[store.etcd]\nstale_reads = 5\n", ["store.etcd.stale_reads"]),
        ("[store.etcd]\nshards = ['http://a']\n", ["store.etcd.shards", "name=https://one"]),
        ("[store.etcd]\nshards = ['a=http://a']\n", ["store.etcd.shards", "endpoints"]),
        ("[store.etcd]\nshards = ['a=http://a', 'a=http://b']\n", ["two shards have the name 'a'"]),
        (
            "[store.etcd]\nendpoints = ['http://a']\nshards = ['a=http://a', 'b=http://b']\n",
            ["store.etcd.endpoints", "shards"],
        ),
        ("store = 1\n", ["write [store]"]),
        ("[store\n", ["bucketd.toml"]),
        ("[store]\na = '\ufffe\n", ["bucketd.toml"]),
    ],
)
def test_a_file_that_cannot_be_used(config: Path, text: str, words: list[str]) -> None:
    config.write_text(text)
    refused(bucketd("--check-config", "--config", str(config)), *words)


@pytest.mark.parametrize("kind", ["missing", "directory", "not text", "drop-in"])
def test_a_file_that_cannot_be_read(config: Path, kind: str) -> None:
    path = config
    if kind == "missing":
        path = config.with_name("other.toml")
    elif kind == "directory":
        path = config.parent
    elif kind == "not text":
        path.write_bytes(b"\xff\xfe\x00")
    else:
        path = config.with_name("bucketd.d") / "bad.toml"
        path.parent.mkdir()
        path.write_text("[sotre]\n")
    given = config if kind == "drop-in" else path
    refused(bucketd("--config", str(given)), str(path))


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("BUCKETD_LIMITS_MAX_CONECTIONS", "1", ["BUCKETD_LIMITS_MAX_CONNECTIONS"]),
        ("BUCKETD_STORE_DURABILTY", "strict", ["BUCKETD_STORE_DURABILITY"]),
        ("BUCKETD_LIMITS_MAX_CONNECTIONS", "many", ["MAX_CONNECTIONS", "a string of 4 characters"]),
        ("BUCKETD_LIMITS_MAX_CONNECTIONS", "", ["BUCKETD_LIMITS_MAX_CONNECTIONS"]),
        ("BUCKETD_LOG_LEVEL", "loud", ["BUCKETD_LOG_LEVEL", "warning"]),
        ("BUCKETD_LIMITS_MAX_BUCKET_BYTES", "70000000", ["the maximum is", "33554432"]),
        ("BUCKETD_PATHS_STATE_DIR", "", ["BUCKETD_PATHS_STATE_DIR", "empty"]),
    ],
)
def test_an_environment_that_cannot_be_used(name: str, value: str, words: list[str]) -> None:
    refused(bucketd("--check-config", env={name: value}), *words)


@pytest.mark.parametrize("flag", ["--config", "--state-dir", "--runtime-dir", "--socket"])
def test_an_empty_flag_is_not_the_default(flag: str) -> None:
    """A script whose variable is not set would be served from the host's own state."""
    refused(bucketd("--check-config", flag, ""), "empty", "leave it out")


def test_a_user_that_there_is_not(config: Path) -> None:
    config.write_text('[access]\noperator_users = ["nosuchuser"]\n')
    said = "cannot use access.operator_users"
    refused(bucketd("--config", str(config)), said, str(config), "no user 'nosuchuser'")


def test_a_flag_that_cannot_be_used() -> None:
    outcome = bucketd("--log-level", "loud")
    assert outcome.returncode in (1, 2)
    assert "log.level" in outcome.stderr
    assert "loud" not in outcome.stderr
    assert "warning" in outcome.stderr


def test_a_smaller_limit_is_in_force(stopped_daemon: Daemon) -> None:
    stopped_daemon.config.write_text("[limits]\nmax_bucket_bytes = 2000\n")
    daemon = stopped_daemon.start()
    answer = daemon.request("PUT", pair("phone", "job"), {"text": "x" * 3000})
    assert (answer.status, answer.json["code"]) == (413, "too_large")
    assert daemon.request("PUT", pair("phone", "job"), {"text": "x" * 1000}).status == 200
