"""The author of a change: the user, and the context and run that the change was made in."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import orjson

_NAMES = ("user", "context", "device", "job", "run", "edit", "retention")


# Each write carries one, so its JSON is made once.
@dataclass(frozen=True, slots=True)
class Author:
    """The author of a change. ``context`` is the id of the context whose token was sent,
    ``device`` and ``job`` are its names, and ``run`` is its label.

    ``edit``: another program edited the file. ``retention``: the daemon removed what was old.
    """

    user: str | None = None
    context: str | None = None
    device: str | None = None
    job: str | None = None
    run: str | None = None
    edit: bool = False
    retention: bool = False
    json: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "json", orjson.dumps(self.members()))

    def members(self, automation: str | None = None) -> dict[str, Any]:
        """Return what is known of the author, with the automation of the change."""
        shown = {name: value for name in _NAMES if (value := getattr(self, name))}
        if automation is not None and not self.edit:
            shown["automation"] = automation
        return shown

    @staticmethod
    def read(members: Any) -> Author:
        """Return the author with these members; what a later version adds is left out."""
        if not isinstance(members, dict):
            return UNKNOWN
        return known(**{name: members[name] for name in _NAMES if name in members})


UNKNOWN = Author()
EDIT = Author(edit=True)
RETENTION = Author(retention=True)


@lru_cache(maxsize=4096)
def known(
    user: str | None = None,
    context: str | None = None,
    device: str | None = None,
    job: str | None = None,
    run: str | None = None,
    edit: bool = False,
    retention: bool = False,
) -> Author:
    """Return the author with these members, made once for all changes of one."""
    return Author(user, context, device, job, run, edit, retention)
