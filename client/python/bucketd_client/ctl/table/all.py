"""All commands of ``bucketctl`` by name, daily and occasional."""

from __future__ import annotations

from .daily import COMMANDS, Command
from .occasional import COMMANDS as MORE


def every() -> tuple[Command, ...]:
    return tuple(sorted((*COMMANDS, *MORE), key=lambda command: command.name))
