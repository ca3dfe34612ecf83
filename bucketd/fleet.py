"""From [store.etcd] to a store: passwords and certificates are read here, once."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from pathlib import Path

from .settings.sections import Etcd, SettingsError
from .settings.validation import seconds, shards
from .store.etcd import EtcdOptions, EtcdStore, ShardedStore

CREDENTIAL = "etcd-password"


def open_store(
    settings: Etcd, environ: Mapping[str, str], stale_bytes: int
) -> EtcdStore | ShardedStore:
    """The cluster need not answer yet; SettingsError for a file that cannot be used.

    At most ``stale_bytes`` are remembered for stale reads.
    """
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
            "cannot use store.etcd.user: there is no password for it; name its file in "
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
