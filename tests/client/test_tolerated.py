"""What a schema tolerates reaches people and programs: bucketctl, and the Python client."""

from __future__ import annotations

import asyncio
import json
import warnings
from pathlib import Path
from typing import Any

import pytest
from bucketd_client import Bucket, SchemaViolation, SchemaWarning, WriteSuccess, agent
from bucketd_client.aio import AsyncBucket
from bucketd_client.aio import agent as async_agent
from ctl_shell import Shell
from harness import Daemon, pair

SCHEMA = {"properties": {"n": {"type": "number"}}, "required": ["owner"]}
OLD = {"n": "text", "b": 1}


@pytest.fixture
def ctl(daemon: Daemon, tmp_path: Path) -> Shell:
    (tmp_path / "login.json").write_text(json.dumps(SCHEMA))
    return Shell(daemon)


def store(daemon: Daemon, job: str = "j") -> None:
    target = f"{pair('d', job)}?automation=login&revision=1"
    assert daemon.request("PUT", target, OLD).status == 200


def tolerate(daemon: Daemon) -> None:
    assert daemon.request("PUT", "/v1/schemas/login?existing=tolerate", SCHEMA).status == 200


def mode(daemon: Daemon) -> Any:
    return daemon.request("GET", "/v1/schemas/login").json["existing"]


D = ("--device", "d", "--job", "j")


def test_schema_set_list_and_get(ctl: Shell, daemon: Daemon, tmp_path: Path) -> None:
    store(daemon)
    path = str(tmp_path / "login.json")
    assert ctl("schema", "set", "login", path).returncode == 5
    said = ctl.json("schema", "set", "login", path, "--tolerate")
    assert (said["existing"], said["count"]) == ("tolerate", 1)
    assert [row["existing"] for row in ctl.json("schema", "list")] == ["tolerate"]
    assert "EXISTING" in ctl.on_terminal("schema", "list")
    assert ctl.json("schema", "get", "login", "--json")["existing"] == "tolerate"
    shown = ctl("schema", "get", "login")
    assert json.loads(shown.stdout) == SCHEMA
    assert "tolerates" in shown.stderr
    assert "--tolerate" in shown.stderr
    seen = ctl.on_terminal("schema", "set", "login", path, "--tolerate")
    assert "1 stored buckets violate it, which is tolerated:" in seen
    assert "d, j: /n must be a number" in seen
    ctl.json("schema", "set", "login", path, "--force")
    assert mode(daemon) == "refuse"
    assert ctl("schema", "get", "login").stderr == ""


def test_writes_warn_on_standard_error(ctl: Shell, daemon: Daemon) -> None:
    store(daemon)
    tolerate(daemon)
    for words in (("set", "b:=2"), ("set", "b:=3", "--quiet"), ("unset", "b"), ("set", "c=")):
        done = ctl(words[0], *D, *words[1:])
        assert done.returncode == 0, done
        lines = sorted(done.stderr.splitlines())
        assert [line.partition(" must ")[0] for line in lines] == [
            "bucketctl: d, j: /n",
            "bucketctl: d, j: the bucket",
        ]
        assert all("bucketctl edit" in line for line in lines)
    done = ctl("set", *D, "b:=4", "--json")
    assert [each["path"] for each in json.loads(done.stdout)["warnings"]] == ["", "/n"]
    refused = ctl("set", *D, "n=other")
    assert refused.returncode == 5
    assert "owner" not in refused.stderr
    fixed = ctl("set", *D, "n:=1", "owner=ada")
    assert (fixed.returncode, fixed.stderr) == (0, "")


def test_very_many_are_counted(ctl: Shell, daemon: Daemon) -> None:
    target = f"{pair('d', 'j')}?automation=login&revision=1"
    daemon.request("PUT", target, {"a": [1] * 50})
    schema = {"properties": {"a": {"items": {"type": "string"}}}}
    daemon.request("PUT", "/v1/schemas/login?existing=tolerate", schema)
    lines = ctl("set", *D, "b:=1").stderr.splitlines()
    assert len(lines) == 21
    assert "30 more violations are tolerated" in lines[-1]


def test_doctor_lists_what_is_tolerated(ctl: Shell, daemon: Daemon) -> None:
    store(daemon)
    tolerate(daemon)
    rows = json.loads(ctl("doctor", "--buckets").stdout)["findings"]
    [found] = [row for row in rows if row["about"] == "schema"]
    assert found["level"] == "warning"
    assert found["what"].startswith("the schema of login tolerates d, j: ")
    assert "/n must be a number, got a string of 4 characters (type)" in found["what"]
    assert "must have 'owner' (required)" in found["what"]
    assert found["fix"] == "bucketctl edit --device d --job j"


