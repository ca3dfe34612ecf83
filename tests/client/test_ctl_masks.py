"""bucketctl shows no secret on a terminal unless --reveal, and writes none of its masks."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import pytest
from ctl_shell import CTL, Shell, read_terminal, session_leader
from fake import Seen, answer, fake
from harness import Daemon

MASK = {"$masked": True}
SCHEMA = {
    "fields": [
        {"name": "token", "type": "any", "secret": True},
        {"name": "login", "type": "object",
         "properties": [{"name": "password", "type": "any", "secret": True}]},
        {"name": "accounts", "type": "array", "items": {
            "type": "object", "properties": [{"name": "pin", "type": "any", "secret": True}]}},
    ]
}  # fmt: skip
BUCKET = {
    "token": "canary-1",
    "login": {"password": "canary-2", "user": "ada"},
    "accounts": [{"pin": "canary-3"}, {"pin": "canary-4"}],
    "n": 1,
}
CANARY, SHOWN = "canary", "••••"


@pytest.fixture
def ctl(shared_daemon: Daemon) -> Shell:
    shared_daemon.request("PUT", "/v1/schemas/masks", SCHEMA)
    return Shell(shared_daemon)


@pytest.fixture
def at(ctl: Shell, request: pytest.FixtureRequest) -> list[str]:
    """Options that name a bucket with secrets, of this test alone."""
    # A write names its bucket, so the name must not look like a secret.
    options = ["--device", f"phone-{zlib.crc32(request.node.name.encode())}", "--job", "login"]
    ctl.json("replace", *options, "--automation", "masks", "--data", json.dumps(BUCKET))
    return options


READS = ["get", "get token", "get token --raw", "get token n", "get login", "get --json",
         "set n:=2", "set n:=2 --json", "set token=canary-9", "unset n", "unset token",
         "replace --data {data}", "replace --data {data} --json"]  # fmt: skip


@pytest.mark.parametrize("line", READS)
def test_a_terminal_shows_masks(ctl: Shell, at: list[str], line: str) -> None:
    words = [word.format(data=json.dumps(BUCKET)) for word in line.split()]
    shown = ctl.on_terminal(*words, *at)
    assert SHOWN in shown
    assert CANARY not in shown
    assert "$masked" not in shown
    ctl.json("replace", *at, "--data", json.dumps(BUCKET))
    revealed = ctl.on_terminal(*words, *at, "--reveal")
    assert CANARY in revealed
    assert SHOWN not in revealed
    ctl.json("replace", *at, "--data", json.dumps(BUCKET))
    assert CANARY in ctl(*words, *at).stdout


def test_what_a_person_sees(ctl: Shell, at: list[str]) -> None:
    assert ctl.on_terminal("get", *at, "login") == ('{\n  "password": ••••,\n  "user": "ada"\n}\n')
    assert ctl.on_terminal("get", *at, "token") == "••••\n"
    text = json.dumps({"x": json.dumps(MASK)})
    ctl.json("set", *at, "--data", text)
    assert json.loads(ctl.on_terminal("get", *at, "x")) == json.dumps(MASK)


def test_the_context_of_a_run(ctl: Shell, at: list[str]) -> None:
    token = {"BUCKETD_TOKEN": ctl.daemon.mint(at[1], "login", "masks")}
    assert ctl.on_terminal("get", "token", env=token) == "••••\n"
    assert ctl.json("get", env=token) == BUCKET
    assert ctl.json("get", "--device-bucket", env=token) == {}


def test_an_export(ctl: Shell, at: list[str], tmp_path: Path) -> None:
    of = at[:2]
    shown = ctl.on_terminal("export", *of)
    assert SHOWN in shown
    assert CANARY not in shown
    assert CANARY in ctl.on_terminal("export", *of, "--reveal")
    assert CANARY in ctl("export", *of).stdout
    file = tmp_path / "kept.ndjson"
    ctl.on_terminal("export", *of, "--output", str(file))
    assert json.loads(file.read_text())["bucket"] == BUCKET
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_list_and_a_plan_have_no_values(ctl: Shell, at: list[str], tmp_path: Path) -> None:
    (tmp_path / "buckets").mkdir()
    wanted = {"device": at[1], "job": "login", "bucket": {"token": "canary-5", "n": 3}}
    (tmp_path / "buckets" / "b.json").write_text(json.dumps(wanted))
    for words in (["list"], ["apply", "-f", str(tmp_path), "--dry-run"], ["status"], ["doctor"]):
        shown = ctl.on_terminal(*words)
        # Other tests have canaries in the names of their buckets.
        assert not any(f"canary-{number}" in shown for number in (1, 2, 3, 4, 5))


# --- diff


def test_diff_with_a_file(ctl: Shell, at: list[str], tmp_path: Path) -> None:
    file = tmp_path / "other.json"
    other = {"token": "canary-7", "login": {"password": "canary-2", "user": "bob"}, "new": 1,
             "accounts": [{"pin": "canary-8"}]}  # fmt: skip
    file.write_text(json.dumps(other))
    shown = ctl.on_terminal("diff", *at, str(file), env={"NO_COLOR": "1"})
    assert shown.splitlines() == [
        "- /token: ••••",
        "+ /token: ••••",
        '- /login/user: "ada"',
        '+ /login/user: "bob"',
        '- /accounts: [{"pin": ••••}, {"pin": ••••}]',
        '+ /accounts: [{"pin": ••••}]',
        "- /n: 1",
        "+ /new: 1",
    ]
    as_json = ctl.on_terminal("diff", *at, str(file), "--json")
    assert CANARY not in as_json
    assert '"after": ••••' in as_json
    assert "canary-8" in ctl.on_terminal("diff", *at, str(file), "--reveal")
    assert "canary-8" in ctl("diff", *at, str(file)).stdout


def test_secrets_alone_differ(ctl: Shell, at: list[str], tmp_path: Path) -> None:
    """Masks look alike, and yet what is behind them is compared."""
    file = tmp_path / "other.json"
    file.write_text(json.dumps(BUCKET | {"token": {"a": [1]}}))
    assert ctl.on_terminal("diff", *at, str(file), env={"NO_COLOR": "1"}) == (
        "- /token: ••••\n+ /token: ••••\n"
    )
    file.write_text(json.dumps(BUCKET))
    assert ctl.on_terminal("diff", *at, str(file)) == ""


def test_diff_of_two_buckets(ctl: Shell, at: list[str]) -> None:
    ctl.json("set", *at, 'token:={"a": "canary-5", "b": 1}')
    other = ["--device", f"{at[1]}-2", "--job", "login"]
    changed = BUCKET | {"token": {"a": "canary-6", "b": 2}, "n": 5}
    ctl.json("replace", *other, "--automation", "masks", "--data", json.dumps(changed))
    shown = ctl.on_terminal(
        "diff", *at, "--to-device", other[1], "--to-job", "login", env={"NO_COLOR": "1"}
    )
    assert shown == "- /token: ••••\n+ /token: ••••\n- /n: 1\n+ /n: 5\n"


def test_diff_with_a_file_inside_a_run(ctl: Shell, at: list[str], tmp_path: Path) -> None:
    """A token does not tell what else a schema marks, so nothing is shown that may be a secret."""
    file = tmp_path / "other.json"
    file.write_text(json.dumps({"token": "canary-7"}))
    token = {"BUCKETD_TOKEN": ctl.daemon.mint(at[1], "login", "masks")}
    shown = ctl.on_terminal("diff", str(file), env=token)
    assert CANARY not in shown
    assert "show them all with --reveal" in shown
    assert "canary-7" in ctl.on_terminal("diff", str(file), "--reveal", env=token)


# --- watch


def test_watch(ctl: Shell, at: list[str]) -> None:
    for more in ([], ["--json"], ["--all", "--device", at[1]]):
        where = at if not more or more == ["--json"] else []
        ours, process = session_leader(
            [*CTL, "watch", *where, *more], {**ctl.environ, "NO_COLOR": "1"}
        )
        time.sleep(1)
        ctl.json("set", *at, "token=canary-7", "n:=1")
        ctl.json("set", *at, 'login:={"password": "canary-8", "user": "ada"}')
        ctl.json("set", *at, "last:=1")
        shown = read_terminal(ours, "last")
        process.send_signal(signal.SIGINT)
        process.wait(10)
        os.close(ours)
        assert CANARY not in shown, more
        assert shown.count(SHOWN) >= 2, more
        ctl.json("replace", *at, "--data", json.dumps(BUCKET))


# --- edit


def editor(place: Path, script: str) -> dict[str, str]:
    """An editor that does this to ``text``, and keeps what it was shown."""
    file = place / "editor.py"
    file.write_text(
        "import json, pathlib, sys\n"
        "path = pathlib.Path(sys.argv[1])\n"
        "text = path.read_text()\n"
        f"pathlib.Path({str(place / 'seen.json')!r}).write_text(text)\n"
        f"data = json.loads(text)\n{script}\n"
        "path.write_text(json.dumps(data))\n"
    )
    return {"VISUAL": f"{sys.executable} '{file}'", "TMPDIR": str(place), "NO_COLOR": "1"}


def test_edit_keeps_secrets(ctl: Shell, at: list[str], tmp_path: Path) -> None:
    script = "data['login']['user'] = 'bob'; data['new'] = 1; del data['n']"
    after = ctl.json("edit", *at, env=editor(tmp_path, script))
    expected = {**BUCKET, "login": {"password": "canary-2", "user": "bob"}, "new": 1}
    del expected["n"]
    assert after == ctl.json("get", *at) == expected
    assert CANARY not in (tmp_path / "seen.json").read_text()


def test_edit_sends_only_what_changed(ctl: Shell, at: list[str], tmp_path: Path) -> None:
    """Read from the bytes on the socket, so that a PUT of the whole would be seen."""
    bodies: list[tuple[str, Any]] = []

    def script(connection: Any, request: Seen, _: int) -> bool:
        reply = ctl.daemon.request(
            request.method, request.target, request.body or None,
            {k.title(): v for k, v in request.headers.items() if k in ("if-match", "content-type")},
        )  # fmt: skip
        if request.body:
            bodies.append((request.headers["content-type"], json.loads(request.body)))
        answer(connection, reply.status, reply.body, {"ETag": str(reply.etag)})
        return True

    with fake(script) as server:
        env = {"BUCKETD_SOCKET": server.path}
        ctl.json("edit", *at, env={**editor(tmp_path, "data['n'] = 2"), **env})
        ctl.json("edit", *at, env={**editor(tmp_path, "del data['n']"), **env})
        ctl.json("edit", *at, env={**editor(tmp_path, "data['token'] = 'canary-new'"), **env})
    assert bodies == [
        ("application/json", {"n": 2}),
        ("application/json-patch+json", [{"op": "remove", "path": "/n"}]),
        ("application/json", {"token": "canary-new"}),
    ]


def test_edit_on_a_terminal_shows_no_secret(ctl: Shell, at: list[str], tmp_path: Path) -> None:
    script = "data['token'] = 'canary-5'; data['n'] = 2"
    shown = ctl.on_terminal("edit", *at, env=editor(tmp_path, script))
    assert shown == "- /token: ••••\n+ /token: ••••\n- /n: 1\n+ /n: 2\n"
    assert ctl.json("get", *at, "token") == "canary-5"


def test_edit_reveals(ctl: Shell, at: list[str], tmp_path: Path) -> None:
    script = "data['accounts'].reverse(); data['n'] = 2"
    shown = ctl.on_terminal("edit", *at, "--reveal", env=editor(tmp_path, script))
    assert "canary-3" in shown
    assert json.loads((tmp_path / "seen.json").read_text()) == BUCKET
    assert ctl.json("get", *at, "accounts") == BUCKET["accounts"][::-1]  # type: ignore[index]


@pytest.mark.parametrize(
    ("script", "place"),
    [
        ("data['accounts'].reverse(); data['accounts'][0]['x'] = 1", "/accounts/0/pin"),
        ("del data['accounts'][0]", "/accounts/0/pin"),
        ("data['pin'] = data['token']", "/pin"),
        ("data['login']['again'] = data['login'].pop('password')", "/login/again"),
        ("data['token']['beside'] = 1", "/token"),
        ("data['n'] = [data['token']]", "/n/0"),
    ],
)
def test_edit_never_guesses_a_secret(
    ctl: Shell, at: list[str], tmp_path: Path, script: str, place: str
) -> None:
    done = ctl("edit", *at, env=editor(tmp_path, script))
    assert done.returncode == 2
    assert f"the mask at {place} stands for" in done.stderr
    assert CANARY not in done.stderr + done.stdout
    assert ctl.json("get", *at) == BUCKET


def test_a_conflict_on_a_terminal_shows_no_secret(
    ctl: Shell, at: list[str], tmp_path: Path
) -> None:
    words = [*CTL, "set", *at, "token=canary-6", "n:=7"]
    script = f"import subprocess; subprocess.run({words!r}, stdout=-3); data['n'] = 2"
    ours, process = session_leader([*CTL, "edit", *at], {**ctl.environ, **editor(tmp_path, script)})
    shown = read_terminal(ours, "edit again?")
    os.write(ours, b"n\n")
    process.wait(10)
    os.close(ours)
    assert "+ /token: ••••" in shown
    assert "+ /n: 7" in shown
    assert CANARY not in shown


@pytest.mark.parametrize("form", [["--json"], ["--json", "--reveal"]])
def test_edit_goes_on_from_either_etag(
    ctl: Shell, at: list[str], tmp_path: Path, form: list[str]
) -> None:
    shown = ctl.on_terminal("get", *at, *form)
    etag = json.loads(shown[shown.index('"etag":') + 7 : shown.rindex("}")])
    env = editor(tmp_path, "data['n'] = 2")
    assert ctl.json("edit", *at, "--if-match", etag, env=env)["n"] == 2
    assert ctl("edit", *at, "--if-match", etag, env=env).returncode == 6


# --- import


@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_an_import_of_masks_is_refused(
    ctl: Shell, at: list[str], tmp_path: Path, dry: list[str]
) -> None:
    row = ctl.daemon.request("GET", f"/v1/export?device={at[1]}&mask=secrets".replace("[", "%5B")
                             .replace("]", "%5D")).json["envelopes"][0]  # fmt: skip
    good = row | {"device": f"{at[1]}-3", "bucket": {"n": 1}, "automation": None}
    file = tmp_path / "masked.ndjson"
    escaped = json.dumps(row).replace("$masked", "\\u0024masked")
    file.write_text(f"{json.dumps(row)}\n{json.dumps(good)}\n{escaped}\n")
    done = ctl("import", str(file), *dry)
    assert done.returncode == 2
    assert done.stderr.count(f"({at[1]}, login): the value at /token is a mask") == 2
    assert json.loads(done.stdout.splitlines()[-1])["refused"] == 2
    assert ctl.json("get", *at) == BUCKET


def test_apply_refuses_masks(ctl: Shell, at: list[str], tmp_path: Path) -> None:
    (tmp_path / "buckets").mkdir()
    wanted = {"device": at[1], "job": "login", "bucket": {"token": MASK}}
    (tmp_path / "buckets" / "b.json").write_text(json.dumps(wanted))
    done = ctl("apply", "-f", str(tmp_path), "--yes")
    assert (done.returncode, "the value at /token is a mask" in done.stderr) == (2, True)
    assert ctl.json("get", *at) == BUCKET


def test_a_write_of_a_mask_is_refused(ctl: Shell, at: list[str]) -> None:
    done = ctl("set", *at, f"token:={json.dumps(MASK)}")
    assert (done.returncode, "cannot write a mask" in done.stderr) == (1, True)
    assert ctl.json("get", *at) == BUCKET


def test_a_daemon_that_cannot_mask(ctl: Shell, at: list[str]) -> None:
    """Nothing is shown rather than a secret, and what to do is told."""

    def script(connection: Any, request: Seen, _: int) -> bool:
        if "mask=" in request.target:
            cause = "cannot use the parameter 'mask': this route has key"
            answer(connection, 400, {"success": False, "code": "invalid_request", "error": cause})
        else:
            answer(connection, 200, {"success": True, "bucket": BUCKET, "revision": 1})
        return True

    with fake(script) as server:
        env = {"BUCKETD_SOCKET": server.path}
        shown = ctl.on_terminal("get", *at, env=env)
        assert "too old to mask secrets: upgrade it, or show them with --reveal" in shown
        assert CANARY not in shown
        assert CANARY in ctl.on_terminal("get", *at, "--reveal", env=env)


def test_curl_is_the_request_of_a_script(ctl: Shell, at: list[str]) -> None:
    shown = ctl.on_terminal("get", *at, "--curl")
    assert "mask" not in shown
    assert subprocess.run(["sh", "-c", shown], capture_output=True).returncode == 0
