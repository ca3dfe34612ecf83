"""What holds for the daemon holds for the server for tests: the very same tests."""

from __future__ import annotations

from test_bad_input import *  # noqa: F403
from test_verbs import *  # noqa: F403
