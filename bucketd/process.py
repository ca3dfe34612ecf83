"""Prepare this process: imports, standard streams, core dumps, memory, the garbage collector.

Import this module first, since it shortens all other imports. aiohttp would read all certificates
of the system for a context that bucketd does not use, which takes up to 36 ms and 2 MiB;
``startup`` creates the context for a cluster. Imports create hardly any garbage, so the garbage
collector, which would take 10 ms, is off until ``tune_for_serving``.
"""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import sys

# The variables that tell OpenSSL where the certificates are.
_CERTIFICATE_VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR")
# Constants of malloc.h.
_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8
# The number of new objects, and of collections, after which the next generation is collected.
_GC_THRESHOLDS = (4_000, 4, 500)
# How long a worker thread may run while the event loop waits for the interpreter's lock.
_SWITCH_SECONDS = 0.001


def _import_aiohttp() -> None:
    given = {name: os.environ.get(name) for name in _CERTIFICATE_VARIABLES}
    os.environ.update(dict.fromkeys(_CERTIFICATE_VARIABLES, os.devnull))
    try:
        import aiohttp  # noqa: F401
    finally:
        for name, value in given.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def prepare() -> None:
    """Prepare the process for its whole life; call this before any file is opened."""
    # Each file is created with its own mode, which a stricter umask would change.
    os.umask(0o022)
    _reserve_standard_streams()
    _refuse_core_dumps()
    _return_freed_memory()


def _reserve_standard_streams() -> None:
    """Open /dev/null for each closed standard stream, so that no other file gets its number."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # The kernel assigns the lowest free number.
            os.open(os.devnull, os.O_RDWR)


def _refuse_core_dumps() -> None:
    """Refuse core dumps: they would hold buckets, and tokens that are being checked."""
    # A kernel that pipes dumps to a program ignores all limits but 1.
    _, hard_limit = resource.getrlimit(resource.RLIMIT_CORE)
    if hard_limit != 0:
        resource.setrlimit(resource.RLIMIT_CORE, (1, 1))


def _return_freed_memory() -> None:
    """Make the C library return freed memory at once, so that a short peak of use does not last."""
    # Only glibc has mallopt.
    if hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(_M_MMAP_THRESHOLD, 256 * 1024)
        libc.mallopt(_M_ARENA_MAX, 2)


def tune_for_serving() -> None:
    """Turn the garbage collector on, for few objects at a time, and exempt the imported ones.

    A collection blocks every request and finds little, since most objects are freed without it.
    """
    gc.freeze()
    gc.enable()
    gc.set_threshold(*_GC_THRESHOLDS)
    sys.setswitchinterval(_SWITCH_SECONDS)


gc.disable()
_import_aiohttp()
