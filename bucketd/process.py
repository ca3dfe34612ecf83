"""What makes all other imports shorter, and so has to be the first.

aiohttp reads all certificates of the system for a context that nobody uses here: up to 36 ms of
each start, and 2 MiB. The one by which a cluster is reached is made by ``fleet``. And what is
imported leaves no garbage, so a search for it is 10 ms for nothing; ``daemon`` turns it on again.
"""

from __future__ import annotations

import gc
import os

_PLACES = ("SSL_CERT_FILE", "SSL_CERT_DIR")  # where OpenSSL looks for them, if it is told


def _import_aiohttp() -> None:
    given = {name: os.environ.get(name) for name in _PLACES}
    os.environ.update(dict.fromkeys(_PLACES, os.devnull))
    try:
        import aiohttp  # noqa: F401
    finally:
        for name, place in given.items():
            if place is None:
                del os.environ[name]
            else:
                os.environ[name] = place


gc.disable()
_import_aiohttp()
