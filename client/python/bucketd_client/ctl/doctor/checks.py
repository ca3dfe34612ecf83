"""The single examinations of ``bucketctl doctor``."""

from __future__ import annotations

import errno
import os
import shutil
import socket as sockets
import stat
import subprocess
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

from ... import __version__, _context
from ..._errors import BucketError
from ..prompts import counted
from ..session import Session
from .findings import OK, PROBLEM, UNKNOWN, WARNING, Finding

LOW_SPACE, LOW_PART = 256 * 1024 * 1024, 0.05
SKEW = timedelta(seconds=60)
SYSTEMD = "/run/systemd/system"
AWAY = "majority of etcd"  # as the daemon's problem then has it


def environment(session: Session) -> Iterator[Finding]:
    """Whether the token that this process was given opens anything."""
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
    """Whether systemd starts the service, on a host where it could."""
    if not os.path.isdir(SYSTEMD) or shutil.which("systemctl") is None:
        return
    enabled, active = _systemctl("is-enabled"), _systemctl("is-active")
    if enabled in ("", "not-found"):
        yield Finding(UNKNOWN, "unit", "bucketd is no service of this host", "make install")
    elif active != "active":
        fix = "systemctl status bucketd; systemctl start bucketd"
        yield Finding(PROBLEM, "unit", f"bucketd.service is {active}", fix)
    elif not enabled.startswith("enabled"):
        fix = "systemctl enable bucketd.service bucketd.socket"
        yield Finding(WARNING, "unit", f"active, but {enabled}: not after a reboot", fix)
    else:
        yield Finding(OK, "unit", "bucketd.service is enabled and active")


def _systemctl(verb: str) -> str:
    done = subprocess.run(
        ["systemctl", verb, "bucketd.service"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    return done.stdout.decode().strip()


def socket(path: str) -> Finding:
    """Whether there is one that this user may connect to."""
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            fix = "set BUCKETD_SOCKET to the daemon's socket"
            return Finding(PROBLEM, "socket", f"{path} is no socket", fix)
        with sockets.socket(sockets.AF_UNIX) as probe:
            probe.settimeout(5)
            probe.connect(path)
    except (FileNotFoundError, NotADirectoryError):
        fix = "start bucketd, or set BUCKETD_SOCKET to the socket of the one that runs"
        return Finding(PROBLEM, "socket", f"{path} is not there", fix)
    except PermissionError:
        fix = "its directory needs mode 0755, itself 0666 ([socket] mode)"
        return Finding(PROBLEM, "socket", f"{path} lets you not connect", fix)
    except OSError as problem:
        fix = "the daemon that made it is gone: start bucketd"
        return Finding(PROBLEM, "socket", f"{path}: {problem.strerror or problem}", fix)
    return Finding(OK, "socket", path)


def version(status: dict[str, Any]) -> Iterator[Finding]:
    theirs = str(status["version"])
    if theirs.split(".")[:2] == __version__.split(".")[:2]:
        yield Finding(OK, "version", f"daemon {theirs}, bucketctl {__version__}")
    else:
        fix = "bring both to one version; restart the daemon after an upgrade"
        yield Finding(WARNING, "version", f"daemon {theirs}, bucketctl {__version__}", fix)


def store(status: dict[str, Any]) -> Iterator[Finding]:
    found = status["store"]
    if found["healthy"]:
        yield Finding(OK, "store", f"healthy, {status['durability']}")
    else:
        yield Finding(PROBLEM, "store", f"takes no writes: {found['problem']}", _mended(found))
    if found.get("journal_damaged"):
        fix = "its copy is in <state>/quarantine; compare with a backup, check the disk"
        yield Finding(WARNING, "journal", "was damaged when the daemon started", fix)


def is_away(status: dict[str, Any]) -> bool:
    """Whether the store is on other hosts, and too few of these answer."""
    return AWAY in str(status["store"]["problem"])


def _mended(store: dict[str, Any]) -> str:
    """The way out; of a full disk the daemon comes back by itself, as its problem then says."""
    if AWAY in str(store["problem"]):
        return "bring a majority of its nodes up; all then goes on by itself, without a restart"
    if any(os.strerror(code) in str(store["problem"]) for code in (errno.ENOSPC, errno.EDQUOT)):
        place = store.get("state_dir") or "the disk"
        return f"free space on {place}; writes then go on by themselves, without a restart"
    return "mend the cause, then restart the daemon; what was acknowledged is kept"


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
        yield Finding(UNKNOWN, "disk", f"cannot look at {path}: {problem.strerror}", "run as root")
        return
    for what, free, total, low in (
        ("bytes", found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize, LOW_SPACE),
        ("inodes", found.f_favail, found.f_files, 10_000),
    ):
        if total and free < min(low, total * LOW_PART):
            fix = f"make room on {path}; writes are refused when it is full"
            yield Finding(PROBLEM, "disk", f"{free:,} {what} are left", fix)
        elif total:
            yield Finding(OK, "disk", f"{free:,} {what} are left ({free / total:.0%})")


def permissions(status: dict[str, Any]) -> Iterator[Finding]:
    path = status["store"].get("state_dir")
    try:
        mode = stat.S_IMODE(os.stat(path).st_mode) if path else None
    except OSError:
        return  # told with the disk
    if mode is not None and mode & 0o077:
        fix = f"chmod 0700 {path}"
        yield Finding(WARNING, "permissions", f"{path} has mode {mode:04o}, others see in", fix)


def quarantine(status: dict[str, Any]) -> Iterator[Finding]:
    if count := status.get("counts", {}).get("quarantined_files"):
        place = f"{status['store'].get('state_dir') or '<state>'}/quarantine"
        fix = f"look at {place}; what was put right, or nobody needs, may be removed"
        yield Finding(WARNING, "quarantine", f"{counted(count, 'damaged file')} kept", fix)


def unreadable(path: str) -> Finding:
    """One bucket whose file is no bucket, as the daemon's lists name it."""
    fix = "put a good copy there, or bucketctl replace (or clear) that bucket"
    return Finding(PROBLEM, "bucket", f"{path} cannot be read", fix)


def schemas(status: dict[str, Any]) -> Iterator[Finding]:
    problems = status["schemas"]["problems"]
    for problem in problems:
        fix = "mend the file; until then the last good one is used"
        yield Finding(WARNING, "schemas", _of_schema(problem), fix)
    if not problems:
        yield Finding(OK, "schemas", f"{status['schemas']['count']} in force")


def _of_schema(problem: object) -> str:
    return f"{problem['path']}: {problem['problem']}" if isinstance(problem, dict) else str(problem)


def clock(rows: list[dict[str, Any]], status: dict[str, Any]) -> Iterator[Finding]:
    """Whether it runs behind what the daemon has already written."""
    now = datetime.now(timezone.utc)
    known = [row["updated_at"] for row in rows if row["updated_at"]]
    try:
        newest = max(map(_time, [*known, status["started_at"]]))
    except ValueError:
        return  # a time that somebody wrote by hand
    if newest > now + SKEW:
        fix = "set the clock (timedatectl set-ntp true); contexts expire by it"
        yield Finding(PROBLEM, "clock", f"it is {now:%F %T} UTC, but buckets are newer", fix)
    else:
        yield Finding(OK, "clock", f"{now:%F %T} UTC")


def _time(text: str) -> datetime:
    found = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return found if found.tzinfo else found.replace(tzinfo=timezone.utc)


OF_STATUS = (version, store, file_system, disk, permissions, quarantine, schemas)
