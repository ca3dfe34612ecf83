"""Take the directories at the start: lock them, check their owner and modes; open the store."""

from __future__ import annotations

import contextlib
import logging
import os
import ssl
from collections.abc import Mapping
from pathlib import Path

from .fs import files, mounts
from .fs.locks import hold_daemon_lock
from .model.revisions import HistoryLimits
from .settings.sections import Etcd, Settings, SettingsError
from .settings.validation import seconds, shards
from .store.base import Store
from .store.file.records import JournalError
from .store.file.store import FileStore, FileStoreOptions

log = logging.getLogger(__name__)
CREDENTIAL = "etcd-password"


class StartError(Exception):
    """The daemon cannot start; the message says why, and how to fix it."""


# A directory with no other entries belongs to bucketd alone, so its mode may be changed to 0700.
_OURS = {
    *("devices", "history", "journal", "quarantine", "schemas", "trash"),
    *("backup.json", "clock.json", "write.lock", "daemon.lock", "lost+found"),
}


def take_state_dir(settings: Settings) -> int:
    """Return a descriptor of the state directory, locked for the life of this process."""
    path = settings.paths.state_dir
    try:
        root = files.open_root(path)
        if _OURS.issuperset(os.listdir(root)):
            # The directory was created beforehand, with the umask of its creator.
            os.fchmod(root, 0o700)
        _check_owner(root, path, "--state-dir")
        held, holder = hold_daemon_lock(root)
    except OSError as error:
        raise StartError(
            f"cannot use the state directory {path}: {error.strerror}; "
            "give another with --state-dir, or make it writable for this user"
        ) from error
    if held is None:
        raise StartError(
            f"cannot use the state directory {path}: another bucketd holds it "
            f"(process {holder or 'unknown'}); stop that one, or give another directory "
            "with --state-dir"
        )
    return root


def take_runtime_dir(settings: Settings) -> int:
    """Return a descriptor of the runtime directory; anyone may reach the socket in it (0755)."""
    path = settings.paths.runtime_dir
    try:
        existed = os.path.isdir(path)
        runtime = files.open_root(path)
        if not existed:
            os.fchmod(runtime, 0o755)
        _check_owner(runtime, path, "--runtime-dir")
    except OSError as error:
        raise StartError(
            f"cannot use the runtime directory {path}: {error.strerror}; "
            "give another with --runtime-dir"
        ) from error
    return runtime


def _check_owner(fd: int, path: str, flag: str) -> None:
    """Refuse a directory that other users may write to: they could add buckets or contexts."""
    status, uid = os.fstat(fd), os.geteuid()
    if status.st_uid != uid:
        raise StartError(
            f"cannot use the directory {path}: it belongs to user {status.st_uid}, and this is "
            f"user {uid}; run as that user, chown it, or give another with {flag}"
        )
    if status.st_mode & 0o022:
        raise StartError(
            f"cannot use the directory {path}: other users may write to it; "
            f"chmod go-w it, or give another with {flag}"
        )


def _check_filesystem(root: int, settings: Settings) -> str | None:
    """Return why writes may be lost in the state directory; refuse unless the settings allow it."""
    path = settings.paths.state_dir
    cause = mounts.unfit(path)
    risk = "a power cut may cost acknowledged writes"
    if cause is None and _ignores_case(root):
        cause = "its file system ignores case in names"
        risk = "the second of two names that differ in case displaces the first"
    if cause is None:
        return None
    if not settings.store.unsafe_filesystem:
        raise StartError(
            f"cannot keep buckets safely in {path}: {cause}, so {risk}; "
            "give a directory on another file system, on a local disk, with --state-dir, "
            "or accept that with --unsafe-filesystem"
        )
    log.warning("%s in %s: %s", risk, path, cause)
    return cause


def _ignores_case(root: int) -> bool:
    """Report whether two names can be one in the state directory, or in that of the devices."""
    for path in (".", "devices"):
        # The check fails only where nothing can be written; there no name can displace another.
        with contextlib.suppress(OSError):
            if mounts.ignores_case(root, path):
                return True
    return False


def open_store(root: int, settings: Settings) -> Store:
    """Open the engine that the settings name. Raises StartError or SettingsError."""
    store = settings.store
    history = HistoryLimits(settings.history.revisions, settings.history.bytes)
    if store.engine == "etcd":
        return _open_etcd(settings.store_etcd, os.environ, store.cache_bytes, history)
    options = FileStoreOptions(
        cache_bytes=store.cache_bytes,
        lock_timeout=store.lock_timeout_seconds,
        journal_bytes=store.journal_bytes,
        relaxed_seconds=store.relaxed_seconds if store.durability == "relaxed" else None,
        unsafe=_check_filesystem(root, settings),
        history=history,
    )
    try:
        return FileStore(os.dup(root), settings.paths.state_dir, options)
    except JournalError as error:
        raise StartError(str(error)) from error
    except OSError as error:
        raise StartError(
            f"cannot open the journal in {settings.paths.state_dir}: {error.strerror}; "
            "nothing is lost, fix that and start again"
        ) from error


def _open_etcd(
    settings: Etcd, environ: Mapping[str, str], stale_bytes: int, history: HistoryLimits
) -> Store:
    """Return the store of a cluster, which need not respond yet.

    At most ``stale_bytes`` are kept for stale reads. Raises SettingsError for a file that cannot
    be used.
    """
    # A daemon on files does not pay for the import of the etcd engine.
    from .store.etcd import EtcdOptions, EtcdStore, ShardedStore

    found = shards(settings.shards) or {"": settings.endpoints}
    tls = _tls(settings, [url for urls in found.values() for url in urls])
    password = _password(settings, environ) if settings.user else ""
    options = {
        name: EtcdOptions(
            endpoints,
            settings.prefix,
            settings.timeout_seconds,
            tls,
            settings.user,
            password,
            seconds(settings.stale_reads),
            stale_bytes // len(found),
            history,
        )
        for name, endpoints in found.items()
    }
    return EtcdStore(options[""]) if "" in options else ShardedStore(options)


def _password(settings: Etcd, environ: Mapping[str, str]) -> str:
    path = settings.password_file
    if not path and "CREDENTIALS_DIRECTORY" in environ:
        path = f"{environ['CREDENTIALS_DIRECTORY']}/{CREDENTIAL}"
    if not path:
        raise SettingsError(
            "cannot use store.etcd.user: it has no password; name its file in "
            f"store.etcd.password_file, or give systemd's credential {CREDENTIAL}"
        )
    try:
        return Path(path).read_text().split("\n", 1)[0]
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"cannot read the password of etcd in {path}: {error}") from None


def _tls(settings: Etcd, urls: list[str]) -> ssl.SSLContext | None:
    plain = all(url.lower().startswith("http:") for url in urls)
    if plain and not settings.ca and not settings.cert:
        return None
    try:
        context = ssl.create_default_context(cafile=settings.ca or None)
        if settings.cert:
            context.load_cert_chain(settings.cert, settings.key or None)
    except OSError as error:
        raise SettingsError(f"cannot use ca, cert and key of [store.etcd]: {error}") from None
    return context
