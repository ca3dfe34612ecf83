"""How long the crash proofs run: a short form in every test run, the whole with ``make crash``."""

from __future__ import annotations

import os

import pytest


@pytest.fixture
def crash_scale() -> float:
    """1 is the whole proof; ``CRASH_SCALE`` says how much of it to run (0.02 by default)."""
    return float(os.environ.get("CRASH_SCALE", "0.02"))
