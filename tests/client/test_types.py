"""What a type checker says of code that uses the client: right is accepted, wrong refused."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from harness import REPO

ACCEPTED = """
from typing import Any, TypedDict

from bucketd_client import AsyncBucket, Bucket, BucketError, agent
from bucketd_client import aio

class Login(TypedDict):
    sessionToken: str
    loggedIn: bool

result = agent.utils.bucket.get()
if result.success:
    token = result.bucket.get("sessionToken")
    revision: int = result.revision
else:
    text: str = result.error
    code: str = result.code
    now: int | None = result.revision

device = agent.utils.deviceBucket.set({"model": "p7"})
if device.success:
    model: Any = device.deviceBucket["model"]

login: Bucket[Login] = Bucket(device="d", job="j")
stored: str = login.get()["sessionToken"]
updated: Login = login.update(lambda bucket: {**bucket, "loggedIn": True})
at: str = login.snapshot().bucket["sessionToken"]
plain: dict[str, Any] = Bucket().set(a=1)
Bucket().set(a=1, returning=False)
written_revision: int = agent.utils.bucket.set({}, returning=False).revision or 0
login.update(lambda bucket: bucket.update({"loggedIn": False}))

with login.hold("x", wait=5, on_lost=print) as held:
    token_of_held: str = held.set(loggedIn=True)["sessionToken"]
    fence: str = held.fence
    is_lost: bool = held.lost
refreshed: Login = login.refresh(
    lambda bucket: bucket["loggedIn"], lambda bucket: {"sessionToken": bucket["sessionToken"]}
)
refreshed = login.refresh(lambda bucket: True, lambda: {"loggedIn": True})
held_result = agent.utils.bucket.hold(wait=0)
if held_result.success:
    with held_result.held as held_by_agent:
        held_by_agent.set(a=1)
else:
    who: list[Any] = held_result.details
fresh = agent.utils.bucket.refresh(lambda bucket: "a" in bucket, lambda: {"a": 1})
if fresh.success:
    a: Any = fresh.bucket["a"]

async def play() -> None:
    async with AsyncBucket().hold() as held:
        found: dict[str, Any] = await held.get()
    found = await AsyncBucket().refresh(is_fresh, log_in)
    found = await AsyncBucket().refresh(lambda bucket: True, lambda: {"a": 1})
    answer = await aio.agent.utils.bucket.get()
    if not answer.success:
        print(answer.error)
    other: AsyncBucket[Login] = AsyncBucket(token="t")
    logged_in: bool = (await other.get())["loggedIn"]
    await other.update(log_out)

async def log_out(bucket: Login) -> None:
    bucket["loggedIn"] = False

async def is_fresh(bucket: dict[str, Any]) -> bool:
    return True

async def log_in(bucket: dict[str, Any]) -> dict[str, Any]:
    return {}
"""
REFUSED = {
    "result = agent.utils.bucket.get(); result.buckte": "buckte",
    "result = agent.utils.bucket.get(); n: int = result.error": "assignment",
    "agent.utils.bucket.set([1])": "call-overload",
    "login: Bucket[Login] = Bucket(); login.get()['token']": "typeddict-item",
    "login: Bucket[Login] = Bucket(); n: int = login.get()['sessionToken']": "assignment",
    "login: Bucket[Login] = Bucket(); login.snapshot().bucket['token']": "typeddict-item",
    "login: Bucket[Login] = Bucket(); login.update(lambda bucket: 1)": "arg-type",
    "Bucket().snapshot().revision = 1": "misc",
    "Bucket(devise='d')": "call-arg",
    "AsyncBucket(devise='d')": "call-arg",
    "Bucket(device=1)": "arg-type",
    "Bucket().sett(a=1)": "attr-defined",
    "Bucket().hold(timeout=5)": "call-arg",
    "Bucket().refresh(lambda bucket: True, lambda: 5)": "Argument 2",
    "n: int = Bucket().hold().acquire().fence": "assignment",
    "agent.utils.bucket.hold().hold": "hold",
    "n: dict[str, int] = Bucket().set(a=1, returning=False)": "assignment",
    "agent.utils.bucket.set({}, returning=False).bucket": "bucket",
}
PREFIX = """
from typing import TypedDict
from bucketd_client import AsyncBucket, Bucket, agent

class Login(TypedDict):
    sessionToken: str

"""


def mypy(path: Path) -> str:
    ran = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", str(path)],
        cwd=REPO / "client" / "python",
        capture_output=True,
        text=True,
    )
    return ran.stdout + ran.stderr


@pytest.mark.timeout(300)
def test_types(tmp_path: Path) -> None:
    """One run for all of them: most of its time goes into starting."""
    lines = [f"{line}  # refused {n}" for n, line in enumerate(REFUSED)]
    accepted, refused = tmp_path / "accepted.py", tmp_path / "refused.py"
    accepted.write_text(ACCEPTED)
    refused.write_text(PREFIX + "\n".join(f"def f{n}() -> None: {x}" for n, x in enumerate(lines)))
    assert mypy(accepted) == ""
    said = mypy(refused)
    offset = PREFIX.count("\n")
    for number, (line, hint) in enumerate(REFUSED.items(), 1):
        errors = re.findall(rf"refused\.py:{offset + number}: error: (.*)", said)
        assert errors, f"mypy accepts {line}:\n{said}"
        assert any(hint in error for error in errors), errors
