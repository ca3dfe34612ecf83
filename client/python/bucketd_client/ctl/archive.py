"""Read buckets from a file: the lines of an export, a tar of bucket files, or one such file."""

from __future__ import annotations

import os
import sys
import tarfile
from collections.abc import Iterable, Iterator
from typing import IO, Any, NamedTuple

from . import masks
from .inputs import FORMAT, decoded, parse_json
from .parser import Usage

# Bytes of one bucket, far over what a daemon accepts.
MAX_BYTES = 64 * 1024 * 1024


class Envelope(NamedTuple):
    """One stored bucket. ``where`` names its source in messages.

    ``kept``: revision and times as the daemon takes them to keep them.
    """

    where: str
    device: str
    job: str | None
    automation: str | None
    bucket: dict[str, Any]
    kept: dict[str, str] = {}  # noqa: RUF012

    @property
    def name(self) -> str:
        return f"{self.device}, {self.job}" if self.job is not None else f"{self.device} (device)"


class Source:
    """A file or standard input (``-``), and how much of it has been read."""

    def __init__(self, name: str) -> None:
        self.name = name
        if name == "-" and sys.stdin is None:
            raise Usage("cannot read the data: standard input is closed; name a file")
        try:
            self._file: IO[bytes] = sys.stdin.buffer if name == "-" else open(name, "rb")  # noqa: SIM115
            self._size = os.fstat(self._file.fileno()).st_size if name != "-" else 0
            self._begin = self._file.peek(512)[:512]  # type: ignore[union-attr]
        except OSError as problem:
            raise Usage(f"cannot read {name}: {problem.strerror}") from None

    @property
    def part(self) -> float | None:
        return self._file.tell() / self._size if self._size else None

    def envelopes(self) -> Iterator[Envelope | Usage]:
        """Yield the envelopes, and a Usage in place of an entry that is not valid."""
        for where, text in self._texts():
            try:
                yield read(where, text)
            except Usage as problem:
                yield problem

    def _texts(self) -> Iterable[tuple[str, bytes]]:
        if self._begin[257:262] == b"ustar":
            return self._tar()
        # A line with an opening brace alone begins the file of a bucket; an export has whole lines.
        if self._begin.split(b"\n", 1)[0].strip() == b"{":
            return [(self.name, self._file.read(MAX_BYTES))]
        return self._lines()

    def _lines(self) -> Iterator[tuple[str, bytes]]:
        number = 0
        while line := self._file.readline(MAX_BYTES):
            number += 1
            if len(line) == MAX_BYTES:
                raise Usage(f"cannot read line {number}: it is longer than {MAX_BYTES} bytes")
            if line.strip():
                yield f"line {number}", line

    def _tar(self) -> Iterator[tuple[str, bytes]]:
        try:
            with tarfile.open(fileobj=self._file, mode="r|") as tar:
                for member in tar:
                    # tarfile would keep all members in memory.
                    tar.members = []  # type: ignore[attr-defined]
                    if _is_bucket(member):
                        file = tar.extractfile(member)
                        yield member.name, file.read() if file is not None else b""
        except tarfile.TarError as problem:
            raise Usage(f"cannot read {self.name} as tar: {problem}") from None


def _is_bucket(member: tarfile.TarInfo) -> bool:
    pieces = member.name.split("/")
    hidden = pieces[-1].startswith(".") or not pieces[-1].endswith(".json")
    return member.isfile() and "devices" in pieces and not hidden and member.size <= MAX_BYTES


def read(where: str, text: bytes | str) -> Envelope:
    """Return the envelope in a JSON text. Raises Usage if it is not valid."""
    text = text if isinstance(text, str) else decoded(text, where)
    envelope = checked(where, parse_json(text, where))
    # The name may be written with escapes.
    if ("$masked" in text or "\\u00" in text) and (found := masks.find(envelope.bucket)):
        raise Usage(
            f"cannot use {where} ({envelope.name}): the value at {found[0]} is a mask, which "
            "stands for a secret that was not shown; export the bucket anew, without masks"
        )
    return envelope


def checked(where: str, value: Any) -> Envelope:
    """Return the envelope in a parsed value. Raises Usage if it is not valid."""
    if not isinstance(value, dict) or value.get("format", FORMAT) != FORMAT:
        raise Usage(f'cannot use {where}: it is not an object of the format "{FORMAT}"')
    device, bucket = value.get("device"), value.get("bucket")
    job, automation = value.get("job"), value.get("automation")
    if not isinstance(device, str) or not isinstance(bucket, dict):
        raise Usage(f'cannot use {where}: it needs "device", a string, and "bucket", an object')
    if not isinstance(job, (str, type(None))) or not isinstance(automation, (str, type(None))):
        raise Usage(f'cannot use {where}: "job" and "automation" must be strings or null')
    found = {name: value.get(name) for name in ("revision", "created_at", "updated_at")}
    # A file that was written by hand may lack them; the daemon refuses invalid ones.
    kept = {name: str(one) for name, one in found.items() if one is not None}
    return Envelope(where, device, job, automation, bucket, kept)
