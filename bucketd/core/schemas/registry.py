"""The schemas in force, by automation: files of the operator, and those set through the API.

A schema set through the API takes precedence over a file of the same automation. A file is loaded
when it changes; a file that cannot be used is reported, and its last valid version stays in force.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import stat
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from ...errors import BucketdError, NotFound
from ...fs import errors, filenames, files
from ...model import strict_json

if TYPE_CHECKING:
    from .masking import Masking
    from .validator import Validator

log = logging.getLogger(__name__)
DIRECTORY = "schemas"
# A file beside the schema holds the automation's name if that is too long for a file name.
NAME_SUFFIX = ".name"
# Copies of the valid files, for a start at which a file is broken.
LAST_GOOD = (DIRECTORY, "last-good")
API, FILE = "api", "file"
MAX_BYTES = 4 * 1024 * 1024
# O_NONBLOCK: opening a named pipe must not block.
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC


class FileKey(NamedTuple):
    """Identify a file and its content, also behind a link; it differs once either is replaced."""

    device: int
    stat_key: files.StatKey


@dataclass(frozen=True, slots=True)
class Entry:
    """One schema file: its schema in force, if any, and the problem with the file, if any."""

    automation: str
    source: str
    path: str
    stat_key: FileKey
    validator: Validator | None
    problem: str | None = None


class Registry:
    """Hold the schemas in force, on any thread; call methods that use files on a worker thread."""

    def __init__(self, root: int, state_dir: str, config_dir: str) -> None:
        self.root = root
        self._places = {
            API: os.path.join(state_dir, DIRECTORY),
            FILE: os.path.join(config_dir, DIRECTORY),
        }
        self._lock = threading.Lock()
        self._directory_problems: list[str] = []
        # All entries by path, and those in force by automation. The latter mapping is replaced,
        # never changed, so that readers need no lock.
        self._entries: dict[str, Entry] = {}
        self._in_force: Mapping[str, Entry] = {}
        self.rescan()

    @property
    def directories(self) -> list[str]:
        """Return the directories of schema files that exist."""
        return [place for place in self._places.values() if os.path.isdir(place)]

    def find(self, automation: str | None) -> Validator | None:
        """Return the schema that buckets of this automation must meet."""
        entry = self._in_force.get(automation) if automation is not None else None
        return entry.validator if entry is not None else None

    def masking(self, *automations: str | None) -> Masking | None:
        """Return the masks of buckets that may be of these automations; None for no secrets."""
        schemas = (self.find(automation) for automation in dict.fromkeys(automations))
        found = [schema.secrets for schema in schemas if schema is not None and schema.secrets]
        if not found:
            return None
        # A daemon without schemas never imports it.
        from .masking import Masking

        return Masking(tuple(found))

    def get(self, automation: str) -> Entry:
        """Return the entry in force; raise NotFound if there is none."""
        entry = self._in_force.get(automation)
        if entry is None:
            raise NotFound(
                f"cannot find the schema of {automation!r}: there is none; "
                "GET /v1/schemas (bucketctl schema list) lists the schemas"
            )
        return entry

    def entries(self) -> list[Entry]:
        """Return the entries in force and those with a problem, by name."""
        broken = [e for e in self._entries.values() if e.validator is None]
        return sorted([*self._in_force.values(), *broken], key=lambda e: (e.automation, e.path))

    def problems(self) -> list[dict[str, str]]:
        """Return the files that cannot be used as they are, and why."""
        found = [e for e in self._entries.values() if e.problem is not None]
        return [{"path": e.path, "problem": str(e.problem)} for e in found]

    def put(self, automation: str, document: Any) -> None:
        """Store a schema that compiles. Raises BucketdError, after which nothing has changed."""
        stem = filenames.encode(automation)
        text = orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
        try:
            if filenames.decode(stem) is None:
                self._write(stem + NAME_SUFFIX, automation.encode())
            self._write(stem + filenames.SUFFIX, text)
        except OSError as error:
            raise errors.refusal(f"store the schema of {automation!r}", error) from error
        self.rescan()

    def remove(self, automation: str) -> None:
        """Remove a schema that was set through the API; raise NotFound if there is none."""
        stem = filenames.encode(automation)
        path = os.path.join(self._places[API], stem + filenames.SUFFIX)
        if path not in self._entries:
            where = self._in_force.get(automation)
            cause = f"it is the file {where.path}; remove that" if where else "there is none"
            raise NotFound(f"cannot remove the schema of {automation!r}: {cause}")
        try:
            files.remove(self.root, (DIRECTORY,), stem + filenames.SUFFIX)
        except OSError as error:
            raise errors.refusal(f"remove the schema of {automation!r}", error) from error
        # The schema is gone by now, so a failure here is none of the request.
        try:
            files.remove(self.root, (DIRECTORY,), stem + NAME_SUFFIX)
        except OSError as error:
            log.warning("cannot remove the name of a removed schema: %s", error.strerror)
        self.rescan()

    def rescan(self, force: bool = False) -> None:
        """Load every file that has changed since the last scan; with ``force``, load all."""
        # One scan at a time: an older state of the files must not replace a newer one.
        with self._lock:
            self._rescan(force)

    def _rescan(self, force: bool) -> None:
        entries: dict[str, Entry] = {}
        problems: list[str] = []
        for source in self._places:
            for path, stat_key in self._files(source, problems):
                known = self._entries.get(path)
                if known is None or known.stat_key != stat_key or force:
                    known = self._load(source, path, stat_key, known)
                entries[path] = known
        self._report_directories(problems)
        good = [entry for entry in entries.values() if entry.validator is not None]
        by_name = {entry.automation: entry for entry in good if entry.source == FILE}
        by_name |= {entry.automation: entry for entry in good if entry.source == API}
        self._entries, self._in_force = entries, by_name

    def _load(self, source: str, path: str, stat_key: FileKey, before: Entry | None) -> Entry:
        """Return the entry of a file; an unusable file keeps its last valid schema in force."""
        automation = self._name_of(source, path)
        try:
            text = self._read(source, os.path.basename(path))
            validator = _compile(text)
        except (OSError, BucketdError) as error:
            cause = error.message if isinstance(error, BucketdError) else str(error.strerror)
            old = before.validator if before is not None else self._last_good(automation)
            stays = "the last good one stays in force" if old is not None else "none applies"
            log.error("cannot use the schema %s: %s; %s", path, cause, stays)
            return Entry(automation, source, path, stat_key, old, cause)
        if source == FILE:
            self._keep_as_good(automation, text)
        if before is not None:
            log.info("loaded the schema of %r from %s", automation, path)
        return Entry(automation, source, path, stat_key, validator)

    def _last_good(self, automation: str) -> Validator | None:
        """Return the last valid schema of an operator's file that an earlier daemon loaded."""
        name = filenames.encode(automation) + filenames.SUFFIX
        try:
            return _compile(files.read(self.root, LAST_GOOD, name).text)
        except (OSError, BucketdError):
            return None

    def _keep_as_good(self, automation: str, text: bytes) -> None:
        name = filenames.encode(automation) + filenames.SUFFIX
        try:
            with contextlib.suppress(OSError):
                if files.read(self.root, LAST_GOOD, name).text == text:
                    return
            files.write(self.root, LAST_GOOD, name, lambda _birth: text)
        except OSError as error:
            log.warning("cannot keep a copy of the schema of %r: %s", automation, error.strerror)

    def _files(self, source: str, problems: list[str]) -> Iterator[tuple[str, FileKey]]:
        """Yield the schema files of a directory; add the other entries to ``problems``."""
        ours = source == API
        place = self._places[source]
        try:
            found = files.names(self.root, (DIRECTORY,)) if ours else os.listdir(place)
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            problems.append(f"cannot read the schemas in {place}: {error.strerror}")
            return
        for name in sorted(found):
            path = os.path.join(place, name)
            if not name.endswith(filenames.SUFFIX) or name.startswith("."):
                continue
            if not _is_utf8(name):
                shown = os.fsencode(path).decode(errors="backslashreplace")
                problems.append(
                    f"cannot use the schema {shown}: its name is not UTF-8; rename the file"
                )
                continue
            try:
                status = os.stat(path, follow_symlinks=not ours)
            except FileNotFoundError:
                # A dangling link is reported; a file that was removed meanwhile is not.
                if os.path.islink(path):
                    problems.append(f"cannot use the schema {path}: the link leads nowhere")
                continue
            except OSError as error:
                problems.append(f"cannot use the schema {path}: {error.strerror}")
                continue
            yield path, FileKey(status.st_dev, files.stat_key_of(status))

    def _report_directories(self, problems: list[str]) -> None:
        for problem in problems:
            if problem not in self._directory_problems:
                log.error("%s", problem)
        self._directory_problems = problems

    def directory_problems(self) -> list[str]:
        """Return the entries that cannot be schema files, and the directories not readable."""
        return self._directory_problems.copy()

    def _read(self, source: str, name: str) -> bytes:
        """Return a file's bytes; follow links in the settings, but not in the state directory."""
        if source == API:
            return files.read(self.root, (DIRECTORY,), name).text
        fd = os.open(os.path.join(self._places[source], name), _READ)
        with open(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise errors.NotAFile(errno.EINVAL, "it is not a regular file")
            return file.read(MAX_BYTES + 1)

    def _name_of(self, source: str, path: str) -> str:
        """Return a file's automation: its name decoded, the name file's text, or the name as is."""
        stem = os.path.basename(path).removesuffix(filenames.SUFFIX)
        decoded = filenames.decode(stem)
        if decoded is not None:
            return decoded
        try:
            return self._read(source, stem + NAME_SUFFIX).decode()[:1000]
        except (OSError, UnicodeDecodeError):
            return stem

    def _write(self, name: str, text: bytes) -> None:
        files.write(self.root, (DIRECTORY,), name, lambda _birth: text)


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _compile(text: bytes) -> Validator:
    # A daemon without schemas never imports the validator.
    from .validator import compile_schema

    return compile_schema(strict_json.loads(text, "the schema"))
