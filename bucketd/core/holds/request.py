"""Parse what a client asks for when it wants a hold."""

from __future__ import annotations

from typing import Any, NamedTuple

from ...errors import InvalidRequest
from ...model.bucket import check_name

MAX_WAIT_SECONDS = 3600
MAX_LABEL = 256
MAX_FENCE = 200


class HoldRequest(NamedTuple):
    """Hold a client's request; ``fence`` asks to come back to a hold after a restart."""

    name: str = ""
    wait_seconds: float = 0.0
    exclusive: bool = False
    label: str | None = None
    fence: str | None = None

    @classmethod
    def checked(cls, body: dict[str, Any]) -> HoldRequest:
        """Return a valid request; raise InvalidRequest for any other."""
        for member in body:
            if member not in cls._fields:
                raise _invalid(f"{member[:40]!r} is not one of {', '.join(cls._fields)}")
        wanted = cls(**body)
        if wanted.name != "":
            check_name(wanted.name, "hold's")
        seconds = wanted.wait_seconds
        if not _is_number(seconds) or not 0 <= seconds <= MAX_WAIT_SECONDS:
            raise _invalid(f"wait_seconds must be a number from 0 to {MAX_WAIT_SECONDS}")
        if not isinstance(wanted.exclusive, bool):
            raise _invalid("exclusive must be true or false")
        if wanted.exclusive and wanted.name:
            raise _invalid("only a hold without a name can be exclusive")
        if wanted.label is not None and not _is_label(wanted.label):
            raise _invalid(
                f"label must be a string of at most {MAX_LABEL} characters, no control characters"
            )
        if wanted.fence is not None and not is_fence(wanted.fence):
            raise _invalid("fence must be one that a hold was given")
        return wanted


def is_fence(value: object) -> bool:
    """Report whether a value may be a fence: up to 200 visible ASCII characters, no comma."""
    return (
        isinstance(value, str)
        and 0 < len(value) <= MAX_FENCE
        and value.isascii()
        and value.isprintable()
        and not {" ", ","} & set(value)
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_label(value: object) -> bool:
    if not isinstance(value, str) or len(value) > MAX_LABEL:
        return False
    try:
        for start in range(0, len(value), 128):
            check_name(value[start : start + 128], "label")
    except InvalidRequest:
        return False
    return True


def _invalid(cause: str) -> InvalidRequest:
    return InvalidRequest(f"cannot hold: {cause}")
