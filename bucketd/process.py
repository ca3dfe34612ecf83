"""Prepare this process: imports, standard streams, core dumps, memory, the garbage collector.

Importing this module first shortens all other imports. aiohttp reads all certificates of the
system for a context that is not used here: up to 36 ms of each start, and 2 MiB. ``startup`` makes
the context for a cluster. And imports leave no garbage, so collecting it would cost 10 ms for
nothing; ``tune_for_serving`` turns the collector on again.
"""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import sys

_CERTIFICATE_VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR")  # where OpenSSL looks for certificates
_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8  # malloc.h
_GC_THRESHOLDS = (4_000, 4, 500)  # new objects, then how many collections until the older ones
_SWITCH_SECONDS = 0.001  # how long a worker thread may run before the event loop gets its turn


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
    """Set what holds for the whole life of the process; call this before any file is opened."""
    # Files get their modes where they are made; a stricter umask would break them.
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
            os.open(os.devnull, os.O_RDWR)  # This takes the lowest free number.


def _refuse_core_dumps() -> None:
    """Refuse core dumps: they would hold buckets, and tokens that are being checked."""
    # The kernel ignores the limit when it pipes dumps to a program; only a limit of 1 stops that.
    _, hard_limit = resource.getrlimit(resource.RLIMIT_CORE)
    if hard_limit != 0:
        resource.setrlimit(resource.RLIMIT_CORE, (1, 1))


def _return_freed_memory() -> None:
    """Have the C library return large buffers at once; else a short peak would last for good."""
    if hasattr(libc := ctypes.CDLL(None), "mallopt"):  # Only glibc has it.
        libc.mallopt(_M_MMAP_THRESHOLD, 256 * 1024)
        libc.mallopt(_M_ARENA_MAX, 2)


def tune_for_serving() -> None:
    """Turn the garbage collector on, for few objects at a time and without what was imported.

    A collection blocks every request, and finds little: most objects are freed without it.
    """
    gc.freeze()
    gc.enable()
    gc.set_threshold(*_GC_THRESHOLDS)
    sys.setswitchinterval(_SWITCH_SECONDS)


gc.disable()
_import_aiohttp()
