"""``bucketctl grep``: search the keys and values of all buckets, a page at a time."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from ... import _json
from .. import filters, output
from ..json_diff import pointer
from ..parser import Usage
from ..session import MASK_SECRETS, Session, Shown
from ..table.daily import Options

NONE_FOUND = 1
# The longest value that a terminal shows.
MAX_SHOWN = 200
Matches = Callable[[str], object]


def grep(options: Options) -> int:
    """Print each place that matches; return 1 if there is none, or a bucket cannot be read."""
    matches, only_keys = _pattern(options), options.has("keys")
    session, left_out, found = Session(options), filters.LeftOut(), 0
    output.end_with_reader()
    mask = [] if options.has("reveal") else [MASK_SECRETS]
    try:
        for members in filters.pages(session, "/v1/export", "envelopes", extra=mask):
            for envelope in members["envelopes"]:
                for path, value in _places(envelope["bucket"], matches, only_keys):
                    found += 1
                    _show(envelope, path, value)
            left_out.note(members)
    except Shown:
        return 0
    return left_out.status or (0 if found else NONE_FOUND)


def _pattern(options: Options) -> Matches:
    text = options.arguments[0]
    flags = re.IGNORECASE if options.has("ignore-case") else 0
    try:
        return re.compile(re.escape(text) if options.has("fixed-strings") else text, flags).search
    except (re.error, RecursionError) as problem:
        raise Usage(
            f"cannot search for {text!r}: it is no valid pattern ({problem}); "
            "--fixed-strings takes it as it is"
        ) from None


def _places(bucket: dict[str, Any], matches: Matches, only_keys: bool) -> Iterator[tuple[str, Any]]:
    """Yield the JSON Pointers of what matches: keys, and values that are no objects or arrays."""
    waiting: list[tuple[str, str | None, Any]] = [("", None, bucket)]
    while waiting:
        path, key, value = waiting.pop()
        is_leaf = not isinstance(value, (dict, list)) or not value or _is_mask(value)
        if (key is not None and matches(key)) or (
            is_leaf and not only_keys and not _is_mask(value) and path and matches(_text(value))
        ):
            yield path, value
        if is_leaf:
            continue
        children: list[tuple[str, str | None, Any]] = (
            [(path + pointer(name), name, child) for name, child in value.items()]
            if isinstance(value, dict)
            else [(f"{path}/{number}", None, child) for number, child in enumerate(value)]
        )
        waiting += reversed(children)


def _is_mask(value: Any) -> bool:
    return isinstance(value, dict) and value.get("$masked") is True


def _text(value: Any) -> str:
    return value if isinstance(value, str) else _json.dumps(value)


def _show(envelope: dict[str, Any], path: str, value: Any) -> None:
    if not output.on_terminal():
        names = {"device": envelope["device"], "job": envelope["job"]}
        output.write_json({**names, "path": path, "value": value})
        return
    where = f"{envelope['device']}, {envelope['job'] or '(device)'}"
    text = output.masks_shown(_json.dumps(value))
    if len(text) > MAX_SHOWN:
        text = text[:MAX_SHOWN] + "…"
    output.write(output.plain(f"{where}: {path}: {text}"))
