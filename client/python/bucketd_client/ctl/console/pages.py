"""The built files of the page, which are data of this package."""

from __future__ import annotations

import json
import pkgutil

from ..._errors import BucketError

_FOLDER = "web"
_LIST = "files.json"


class NotBuilt(BucketError):
    """This installation has no page."""


def load() -> dict[str, tuple[str, bytes]]:
    """Return media type and bytes of each file by its path in the URL. Raise NotBuilt."""
    listed = _read(_LIST)
    if listed is None:
        raise NotBuilt(
            "cannot open the console: its page is not built in this checkout; build it with "
            "`make console`, which needs Node 18 or newer, or install bucketd-client from a wheel",
            code="not_built",
        )
    files = {}
    for path, (name, media_type) in json.loads(listed).items():
        content = _read(name)
        assert content is not None, name  # noqa: S101  (the build writes the list last)
        files[path] = (media_type, content)
    return files


def _read(name: str) -> bytes | None:
    # This works in a zip file, too.
    try:
        return pkgutil.get_data(__package__, f"{_FOLDER}/{name}")
    except OSError:
        return None
