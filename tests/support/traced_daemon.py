"""Run bucketd, and write its function calls in order to the file $TRACE when it ends.

Each line is ``bucketd/module.py Qualified.name``.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from types import FrameType

import bucketd
from bucketd.__main__ import main

HOME = os.path.dirname(os.path.dirname(bucketd.__file__)) + "/"
INSIDE = HOME + "bucketd/"
calls: list[str] = []


def note(frame: FrameType, event: str, _argument: object) -> None:
    code = frame.f_code
    if event == "call" and code.co_filename.startswith(INSIDE):
        calls.append(f"{code.co_filename.removeprefix(HOME)} {code.co_qualname}")


threading.setprofile(note)
sys.setprofile(note)
try:
    status = main()
finally:
    sys.setprofile(None)
    Path(os.environ["TRACE"]).write_text("\n".join(calls))
sys.exit(status)
