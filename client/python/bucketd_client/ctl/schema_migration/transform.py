"""Change one bucket by a JSON Patch, or by a command."""

from __future__ import annotations

import copy
import os
import select
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from typing import IO, Any, Callable

from ... import _api
from ..._errors import BucketError
from ..._json_patch import json_patch, kind_of
from ..archive import MAX_BYTES
from ..inputs import decoded, parse_json, read_text
from ..parser import Usage
from ..session import Session, seconds
from .record import Key

RUN_SECONDS = 60.0
Bucket = dict[str, Any]
Transform = Callable[[Key, Bucket], Bucket]
# The exit statuses by which a shell reports that it cannot run a command.
_NOT_RUN = {126: "it is not executable", 127: "it is not found"}


class Refused(Exception):
    """A bucket cannot be changed; the message says why, without values."""

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(message)
        self.status = status


def chosen(session: Session, automation: str) -> Transform:
    """Return the transform of ``--patch`` or ``--run``. Raises Usage."""
    options = session.options
    path, command = options.get("patch"), options.get("run")
    if (path is None) == (command is None):
        raise Usage("cannot migrate: give --patch OPS.json or --run CMD, one of them")
    if path is not None:
        if options.has("run-timeout"):
            raise Usage("cannot use --run-timeout: it goes with --run")
        return _patch(path)
    if not (command or "").strip():
        raise Usage("cannot use --run: the command is empty")
    return Command(command or "", seconds(options, "run-timeout") or RUN_SECONDS, session.path,
                   automation)  # fmt: skip


def _patch(path: str) -> Transform:
    try:
        change = json_patch(parse_json(read_text(path), f"what {path} holds"), MAX_BYTES)
    except BucketError as problem:
        raise Usage(f"cannot use {path}: {problem.message}") from None

    def patched(_key: Key, bucket: Bucket) -> Bucket:
        try:
            return change(copy.deepcopy(bucket))
        except BucketError as problem:
            raise Refused(problem.message.removesuffix("; nothing was changed")) from None

    return patched


class Command:
    """A command of a shell: a bucket on standard input, the new one on standard output."""

    def __init__(self, text: str, limit: float, socket: str, automation: str) -> None:
        self._text, self._limit = text, limit
        clean = {k: v for k, v in os.environ.items() if k not in _TOKENS}
        self._environ = {**clean, "BUCKETD_SOCKET": socket, "BUCKETD_AUTOMATION": automation}

    def __call__(self, key: Key, bucket: Bucket) -> Bucket:
        written = self._run(key, _api.encode(bucket))
        what = "what the command printed"
        try:
            value = parse_json(decoded(written, what), what)
        except Usage as problem:
            raise Refused(str(problem)) from None
        if not isinstance(value, dict):
            raise Refused(f"the command printed {kind_of(value)}, and a bucket is a JSON object")
        return value

    def _run(self, key: Key, text: bytes) -> bytes:
        """Return what the command prints. Raises Refused, or Usage if it cannot be run at all."""
        environ = {**self._environ, "BUCKETD_DEVICE": key[0], "BUCKETD_JOB": key[1]}
        # A file is read whole or not at all, where a pipe would block a command that does not read.
        with tempfile.TemporaryFile() as given:
            given.write(text)
            given.seek(0)
            process = subprocess.Popen(
                ["/bin/sh", "-c", self._text],
                stdin=given,
                stdout=subprocess.PIPE,
                env=environ,
                # The time limit ends the whole group.
                start_new_session=True,
            )
        _running.add(process)
        try:
            written = self._output(process)
        finally:
            _end(process)
        status = process.returncode
        if status in _NOT_RUN:
            raise Usage(f"cannot run {self._text!r}: {_NOT_RUN[status]}")
        if status:
            how = f"exit status {status}" if status > 0 else f"signal {-status}"
            raise Refused(f"the command ended with {how}")
        return written

    def _output(self, process: subprocess.Popen[bytes]) -> bytes:
        """Return the output until its end, within the limits of time and size. Raises Refused."""
        pipe: IO[bytes] = process.stdout  # type: ignore[assignment]  # it was asked for
        until, parts, size = time.monotonic() + self._limit, list[bytes](), 0
        while True:
            left = until - time.monotonic()
            if left <= 0 or not select.select([pipe], [], [], left)[0]:
                raise Refused(f"the command did not end within {self._limit:g} s (--run-timeout)")
            part = os.read(pipe.fileno(), 1 << 16)
            if not part:
                break
            parts.append(part)
            size += len(part)
            if size > MAX_BYTES:
                raise Refused(f"the command printed over {MAX_BYTES} bytes")
        with suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, until - time.monotonic()))
            return b"".join(parts)
        raise Refused(f"the command did not end within {self._limit:g} s (--run-timeout)")


_TOKENS = ("BUCKETD_TOKEN", "BUCKETD_TOKEN_FILE", "BUCKETD_FENCE")


# The commands that run, so that none outlives an interrupted migration.
_running: set[subprocess.Popen[bytes]] = set()


def end_all() -> None:
    """End all commands that still run."""
    for process in list(_running):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End what is left of a command, and collect its exit status."""
    # Once the status is collected, the number may belong to another process.
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    _running.discard(process)
    if process.stdout is not None:
        process.stdout.close()
