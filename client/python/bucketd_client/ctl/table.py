"""All commands of ``bucketctl``, by name: those of every day and the others."""

from __future__ import annotations

from .commands import COMMANDS, Command
from .more import COMMANDS as MORE


def every() -> tuple[Command, ...]:
    return tuple(sorted((*COMMANDS, *MORE), key=lambda command: command.name))
