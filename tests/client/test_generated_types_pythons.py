"""What ``bucketctl types --lang python`` writes runs on each Python that the client supports.

The modules need nothing at run time but the client: they run without typing_extensions, and do not
import it where it is.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import test_generated_types
import typing_extensions
from harness import Daemon
from type_checkers import PYTHON, bucketctl_types

VERSIONS = [f"3.{minor}" for minor in range(9, 15)]
# Every kind of declaration that a module can have, beside those of the other two schemas.
DECLARATIONS: dict[str, Any] = {
    "type": "object",
    "description": 'ends with "',
    "properties": {
        # Keys that no class may have, so that the TypedDict is a call.
        "class": {"type": "string", "description": "a keyword"},
        "first-name": {"enum": ["it's", "\\", "é\u2028", 1, 1.5, True, None]},
        "str": {"type": "array", "items": {"$ref": "#/$defs/tree"}},
        "__init__": {"const": "'"},
        "nothing": {"not": {}},
        "never": False,
        "empty": {"type": "object", "additionalProperties": False},
        "map": {"type": "object", "additionalProperties": {"$ref": "#/$defs/map"}},
        "either": {"anyOf": [{"$ref": "#/$defs/tree"}, {"type": "null"}, {"type": "array"}]},
    },
    "$defs": {
        "tree": {"type": "object", "required": ["value"], "properties": {
            "left": {"$ref": "#/$defs/tree"},
            "value": {"type": ["integer", "null"], "deprecated": True}}},
        "map": {"type": "object", "additionalProperties": {"$ref": "#/$defs/map"}},
        "if": {"type": "object", "properties": {"else": {"type": "string"}}},
    },
}  # fmt: skip
SCHEMAS: dict[str, Any] = {
    "login-session": test_generated_types.SCHEMA,
    "counter": test_generated_types.FIELDS,
    "declarations": DECLARATIONS,
    "mapping": {"type": "object", "additionalProperties": {"type": "integer"}},
    "anything": {},
}
PROGRAM = """
import asyncio
import sys

import anything, counter, declarations, login_session, mapping

assert not [name for name in sys.modules if name.startswith("bucketd_client")]
assert "typing_extensions" not in sys.modules

import bucketd_client
from bucketd_client import aio

for module in (anything, counter, declarations, login_session, mapping):
    assert module.Bucket is bucketd_client.Bucket
    assert module.AsyncBucket is bucketd_client.AsyncBucket
    assert module.agent is bucketd_client.agent
    assert module.async_agent is aio.agent
    assert not hasattr(module, "Bukcet")
    stem = module.__name__.title().replace("_", "")
    whole, part = getattr(module, stem + "Bucket", None), getattr(module, stem + "BucketPart", None)
    if module is not anything and module is not mapping:
        assert whole() == part() == {}
        bucketd_client.Bucket[whole, part]
        bucketd_client.AsyncBucket[whole, part]

job = sys.argv[1]
bucket = login_session.Bucket(device="d", job=job, automation="login-session")
stored = bucket.set({"loginTimestamp": 1.5}, loggedIn=True)
assert stored == {"loggedIn": True, "loginTimestamp": 1.5}
try:
    bucket.set({"loggedIn": "yes"})
except bucketd_client.SchemaViolation as refusal:
    assert "/loggedIn" in str(refusal)
else:
    raise AssertionError
assert bucket.replace(login_session.LoginSessionBucket(loggedIn=False)) == {"loggedIn": False}

later = counter.AsyncBucket(device="d", job=job + "-async", automation="counter")
assert asyncio.run(later.set({"attempts": 3}, tags=["a"])) == {"attempts": 3, "tags": ["a"]}
assert counter.agent.utils.bucket.get().success is False
"""


def interpreter(version: str) -> str:
    """Return the program of a Python version; skip where this machine does not have it."""
    places = sorted((Path.home() / ".pyenv" / "versions").glob(f"{version}.*/bin/python{version}"))
    for candidate in (shutil.which(f"python{version}"), *map(str, places)):
        # The shims of pyenv stand on PATH for versions that are not in use.
        if candidate and subprocess.run([candidate, "-c", ""], capture_output=True).returncode == 0:
            return candidate
    pytest.skip(f"Python {version} is not on this machine")


@pytest.fixture(scope="module")
def modules(shared_daemon: Daemon, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the module of each schema."""
    place = tmp_path_factory.mktemp("modules")
    for automation, schema in SCHEMAS.items():
        assert shared_daemon.request("PUT", f"/v1/schemas/{automation}", schema).status == 200
        path = place / f"{automation.replace('-', '_')}.py"
        words = (automation, "--lang", "python", "--output", str(path))
        assert bucketctl_types(shared_daemon, *words).returncode == 0
    return place


@pytest.mark.parametrize("extensions", [False, True], ids=["alone", "typing_extensions"])
@pytest.mark.parametrize("version", VERSIONS)
def test_a_module_runs(
    shared_daemon: Daemon, modules: Path, tmp_path: Path, version: str, extensions: bool
) -> None:
    # The interpreter's own packages are left out by -S.
    paths = [str(modules), str(PYTHON)]
    if extensions:
        shutil.copy(typing_extensions.__file__, tmp_path)
        paths.append(str(tmp_path))
    environ = {name: text for name, text in os.environ.items() if not name.startswith("BUCKETD_")}
    environ |= {
        "BUCKETD_SOCKET": shared_daemon.socket,
        "PYTHONPATH": ":".join(paths),
        # Other versions may run the same files.
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    job = f"{version}-{extensions}"
    done = subprocess.run(
        [interpreter(version), "-W", "error", "-S", "-c", PROGRAM, job],
        cwd=tmp_path, env=environ, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
