"""A short suite of the Python client, for any Python: standard library alone, one program.

``make test-pythons`` and ``make test-armhf`` run it beside a real daemon:
``python short_suite.py CLIENT SOCKET``.
"""

# ruff: noqa: PT017  (there is no pytest here)
import asyncio
import os
import subprocess
import sys
import tempfile
import time
import types

CLIENT, SOCKET = sys.argv[1:]
sys.path.insert(0, CLIENT)

from bucketd_client import (  # noqa: E402
    AsyncBucket,
    Bucket,
    DaemonUnreachable,
    Held,
    HoldLost,
    InvalidRequest,
    PreconditionFailed,
    agent,
)
from bucketd_client.ctl.commands.types import generate  # noqa: E402
from bucketd_client.testing import Server  # noqa: E402

JOB = f"{sys.implementation.name}-{sys.version_info[0]}.{sys.version_info[1]}-{os.getpid()}"
os.environ.update(BUCKETD_SOCKET=SOCKET, BUCKETD_DEVICE="short-suite", BUCKETD_JOB=JOB)


def check_operations(socket):
    bucket = Bucket(device="operations", job=JOB, socket=socket)
    assert bucket.get() == {}
    for number in range(20):
        assert bucket.set({f"k{number}": number})[f"k{number}"] == number
    assert bucket.get("k1", "none") == {"k1": 1}
    large = {"text": "é😀" * 20_000, "big": 2**64 - 1}
    assert bucket.replace(large) == large
    assert bucket.set(n=1, returning=False) is None
    snapshot = bucket.snapshot()
    bucket.merge_patch({"text": None})
    try:
        bucket.set(n=2, if_match=snapshot.etag)
    except PreconditionFailed as refusal:
        assert refusal.revision == snapshot.revision + 1
    else:
        raise AssertionError
    assert bucket.update(lambda now: {**now, "n": now["n"] + 1})["n"] == 2
    bucket.json_patch([{"op": "add", "path": "/l", "value": [None, 1.5]}])
    assert bucket.remove("big", "n") == {"l": [None, 1.5]}
    for bad in ({"a": {1}}, {"a": "\ud800"}):
        try:
            bucket.set(bad)
        except InvalidRequest as refusal:
            assert "/a" in str(refusal)
        else:
            raise AssertionError


def check_agent():
    assert agent.utils.bucket.set({"a": 1}).bucket == {"a": 1}
    assert agent.utils.bucket.get().success
    assert agent.utils.deviceBucket.set({"a": 1}).success


def check_watch(socket):
    bucket = Bucket(device="watch", job=JOB, socket=socket)
    changes = bucket.watch()
    bucket.set(a=1)
    assert next(changes).set == {"a": 1}
    changes.close()


async def check_asyncio(socket):
    bucket = AsyncBucket(device="asyncio", job=JOB, socket=socket)
    await asyncio.gather(*(bucket.set({f"k{n}": n}) for n in range(50)))
    assert await bucket.get() == {f"k{n}": n for n in range(50)}
    call = asyncio.ensure_future(bucket.set(late=1))
    await asyncio.sleep(0)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    assert (await bucket.get("k1")) == {"k1": 1}
    stream = bucket.watch(snapshot=True)
    assert (await stream.__anext__()).set["k1"] == 1
    await stream.aclose()


def check_unreachable():
    began = time.monotonic()
    try:
        Bucket(device="d", job="j", socket="/nowhere/b.sock", timeout=0.2).get()
    except DaemonUnreachable:
        assert time.monotonic() - began < 5
    else:
        raise AssertionError


def check_generated_types(socket):
    """A module of types runs without any package but the client."""
    schema = {
        "type": "object",
        "properties": {
            "loggedIn": {"type": "boolean"},
            "class": {"enum": ["a'", None]},
            "next": {"$ref": "#"},
        },
        "required": ["loggedIn"],
    }
    module = types.ModuleType("generated")
    exec(generate(schema, "short-suite", "python").text, module.__dict__)  # noqa: S102
    assert "typing_extensions" not in sys.modules
    assert module.Bucket is Bucket
    assert module.AsyncBucket is AsyncBucket
    whole = module.ShortSuiteBucket(loggedIn=True)
    bucket = Bucket[module.ShortSuiteBucket, module.ShortSuiteBucketPart](
        device="types", job=JOB, socket=socket
    )
    assert bucket.replace(whole) == whole


def check_fork(socket):
    bucket = Bucket(device="fork", job=JOB, socket=socket)
    bucket.set(parent=1)
    pid = os.fork()
    if pid == 0:
        os._exit(0 if bucket.set(child=1) == {"parent": 1, "child": 1} else 1)
    assert os.waitpid(pid, 0)[1] == 0


def check_holds(socket):
    bucket = Bucket(device="holds", job=JOB, socket=socket)
    with bucket.hold(exclusive=True) as held:
        assert held.set(a=1) == {"a": 1}
        for refused in (bucket.hold(wait=0).acquire, lambda: bucket.set(a=2)):
            try:
                refused()
            except Held as refusal:
                assert refusal.details[0]["id"] == held.id
            else:
                raise AssertionError
        pid = os.fork()
        if pid == 0:
            try:
                held.set(child=1)
            except HoldLost:
                os._exit(0)
            os._exit(1)
        assert os.waitpid(pid, 0)[1] == 0
        assert held.set(b=1) == {"a": 1, "b": 1}
    assert bucket.refresh(lambda now: "s" in now, lambda: {"s": 1})["s"] == 1


async def check_holds_of_asyncio(socket):
    bucket = AsyncBucket(device="asyncio-holds", job=JOB, socket=socket)
    async with bucket.hold() as held:
        assert await held.set(a=1) == {"a": 1}
        waiting = asyncio.ensure_future(bucket.hold(wait=30).acquire())
        await asyncio.sleep(0.05)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    async with bucket.hold(wait=2):
        assert (await bucket.refresh(lambda now: "s" in now, lambda: {"s": 1}))["s"] == 1


def check_exit_status():
    """A program that used the client ends with 0, also in the interpreter's shutdown."""
    program = "from bucketd_client import Bucket; Bucket(device='exit', job='j').get()"
    asynchronous = (
        "import asyncio; from bucketd_client.aio import agent; "
        "asyncio.run(agent.utils.bucket.get())"
    )
    env = dict(os.environ, PYTHONPATH=CLIENT, PYTHONDONTWRITEBYTECODE="1")
    ctl = ["-m", "bucketd_client.ctl", "get", "--device", "exit", "--job", "j"]
    for words in (["-c", program], ["-c", asynchronous], ctl):
        command = [sys.executable, "-W", "error", *words]
        done = subprocess.run(command, env=env, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, ""), (words, done)


def main():
    check_operations(SOCKET)
    check_agent()
    check_watch(SOCKET)
    asyncio.run(check_asyncio(SOCKET))
    check_unreachable()
    check_fork(SOCKET)
    check_holds(SOCKET)
    asyncio.run(check_holds_of_asyncio(SOCKET))
    check_generated_types(SOCKET)
    # An emulated interpreter cannot start itself.
    if "SHORT_SUITE_EMULATED" not in os.environ:
        check_exit_status()
    tempfile.tempdir = None
    with Server(in_memory=True) as server:
        check_operations(server.socket)
        check_watch(server.socket)
        check_holds(server.socket)
        asyncio.run(check_holds_of_asyncio(server.socket))
        asyncio.run(check_asyncio(server.socket))
    print("right:", sys.version.split()[0], os.uname().machine)


main()
