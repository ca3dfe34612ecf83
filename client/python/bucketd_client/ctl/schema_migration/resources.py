"""Schemas within schemas, each with references of its own."""

from __future__ import annotations

from typing import Any

# Nothing is ever fetched from there.
_BASE = "https://bucketd.invalid/"


def resource(schema: Any, name: str) -> Any:
    """Return a JSON Schema in which ``#`` means that schema, wherever it is put."""
    if not isinstance(schema, dict) or isinstance(schema.get("$id"), str):
        return schema
    return {**schema, "$id": _BASE + name}
