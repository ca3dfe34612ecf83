"""The single checks of ``bucketctl doctor``."""

from __future__ import annotations

import errno
import os
import shutil
import socket as sockets
import stat
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from typing import Any

from ... import __version__, _context
from ..._errors import BucketError, NotFound
from .. import bucket_paths, output
from ..clock import jump_seconds, parse_time
from ..filters import described
from ..prompts import counted
from ..session import Session
from .findings import OK, PROBLEM, UNKNOWN, WARNING, Finding, failed

LOW_SPACE, LOW_PART = 256 * 1024 * 1024, 0.05
SKEW = timedelta(seconds=60)
# A timer that runs each day, and may be late once.
BACKUP_AGE = timedelta(days=2)
SYSTEMD = "/run/systemd/system"
# A part of the daemon's message about a cluster that is unavailable.
CLUSTER_UNAVAILABLE = "majority of etcd"
# Parts of its messages about what does no harm by itself: a kept file, and edits found late.
QUARANTINE, POLLED = "quarantine/", "so they are polled"
JOURNAL = "the journal was damaged"
TRASH = "trash/"


def environment(session: Session) -> Iterator[Finding]:
    """Check the token that this process was given."""
    try:
        scope = _context.from_environment(os.environ, device_bucket=True)
    except BucketError as problem:
        for name in ("BUCKETD_TOKEN_FILE", "BUCKETD_TOKEN"):
            if name in problem.message:
                yield Finding(PROBLEM, "context", problem.message, f"unset {name}")
                break
        return
    if scope.token is None:
        return
    try:
        found = session.call("GET", "/v1/context", headers=scope.headers()).members
    except BucketError as problem:
        if problem.code == "no_job_context":
            fix = "unset BUCKETD_TOKEN, or start the job with bucketctl run"
            yield Finding(PROBLEM, "context", problem.message, fix)
        return
    yield Finding(OK, "context", f"the token is of {found['device']}, {found['job'] or '(device)'}")


def unit() -> Iterator[Finding]:
    """Check that systemd starts the service, on a host that runs systemd."""
    if not os.path.isdir(SYSTEMD) or shutil.which("systemctl") is None:
        return
    enabled, active = _systemctl("is-enabled"), _systemctl("is-active")
    if enabled in ("", "not-found"):
        yield Finding(UNKNOWN, "unit", "bucketd is not a service of this host", "make install")
    elif active != "active":
        fix = "systemctl status bucketd; systemctl start bucketd"
        yield Finding(PROBLEM, "unit", f"bucketd.service is {active}", fix)
    elif not enabled.startswith("enabled"):
        fix = "systemctl enable bucketd.service bucketd.socket"
        yield Finding(WARNING, "unit", f"active, but {enabled}: not after a reboot", fix)
    else:
        yield Finding(OK, "unit", "bucketd.service is enabled and active")