def test_apply_sets_and_keeps_the_mode(ctl: Shell, daemon: Daemon, tmp_path: Path) -> None:
    place = tmp_path / "fleet"
    (place / "schemas").mkdir(parents=True)
    (place / "buckets").mkdir()
    (place / "schemas" / "login.json").write_text(json.dumps(SCHEMA))
    bucket = {"device": "d", "job": "j", "automation": "login", "bucket": {"b": 2}}
    (place / "buckets" / "j.json").write_text(json.dumps(bucket))
    store(daemon)

    def plan(*words: str, status: int = 0) -> dict[str, Any]:
        done = ctl("apply", "-f", str(place), *words)
        assert done.returncode == status, done
        return {step["kind"]: step for step in json.loads(done.stdout)["plan"]}

    refused = plan("--yes", status=5)
    assert [len(refused[kind]["refused"]) for kind in ("schema", "bucket")] == [1, 2]
    (place / "schemas" / "login.tolerate").touch()
    planned = plan("--yes")
    assert [len(planned[kind]["tolerated"]) for kind in ("schema", "bucket")] == [1, 2]
    assert (planned["schema"]["change"], planned["bucket"]["change"]) == ("created", "changed")
    assert mode(daemon) == "tolerate"
    # Whatever the directory says of the schema next, the mode in force stays.
    (place / "schemas" / "login.tolerate").unlink()
    assert plan("--yes")["schema"]["change"] == "unchanged"
    (place / "schemas" / "login.json").write_text(json.dumps(SCHEMA | {"title": "new"}))
    bucket["bucket"] = {"b": 3}
    (place / "buckets" / "j.json").write_text(json.dumps(bucket))
    changed = plan("--yes")
    assert (changed["schema"]["change"], len(changed["bucket"]["tolerated"])) == ("changed", 2)
    assert mode(daemon) == "tolerate"
    # The mode alone is a change as well.
    daemon.request("PUT", "/v1/schemas/login?force=true", SCHEMA | {"title": "new"})
    assert mode(daemon) == "refuse"
    (place / "schemas" / "login.tolerate").touch()
    assert plan("--yes")["schema"]["places"] == ["(existing)"]
    assert mode(daemon) == "tolerate"


# --- the Python client


def warned(found: list[warnings.WarningMessage]) -> list[list[str]]:
    assert all(each.filename == __file__ for each in found), [each.filename for each in found]
    assert all(isinstance(each.message, SchemaWarning) for each in found)
    return [[wrong["path"] for wrong in each.message.details] for each in found]  # type: ignore[union-attr]


def test_results_have_the_warnings(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    store(daemon)
    tolerate(daemon)
    monkeypatch.setenv("BUCKETD_SOCKET", daemon.socket)
    monkeypatch.setenv("BUCKETD_TOKEN", daemon.mint("d", "j", "login"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = agent.utils.bucket.set({"b": 2})
        assert result.success
        assert [each["keyword"] for each in result.warnings] == ["required", "type"]
        assert result["warnings"] == result.warnings
        minimal = agent.utils.bucket.set({"b": 3}, returning=False)
        assert isinstance(minimal, WriteSuccess)
        assert len(minimal.warnings) == 2
        awaited = asyncio.run(async_agent.utils.bucket.set({"b": 4}))
        assert awaited.success
        assert len(awaited.warnings) == 2
        read = agent.utils.bucket.get()
        assert read.success
        assert read.warnings == []
        assert "warnings" not in read


def test_buckets_warn_at_the_line_of_the_caller(daemon: Daemon) -> None:
    store(daemon)
    tolerate(daemon)
    bucket = Bucket(device="d", job="j", automation="login", socket=daemon.socket)
    both = ["", "/n"]
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        assert bucket.set(b=2) == {"n": "text", "b": 2}
        assert bucket.set(b=3, returning=False) is None
        bucket.replace({"n": "text", "c": 1})
        bucket.merge_patch({"c": {"x": 1}})
        bucket.json_patch([{"op": "add", "path": "/d", "value": 1}])
        bucket.remove("d")
        bucket.update(lambda now: now.update(e=1))
        assert warned(found) == [both] * 7
        found.clear()
        bucket.get()
        bucket.set(owner="ada", n=1)
        bucket.clear()
        assert found == []
    with pytest.raises(SchemaViolation):
        bucket.set(n="text")


def test_buckets_of_asyncio_warn_as_well(daemon: Daemon) -> None:
    store(daemon)
    tolerate(daemon)

    async def write() -> None:
        bucket = AsyncBucket(device="d", job="j", automation="login", socket=daemon.socket)
        await bucket.set(b=2)
        await bucket.replace({"n": "text"}, returning=False)
        await bucket.update(lambda now: now.update(e=1))

    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        asyncio.run(write())
        assert warned(found) == [["", "/n"]] * 3
