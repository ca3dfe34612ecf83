"""``bucketd`` that waits seconds where it waits half a minute: for inotify, and to be reachable."""

from __future__ import annotations

import sys

from bucketd import endpoint
from bucketd.__main__ import main
from bucketd.core.schemas import file_watcher
from bucketd.store.file import edit_watcher

if __name__ == "__main__":
    endpoint.UNREACHABLE_SECONDS = 3.0
    file_watcher.RETRY_SECONDS = edit_watcher.RETRY_SECONDS = 2.0
    sys.exit(main())
