"""The schemas in force, by automation: files of the operator, and those set through the API.

A schema set through the API takes precedence over a file of the same automation. A file is loaded
when it changes; a file that cannot be used is reported, and its last valid version stays in force.

A schema refuses every violation, unless a file beside it, <automation>.tolerate, lets those pass
that stood in a bucket before. An operator's file of that name may be empty. For a schema set
through the API it lists hashes of the schemas that tolerate, so the mode changes together with the
schema although these are two files, and a schema that an older daemon stores refuses.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
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
TOLERATE_SUFFIX = ".tolerate"
# Copies of the valid files, for a start at which a file is broken.
LAST_GOOD = (DIRECTORY, "last-good")
API, FILE = "api", "file"
# The two ways to treat violations that stood in a bucket before.
TOLERATE, REFUSE = "tolerate", "refuse"
MAX_BYTES = 4 * 1024 * 1024
# O_NONBLOCK: opening a named pipe must not block.
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC


class FileKey(NamedTuple):
    """Identify a file and its content, also behind a link; it differs once either is replaced."""

    device: int
    stat_key: files.StatKey


@dataclass(frozen=True, slots=True)
class Entry:
    """One schema file: its schema in force, if any, and the problem with the file, if any.

    ``tolerates``: a violation that stood in a bucket before a write does not refuse the write.
    """

    automation: str
    source: str
    path: str
    stat_key: FileKey
    validator: Validator | None
    problem: str | None = None
    tolerates: bool = False

    @property
    def existing(self) -> str:
        return existing(self.tolerates)


def existing(tolerates: bool) -> str:
    """Return what a schema does to violations that stood before, as the API names it."""
    return TOLERATE if tolerates else REFUSE


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
        entry = self.in_force(automation)
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

    def in_force(self, automation: str | None) -> Entry | None:
        """Return the entry that decides about buckets of this automation."""
        return self._in_force.get(automation) if automation is not None else None

    def tolerates(self, automation: str | None) -> bool:
        """Report whether violations that stood in a bucket before a write do not refuse it."""
        entry = self.in_force(automation)
        return entry is not None and entry.tolerates

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

    def put(self, automation: str, document: Any, tolerates: bool = False) -> None:
        """Store a schema that compiles. Raises BucketdError, after which nothing has changed."""
        stem = filenames.encode(automation)
        text = orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
        modes = self._tolerating(stem)
        wanted = {_hash(text)} if tolerates else set()
        try:
            if filenames.decode(stem) is None:
                self._write(stem + NAME_SUFFIX, automation.encode())
            if self._stored(stem) == text:
                # Only the mode changes, in one step.
                modes = self._write_modes(stem, modes, wanted)
            else:
                # The schema in force keeps its mode until it is replaced.
                modes = self._write_modes(stem, modes, modes - {_hash(text)} | wanted)
                self._write(stem + filenames.SUFFIX, text)
        except OSError as error:
            raise errors.refusal(f"store the schema of {automation!r}", error) from error
        # The schema is in force by now, so a failure here is none of the request.
        try:
            self._write_modes(stem, modes, wanted)
        except OSError as error:
            log.warning("cannot forget the mode of a replaced schema: %s", error.strerror)
        self.rescan(reload=os.path.join(self._places[API], stem + filenames.SUFFIX))

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
        for what, suffix in (("name", NAME_SUFFIX), ("mode", TOLERATE_SUFFIX)):
            try:
                files.remove(self.root, (DIRECTORY,), stem + suffix)
            except OSError as error:
                log.warning("cannot remove the %s of a removed schema: %s", what, error.strerror)
        self.rescan()

    def rescan(self, force: bool = False, reload: str | None = None) -> None:
        """Load every file that has changed since the last scan, and the file ``reload``.

        With ``force``, load all.
        """
        # One scan at a time: an older state of the files must not replace a newer one.
        with self._lock:
            self._rescan(force, reload)

    def _rescan(self, force: bool, reload: str | None) -> None:
        entries: dict[str, Entry] = {}
        problems: list[str] = []
        for source in self._places:
            for path, stat_key, is_marked in self._files(source, problems):
                known = self._entries.get(path)
                if known is None or known.stat_key != stat_key or force or path == reload:
                    known = self._load(source, path, stat_key, known)
                if source == FILE and known.tolerates != is_marked:
                    known = dataclasses.replace(known, tolerates=is_marked)
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
            tolerates = before is not None and before.tolerates
            return Entry(automation, source, path, stat_key, old, cause, tolerates)
        if source == FILE:
            self._keep_as_good(automation, text)
        if before is not None:
            log.info("loaded the schema of %r from %s", automation, path)
        stem = os.path.basename(path).removesuffix(filenames.SUFFIX)
        tolerates = source == API and _hash(text) in self._tolerating(stem)
        return Entry(automation, source, path, stat_key, validator, tolerates=tolerates)

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

    def _tolerating(self, stem: str) -> set[str]:
        """Return the hashes of the schemas of one automation that were set to tolerate."""
        try:
            return set(self._read(API, stem + TOLERATE_SUFFIX).decode().split())
        except (OSError, UnicodeDecodeError):
            return set()

    def _write_modes(self, stem: str, now: set[str], wanted: set[str]) -> set[str]:
        """Store the hashes of the schemas that tolerate, unless they are stored; return them."""
        if wanted and wanted != now:
            text = "".join(f"{each}\n" for each in sorted(wanted))
            self._write(stem + TOLERATE_SUFFIX, text.encode())
        elif wanted != now:
            files.remove(self.root, (DIRECTORY,), stem + TOLERATE_SUFFIX)
        return wanted

    def _stored(self, stem: str) -> bytes | None:
        try:
            return self._read(API, stem + filenames.SUFFIX)
        except OSError:
            return None

    def _files(self, source: str, problems: list[str]) -> Iterator[tuple[str, FileKey, bool]]:
        """Yield the schema files of a directory, and whether each has a file TOLERATE_SUFFIX.

        Add the other entries to ``problems``.
        """
        ours = source == API
        place = self._places[source]
        try:
            found = files.names(self.root, (DIRECTORY,)) if ours else os.listdir(place)
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            problems.append(f"cannot read the schemas in {place}: {error.strerror}")
            return
        names = set(found)
        for name in sorted(names):
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
            is_marked = name.removesuffix(filenames.SUFFIX) + TOLERATE_SUFFIX in names
            yield path, FileKey(status.st_dev, files.stat_key_of(status)), is_marked

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


def _hash(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()


def _compile(text: bytes) -> Validator:
    # A daemon without schemas never imports the validator.
    from .validator import compile_schema

    return compile_schema(strict_json.loads(text, "the schema"))
