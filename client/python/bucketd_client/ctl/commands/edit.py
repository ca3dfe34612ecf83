"""``bucketctl edit``: edit the bucket in an editor, and replace only the state that was read.

The text is never lost: if it is refused, it stays in a file, and a message names that file.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from ... import _api
from ..._errors import BucketError, PreconditionFailed, error
from .. import json_diff, masks, output, prompts
from ..inputs import parse_json, read_text
from ..json_diff import ABSENT, pointer
from ..parser import Usage
from ..refusals import lines_of, status_of
from ..session import Session
from ..table.daily import Options


class Refused(Exception):
    """The text cannot be stored; ``problem`` is the daemon's error, if a request was sent."""

    def __init__(self, lines: list[str], problem: BucketError | None = None) -> None:
        super().__init__(lines[0])
        self.lines, self.problem = lines, problem


class Stored:
    """The bucket that was read, its masked form, and the write that changes that state alone."""

    def __init__(self, session: Session) -> None:
        self._scope, self._session = session.scope(), session
        found = masks.read(session, self._scope, mask=not session.options.has("reveal"))
        self.bucket, self.masked, self._guard = found.bucket, found.masked, found.guard
        self.etag, self.revision = found.etag, found.revision
        self._etags = (found.etag, found.masked_etag)

    def has(self, etag: str) -> bool:
        """Report whether this is the state with this ETag, whichever form of it was shown."""
        return etag in self._etags

    def change(self, bucket: dict[str, Any]) -> _api.Reply:
        """Send the keys that differ, and no other."""
        before = self.bucket
        changed = {k: v for k, v in bucket.items() if not json_diff.same(before.get(k, ABSENT), v)}
        removed = [key for key in before if key not in bucket]
        kind, body = _api.JSON, _api.encode(changed)
        if removed:
            adding = [{"op": "add", "path": pointer(k), "value": v} for k, v in changed.items()]
            removing = [{"op": "remove", "path": pointer(key)} for key in removed]
            kind, body = _api.JSON_PATCH, _api.encode([*removing, *adding])
        headers = {**self._scope.headers("PATCH"), **self._guard, "Content-Type": kind}
        target = self._scope.target(more=self._session.mask)
        return self._session.call("PATCH", target, headers=headers, body=body)


def edit(options: Options) -> int:
    session = Session(options)
    stored = Stored(session)
    _check_precondition(options, stored)
    from_file = options.get("from")
    text = _text_of(stored.masked) if from_file is None else read_text(from_file)
    path = _save_to_temporary_file(text)
    try:
        return _until_stored(options, session, stored, path)
    except KeyboardInterrupt:
        output.warn(f"your text is in {path}")
        raise


def _check_precondition(options: Options, stored: Stored) -> None:
    """Refuse an edit of an old text if the bucket has changed since that text was written."""
    wanted = options.get("if-match")
    if wanted is not None and not stored.has(wanted):
        raise error(
            "precondition_failed",
            f"cannot edit the bucket: it has changed since (revision {stored.revision}); compare "
            "with bucketctl diff … FILE, then leave out --if-match",
        )


def _until_stored(options: Options, session: Session, stored: Stored, path: str) -> int:
    while True:
        try:
            saved = _open_editor(path)
            bucket = _edited(stored, read_text(path))
            reply = _store(stored, bucket)
        except Refused as refused:
            stored = _newer(session, stored, refused)
            _explain(refused, path)
            if not _wants_another_edit():
                return _give_up(options, path, stored, refused)
            continue
        if saved:
            with suppress(FileNotFoundError):
                os.unlink(path)
        elif reply is None or output.on_terminal():
            _explain_unsaved(options, stored, path)
        return _done(options, stored, bucket, reply)


def _explain_unsaved(options: Options, stored: Stored, path: str) -> None:
    """Explain why the file stays: an editor that returns at once may still show the text."""
    output.warn(
        "the editor ended without saving; if the text is still open in it, name one that waits, "
        "such as EDITOR='code --wait'; remove the file once it is not needed"
    )
    output.warn(f"your text is in {path}")
    _show_how_to_continue(options, stored, path)


def _done(
    options: Options, stored: Stored, edited: dict[str, Any], reply: _api.Reply | None
) -> int:
    if reply is None:
        output.warn("nothing changed")
        return output.show({"changed": False}) if options.has("json") else 0
    if options.has("json"):
        return output.show_answer(reply)
    bucket = reply.members[stored._scope.label]
    if not output.for_people():
        return output.show(bucket)
    found = masks.shown(json_diff.changes(stored.bucket, edited), stored.masked, bucket)
    for line in json_diff.lines(list(found)):
        output.write(line)
    return 0


