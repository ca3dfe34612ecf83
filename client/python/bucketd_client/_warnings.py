"""The warning about a bucket that violates its schema, which tolerates what stood before."""

from __future__ import annotations

import warnings

TYPE_CHECKING = False  # see bucketd_client

if TYPE_CHECKING:
    from typing import Any


class SchemaWarning(UserWarning):
    """A write was made, and the bucket violates its schema, as it did before.

    The schema tolerates that (``bucketctl schema set --tolerate``). ``details`` has the
    violations, each with ``path``, ``message`` and ``keyword``.
    """

    def __init__(self, message: str, details: list[Any]) -> None:
        super().__init__(message)
        self.details = details


def warn(details: list[Any], stacklevel: int = 5) -> None:
    """Warn at the line that called the method of a bucket.

    Below the caller are that method, ``_run``, ``result_of`` and this function.
    """
    first, *others = details
    more = f" (and {len(others)} more)" if others else ""
    message = (
        f"the bucket violates its schema, as it did before: {first.get('path') or 'the bucket'} "
        f"{first.get('message')}{more}; correct it with bucketctl edit, or change the schema"
    )
    warnings.warn(SchemaWarning(message, details), stacklevel=stacklevel)
