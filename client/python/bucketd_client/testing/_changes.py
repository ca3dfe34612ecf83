"""The ways to change a bucket: functions from a dict to a dict.

A function may change the dict that it is given.
"""

from __future__ import annotations

from typing import Any, Callable

Object = dict[str, Any]
Change = Callable[[Object], Object]


def merge(data: Object) -> Change:
    return lambda bucket: {**bucket, **data}


def replace(data: Object) -> Change:
    return lambda _bucket: data


def remove(keys: list[str]) -> Change:
    return lambda bucket: {k: v for k, v in bucket.items() if k not in keys}


def merge_patch(patch: Object) -> Change:
    return lambda bucket: _merged(bucket, patch)


def _merged(target: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merged(merged.get(key), value)
    return merged