def _edited(stored: Stored, text: str) -> dict[str, Any]:
    """Return the bucket that a text stands for, with the secrets behind its masks."""
    try:
        bucket = parse_json(text, "the text")
        if isinstance(bucket, dict):
            restored: dict[str, Any] = masks.restored(bucket, stored.bucket, stored.masked)
            return restored
    except Usage as problem:
        raise Refused([str(problem)]) from None
    raise Refused(["cannot use the text: a bucket is a JSON object"])


def _store(stored: Stored, bucket: dict[str, Any]) -> _api.Reply | None:
    """Store the bucket; return None if it is stored already. Raises Refused."""
    if json_diff.same(bucket, stored.bucket):
        return None
    try:
        return stored.change(bucket)
    except BucketError as problem:
        lines = [problem.message, *(f"  {x}" for d in problem.details or [] for x in lines_of(d))]
        raise Refused(lines, problem) from None


def _newer(session: Session, stored: Stored, refused: Refused) -> Stored:
    """Return the state to replace next; after a conflict, add the changes to the message."""
    if not isinstance(refused.problem, PreconditionFailed):
        return stored
    now = Stored(session)
    changes = json_diff.changes(stored.bucket, now.bucket)
    found = list(masks.shown(changes, stored.masked, now.masked))
    refused.lines = ["somebody else has changed the bucket meanwhile:"]
    # A person at a terminal sees the values, as in bucketctl diff; a log does not show them.
    lines = json_diff.plain_lines if prompts.person_is_there() else json_diff.kind_lines
    refused.lines += [f"  {line}" for line in lines(found)]
    refused.lines.append("edit again to replace these changes by your text as well")
    return now


def _explain(refused: Refused, path: str) -> None:
    output.warn(refused.lines[0])
    for line in refused.lines[1:]:
        output.warn(line, before="")
    output.warn(f"your text is in {path}")


def _wants_another_edit() -> bool:
    """Ask whether to open the editor again; return False without a terminal."""
    # At the end of the input the answer is empty, which means no.
    return prompts.person_is_there() and prompts.answer("edit again? [Y/n]") in (
        "y\n",
        "yes\n",
        "\n",
    )


def _give_up(options: Options, path: str, stored: Stored, refused: Refused) -> int:
    _show_how_to_continue(options, stored, path)
    return 2 if refused.problem is None else status_of(refused.problem)


def _show_how_to_continue(options: Options, stored: Stored, path: str) -> None:
    words = ["bucketctl", "edit", *_which(options), "--from", path]
    words += [] if stored.etag is None else ["--if-match", stored.etag]
    output.warn(f"continue with: {' '.join(map(shlex.quote, words))}")


def _which(options: Options) -> list[str]:
    """Return the options that name the bucket, as they were given."""
    words = ["--device-bucket"] if options.has("device-bucket") else []
    for name in ("device", "job", "automation", "socket"):
        if (value := options.get(name)) is not None:
            words += [f"--{name}", value]
    return words


def _text_of(bucket: dict[str, Any]) -> str:
    return json.dumps(bucket, ensure_ascii=False, indent=2) + "\n"


def _save_to_temporary_file(text: str) -> str:
    """Write the text to a file that only this user can read; return its path."""
    descriptor, path = tempfile.mkstemp(prefix="bucket-", suffix=".json")
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    return path


def _open_editor(path: str) -> bool:
    """Run the editor; report whether it has saved the file."""
    before = _state_of(path)
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    try:
        with _interrupts_left_to_editor():
            status = subprocess.run([*shlex.split(editor), path], check=False).returncode
    # Quotes that are not closed raise a ValueError.
    except (OSError, ValueError) as problem:
        os.unlink(path)
        cause = getattr(problem, "strerror", None) or str(problem).lower()
        raise error(
            "invalid_request",
            f"cannot start the editor {editor!r}: {cause}; set VISUAL or EDITOR",
        ) from None
    if status == -signal.SIGINT:
        raise KeyboardInterrupt
    if status:
        raise Refused([f"the editor ended with status {status}, so nothing was stored"])
    return _state_of(path) != before


def _state_of(path: str) -> tuple[int, int, int] | None:
    """Return the parts of a file's status that a save changes; None if there is no file."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


@contextmanager
def _interrupts_left_to_editor() -> Iterator[None]:
    """Leave Ctrl-C to the editor, since ending the editor would lose the text."""
    before = signal.getsignal(signal.SIGINT)
    # The editor would inherit an ignored signal, but not a handler.
    if before is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, lambda *_: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