def _systemctl(*words: str) -> str:
    done = subprocess.run(
        ["systemctl", *words, "bucketd.service"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    return done.stdout.decode().strip()


def socket(path: str) -> Finding:
    """Check that the socket exists and that this user may connect to it."""
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            fix = "set BUCKETD_SOCKET to the daemon's socket"
            return Finding(PROBLEM, "socket", f"{path} is not a socket", fix)
        with sockets.socket(sockets.AF_UNIX) as probe:
            probe.settimeout(5)
            probe.connect(path)
    except (FileNotFoundError, NotADirectoryError):
        fix = "start bucketd, or set BUCKETD_SOCKET to the socket of the one that runs"
        what = f"{path} does not exist"
        if not os.path.isdir(os.path.dirname(os.path.abspath(path))):
            what += ", nor is its directory"
            fix += "; systemd removes it at logout unless loginctl enable-linger is set"
        return Finding(PROBLEM, "socket", what, fix)
    except PermissionError:
        fix = "the directory needs mode 0755, the socket 0666 ([socket] mode)"
        return Finding(PROBLEM, "socket", f"{path} does not let you connect", fix)
    except OSError as problem:
        fix = "the daemon that created it is gone: start bucketd"
        if _is_mount_point(path):
            fix = (
                "the socket alone is mounted here, and the daemon has created another since: "
                "mount its directory instead, and start this container again"
            )
        return Finding(PROBLEM, "socket", f"{path}: {problem.strerror or problem}", fix)
    return Finding(OK, "socket", path)


def _is_mount_point(path: str) -> bool:
    """Report whether a file is a mount point, by /proc/self/mountinfo."""
    place = os.path.realpath(path)
    with (
        suppress(OSError),
        open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as file,
    ):
        # The fifth field is the mount point, with \\040 for a blank.
        return any(line.split(" ")[4].replace("\\040", " ") == place for line in file)
    return False


def version(status: dict[str, Any]) -> Iterator[Finding]:
    theirs = str(status["version"])
    if theirs.split(".")[:2] == __version__.split(".")[:2]:
        yield Finding(OK, "version", f"daemon {theirs}, bucketctl {__version__}")
    else:
        fix = "install the same version of both; restart the daemon after an upgrade"
        yield Finding(WARNING, "version", f"daemon {theirs}, bucketctl {__version__}", fix)


def store(status: dict[str, Any]) -> Iterator[Finding]:
    found = status["store"]
    if found["healthy"]:
        yield Finding(OK, "store", f"healthy, {status['durability']}")
    else:
        yield Finding(PROBLEM, "store", f"refuses writes: {found['problem']}", _fix_of(found))
    if found.get("journal_damaged"):
        fix = "its copy is in <state>/quarantine; compare with a backup, check the disk"
        yield Finding(WARNING, "journal", "was damaged when the daemon started", fix)


def store_problems(status: dict[str, Any]) -> Iterator[Finding]:
    """Tell what the store found wrong beside its health, and each file in its quarantine."""
    found, kept, is_down = status["store"], 0, is_cluster_unavailable(status)
    home = found.get("state_dir") or "<state>"
    for problem in map(str, found.get("problems") or []):
        what, _, fix = problem.rpartition("; ")
        what, fix = (what, fix) if what else (problem, "look into the daemon's log")
        if what.startswith(QUARANTINE):
            kept += 1
            yield Finding(WARNING, "quarantine", f"{home}/{what}", fix)
        # The check of the trash names what is in it, and what cannot be read.
        elif what.startswith(TRASH):
            continue
        # The check of the store has reported its problem and its journal already.
        elif not (is_down or problem == found["problem"] or JOURNAL in problem):
            yield Finding(WARNING if POLLED in problem else PROBLEM, "store", what, fix)
    if more := (status.get("counts", {}).get("quarantined_files") or 0) - kept:
        what = counted(more, "further damaged file" if kept else "damaged file")
        fix = "bucketctl quarantine list; remove what was restored, or is not needed"
        yield Finding(WARNING, "quarantine", f"{what} kept", fix)


def is_cluster_unavailable(status: dict[str, Any]) -> bool:
    """Report whether the store is a cluster of which no majority responds."""
    return CLUSTER_UNAVAILABLE in str(status["store"]["problem"])


def _fix_of(store: dict[str, Any]) -> str:
    """Return how to fix the store; after a full disk the daemon recovers by itself."""
    if CLUSTER_UNAVAILABLE in str(store["problem"]):
        return "start a majority of its nodes; the daemon then recovers without a restart"
    if any(os.strerror(code) in str(store["problem"]) for code in (errno.ENOSPC, errno.EDQUOT)):
        place = store.get("state_dir") or "the disk"
        return f"free space on {place}; writes then work again without a restart"
    return "fix the cause, then restart the daemon; acknowledged writes are kept"


def file_system(status: dict[str, Any]) -> Iterator[Finding]:
    if cause := status["store"].get("unsafe_filesystem"):
        fix = "move --state-dir to a local disk (ext4, XFS, Btrfs)"
        yield Finding(WARNING, "file system", f"a power cut may lose writes: {cause}", fix)
    elif "unsafe_filesystem" in status["store"]:
        yield Finding(OK, "file system", "keeps what is synced")


def disk(status: dict[str, Any]) -> Iterator[Finding]:
    path = status["store"].get("state_dir")
    if path is None:
        return
    try:
        found = os.statvfs(path)
    except OSError as problem:
        yield Finding(UNKNOWN, "disk", f"cannot examine {path}: {problem.strerror}", "run as root")
        return
    for what, free, total, low in (
        ("bytes", found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize, LOW_SPACE),
        ("inodes", found.f_favail, found.f_files, 10_000),
    ):
        left = output.size(free) if what == "bytes" else f"{free:,} {what}"
        if total and free < min(low, total * LOW_PART):
            fix = f"free space on {path}; writes are refused when it is full"
            yield Finding(PROBLEM, "disk", f"{left} are left", fix)
        elif total:
            yield Finding(OK, "disk", f"{left} are left ({free / total:.0%})")


def permissions(status: dict[str, Any]) -> Iterator[Finding]:
    path = status["store"].get("state_dir")
    try:
        mode = stat.S_IMODE(os.stat(path).st_mode) if path else None
    except OSError:
        # The check of the disk reports this error.
        return
    if mode is not None and mode & 0o077:
        fix = f"chmod 0700 {path}"
        yield Finding(WARNING, "permissions", f"{path} has mode {mode:04o}, others may enter", fix)


def unreadable(session: Session, entry: object) -> Finding:
    """Read a bucket that a list could not read, and return the finding.

    A request by name may still recover the bucket; only a lost bucket has to be replaced.
    """
    path = described(entry)
    names = bucket_paths.names(str(entry.get("path") if isinstance(entry, dict) else entry))
    fix = "the daemon has no other copy: restore that file, or move it out of devices/"
    if names is None:
        return Finding(PROBLEM, "bucket", f"{path} cannot be read", fix)
    scope = _context.named(*names, None, False)
    try:
        members = session.call("GET", scope.target()).members
    except BucketError as problem:
        if problem.code == "bucket_corrupt":
            fix = "put a good copy there, or bucketctl replace (or clear) that bucket"
        return Finding(PROBLEM, "bucket", f"{path} cannot be read", fix)
    revision = members.get("revision")
    if not revision:
        return Finding(PROBLEM, "bucket", f"{path} cannot be read", fix)
    fix = "nothing has to be done; the damaged file is kept in <state>/quarantine"
    return Finding(WARNING, "bucket", f"{path} was damaged: recovered, revision {revision}", fix)


def trash(session: Session) -> Iterator[Finding]:
    """Tell what in the trash cannot be read, so that nobody counts on it."""
    try:
        entries = session.call("GET", "/v1/trash?limit=1000").members.get("unreadable", [])
    except NotFound:
        # An older daemon has no trash.
        return
    except BucketError as problem:
        yield failed("trash", problem)
        return
    for entry in entries:
        fix = "look at it, then move it away; everything else in the trash can be restored"
        yield Finding(WARNING, "trash", f"{described(entry)} is no deleted bucket", fix)


def problems(status: dict[str, Any]) -> Iterator[Finding]:
    """Report the daemon's own problems, such as a background task that has ended."""
    for entry in status.get("problems") or []:
        found = entry if isinstance(entry, dict) else {"problem": entry}
        what = found.get("problem") or found.get("message") or found.get("error") or found
        about = found.get("about") or found.get("task") or found.get("code") or "background"
        fix = found.get("fix") or "look into the daemon's log, then restart the daemon"
        yield Finding(PROBLEM, str(about), str(what), str(fix))


def backup(status: dict[str, Any]) -> Iterator[Finding]:
    """Check the time of the last backup; where none was made, only a host's service is told so."""
    last = status.get("backup")
    if last is not None:
        age = datetime.now(timezone.utc) - parse_time(last["at"])
        what = f"the last one was made {output.age(last['at'])} ({last['buckets']} buckets)"
        fix = "see why: systemctl status bucketd-backup.timer bucketd-backup.service"
        yield Finding(WARNING if age > BACKUP_AGE else OK, "backup", what, fix * (age > BACKUP_AGE))
    elif "backup" in status and _is_service(status):
        fix = "systemctl enable --now bucketd-backup.timer, or bucketctl backup DIR from cron"
        yield Finding(WARNING, "backup", "there is none yet", fix)


def _is_service(status: dict[str, Any]) -> bool:
    """Report whether the daemon that answers is the service of this host."""
    if not os.path.isdir(SYSTEMD) or shutil.which("systemctl") is None:
        return False
    return _systemctl("show", "--value", "--property=MainPID") == str(status["pid"])


def settings(status: dict[str, Any]) -> Iterator[Finding]:
    """Report settings in the files that the daemon could not use at the last reload."""
    if problem := status.get("settings_problem"):
        fix = "correct the file (bucketd --check-config shows the error), then reload bucketd"
        yield Finding(PROBLEM, "settings", str(problem), fix)


def schemas(status: dict[str, Any]) -> Iterator[Finding]:
    problems = status["schemas"]["problems"]
    for problem in problems:
        fix = "fix the file; until then the last good one is used"
        yield Finding(WARNING, "schemas", _of_schema(problem), fix)
    if not problems:
        yield Finding(OK, "schemas", f"{status['schemas']['count']} in force")


def _of_schema(problem: object) -> str:
    return f"{problem['path']}: {problem['problem']}" if isinstance(problem, dict) else str(problem)


def clock(rows: list[dict[str, Any]], status: dict[str, Any]) -> Iterator[Finding]:
    """Check the clock against the times of the buckets, and against the daemon's uptime."""
    now = datetime.now(timezone.utc)
    newest = now - SKEW
    for text in [status["started_at"], *(row["updated_at"] for row in rows)]:
        # A time written by hand may be missing or invalid.
        with suppress(ValueError, TypeError, AttributeError):
            newest = max(newest, parse_time(text))
    if newest > now + SKEW:
        fix = "set the clock (timedatectl set-ntp true)"
        yield Finding(PROBLEM, "clock", f"it is {now:%F %T} UTC, but buckets are newer", fix)
    elif jump := jump_seconds(status):
        fix = "restart the daemon once the clock is right; until then nothing is swept"
        what = f"it was set by {jump:+,.0f} seconds since the daemon started"
        yield Finding(WARNING, "clock", what, fix)
    else:
        yield Finding(OK, "clock", f"{now:%F %T} UTC")


OF_STATUS = (
    version,
    store,
    store_problems,
    problems,
    settings,
    backup,
    file_system,
    disk,
    permissions,
    schemas,
)
