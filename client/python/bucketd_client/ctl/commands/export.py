"""``bucketctl export``: write stored buckets as lines, or as a tar of their files."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any, cast

from .. import bucket_paths, output
from ..filters import Filters, LeftOut, pages
from ..parser import Usage
from ..progress import Progress
from ..session import Session, Shown
from ..table.daily import Options
from .bulk import show_counts
from .history import entries_of

Writer = Callable[[dict[str, Any]], object]
FORMATS = ("ndjson", "tar")


def export(options: Options) -> int:
    """Write all matching buckets; return 1 if a bucket was left out."""
    kind = options.get("format") or FORMATS[0]
    if kind not in FORMATS:
        raise Usage(f"cannot export as {kind!r}: --format is ndjson or tar")
    if options.has("history") and kind == "tar":
        raise Usage("cannot use --history with a tar, which has the files of buckets; use ndjson")
    if options.has("quiet") and not options.get("output"):
        raise Usage("cannot use --quiet: it goes with --output FILE")
    session = Session(options)
    try:
        if options.has("curl"):
            next(pages(session, "/v1/export", "envelopes"))
        count, left_out = _export(session, kind)
    except Shown:
        return 0
    if options.get("output"):
        show_counts(options, "exported", count, left_out=left_out)
    return 1 if left_out else 0


def _export(session: Session, kind: str) -> tuple[int, int]:
    """Write the buckets; return how many were written, and how many could not be read."""
    if session.options.get("output") is None:
        output.end_with_reader()
    whole, count, left_out = total(session), 0, LeftOut()
    with (
        _output(session.options) as file,
        _writer(file, kind) as write,
        Progress("export") as progress,
    ):
        # What a file or a pipe receives can be imported; a terminal shows masks.
        mask = session.mask if session.options.get("output") is None else ()
        with_history = session.options.has("history")
        for members in pages(session, "/v1/export", "envelopes", extra=mask):
            for envelope in members["envelopes"]:
                if with_history:
                    envelope["history"] = list(entries_of(session, envelope, [*mask]))
                write(envelope)
            count += len(members["envelopes"])
            progress.at(count, count / whole if whole else None)
            left_out.note(members)
    return count, left_out.count


def total(session: Session) -> int:
    """Return the number of buckets; 0 if it is unknown, as with filters."""
    if Filters(session).given:
        return 0
    counts = session.call("GET", "/v1/status").members.get("counts", {})
    return sum(int(counts.get(kind) or 0) for kind in ("buckets", "device_buckets"))


class _StandardOutput:
    """Standard output as a file; a failed write raises Unwritten."""

    def write(self, data: bytes) -> int:
        output.put(data)
        return len(data)


@contextmanager
def _output(options: Options) -> Iterator[IO[bytes]]:
    """Yield standard output, or a file of mode 0600 that appears once it is complete."""
    path = options.get("output")
    if path is None:
        if output.on_terminal() and options.get("format") == "tar":
            raise Usage("cannot write a tar to a terminal: give --output FILE")
        # Only its write method is used.
        yield cast("IO[bytes]", _StandardOutput())
        output.put(b"", flush=True)
        return
    part = f"{path}.part"
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with open(descriptor, "wb") as file:
            yield file
        os.replace(part, path)
    except BaseException:
        os.unlink(part)
        raise


@contextmanager
def _writer(file: IO[bytes], kind: str) -> Iterator[Writer]:
    if kind == "ndjson":
        shown = isinstance(file, _StandardOutput) and output.on_terminal()
        yield lambda envelope: file.write(line_of(envelope, _visible if shown else str))
        return
    with tarfile.open(fileobj=file, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        yield lambda envelope: _add(tar, envelope)


def _visible(text: str) -> str:
    return output.plain(output.masks_shown(text))


def line_of(envelope: dict[str, Any], safe: Callable[[str], str] = str) -> bytes:
    """Return an envelope as one line of an export."""
    return safe(json.dumps(envelope, ensure_ascii=False, separators=(",", ":"))).encode() + b"\n"


def _add(tar: tarfile.TarFile, envelope: dict[str, Any]) -> None:
    text = json.dumps(envelope, ensure_ascii=False, indent=2).encode() + b"\n"
    member = tarfile.TarInfo(bucket_paths.path(envelope["device"], envelope["job"]))
    member.size, member.mode = len(text), 0o600
    tar.addfile(member, io.BytesIO(text))
    # tarfile would keep all members in memory.
    tar.members = []  # type: ignore[attr-defined]
