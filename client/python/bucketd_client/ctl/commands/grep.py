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
from ..tables import Cell

NONE_FOUND = 1
# The longest value that a terminal shows.
MAX_SHOWN = 200
Matches = Callable[[str], object]


def grep(options: Options) -> int:
    """Print each place that matches; return 1 if there is none, or a bucket cannot be read."""
    matches, only_keys = _pattern(options), options.has("keys")
    session, left_out = Session(options), filters.LeftOut()
    output.end_with_reader()
    mask = [] if options.has("reveal") else [MASK_SECRETS]
    found = _Found(filters.pages(session, "/v1/export", "envelopes", extra=mask), left_out)
    rows = found.rows(matches, only_keys)
    try:
        if output.form and not output.for_people():
            output.show_rows(rows, COLUMNS, "")
        else:
            for row in rows:
                _show(row)
    except Shown:
        return 0
    return left_out.status or (0 if found.count else NONE_FOUND)


class _Found:
    """The places that match, page after page, and their number."""

    def __init__(self, pages: filters.Pages, left_out: filters.LeftOut) -> None:
        self._pages, self._left_out = pages, left_out
        self.count = 0

    def rows(self, matches: Matches, only_keys: bool) -> Iterator[dict[str, Any]]:
        for members in self._pages:
            for envelope in members["envelopes"]:
                names = {"device": envelope["device"], "job": envelope["job"]}
                for path, value in _places(envelope["bucket"], matches, only_keys):
                    self.count += 1
                    yield {**names, "path": path, "value": value}
            self._left_out.note(members)


COLUMNS: output.Columns = {
    "DEVICE": lambda row: row["device"],
    "JOB": lambda row: output.job(row["job"]),
    "PATH": lambda row: row["path"],
    "VALUE": lambda row: Cell.of(_text(row["value"]), row["value"]),
}


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


def _show(row: dict[str, Any]) -> None:
    if not output.for_people():
        output.write_json(row)
        return
    where = f"{row['device']}, {row['job'] or '(device)'}"
    text = output.masks_shown(_json.dumps(row["value"]))
    if len(text) > MAX_SHOWN:
        text = text[:MAX_SHOWN] + "…"
    output.write(output.plain(f"{where}: {row['path']}: {text}"))
