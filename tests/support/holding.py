"""Hold something in a process of its own until that is killed: its socket, its hold's path."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from harness import Daemon
from holders import Holder


def main() -> None:
    holder = Holder(Daemon(Path(sys.argv[1])), sys.argv[2]).taken()
    print(json.dumps(holder.hold), flush=True)
    while True:
        time.sleep(1)


if __name__ == "__main__":
    main()
