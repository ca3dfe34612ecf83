"""How long the proofs run: a short form in every test run, the whole with ``make fleet-faults``."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parent.parent / name) for name in ("crash", "client")]


@pytest.fixture
def fault_scale() -> float:
    """1 is the whole proof; ``FAULT_SCALE`` says how much of it to run (0.02 by default)."""
    return float(os.environ.get("FAULT_SCALE", "0.02"))
