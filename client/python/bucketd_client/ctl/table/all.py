"""All commands of ``bucketctl`` by name."""

from __future__ import annotations

from .daily import COMMANDS, Command
from .history import COMMANDS as OF_HISTORY
from .occasional import COMMANDS as MORE
from .schemas import COMMANDS as OF_SCHEMAS


def every() -> tuple[Command, ...]:
    return tuple(
        sorted((*COMMANDS, *MORE, *OF_HISTORY, *OF_SCHEMAS), key=lambda command: command.name)
    )
