"""The page of error codes, from the two trees of exceptions and the maps that use them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import bucketd_client
from bucketd_client.ctl import refusals
from tables import table

from bucketd import errors
from bucketd.api import responses

NODE = Path(__file__).parent.parent / "client" / "node" / "src"


def daemon_codes() -> dict[str, type[errors.BucketdError]]:
    """Return the leaves of the daemon's tree by code."""
    return {leaf.code: leaf for leaf in _leaves(errors.BucketdError)}


def node_codes() -> dict[str, str]:
    """Return the classes that the TypeScript client throws, by code."""
    rows = re.findall(r"^  (\w+): (\w+Error),$", (NODE / "response.ts").read_text(), re.M)
    own = r"class (\w+) extends TransportError \{\s+constructor\(.*?super\(message, \"(\w+)\"\)"
    found = re.findall(own, (NODE / "errors.ts").read_text(), re.S)
    return {**dict(rows), **{code: name for name, code in found}}


def _leaves(kind: type[errors.BucketdError]) -> Iterator[type[errors.BucketdError]]:
    # A subclass in another module is a special case of a leaf, with the leaf's code and entry.
    below = [one for one in kind.__subclasses__() if one.__module__ == errors.__name__]
    if not below:
        yield kind
    for one in below:
        yield from _leaves(one)


def page() -> Iterator[str]:
    yield from ("# Error codes", "")
    yield 'An error response has an HTTP status and `{"success": false, "error", "code"}`; some'
    yield "have `details`. `error` is for people and may change; `code` is one of this list, which"
    yield "only grows. The last three codes come from the clients: they got no response."
    yield ""
    yield from table(
        ("code", "HTTP", "Python", "TypeScript", "`bucketctl` exits with"), _error_rows()
    )
    for code, (cause, cure) in explained().items():
        yield from ("", f"## {code}", "", cause, "", f"**What to do:** {cure}")
    yield ""
    yield "`bucketctl` also exits with 2 if a command line is not valid; it then sends no request."


def _error_rows() -> Iterator[tuple[str, ...]]:
    python, node = bucketd_client.CODES, node_codes()
    for code in explained():
        status = str(responses.STATUS.get(code, "–"))
        retried = " (with `Retry-After`)" if code in responses.RETRY_AFTER else ""
        exit_status = str(refusals.STATUS.get(code, 1))
        classes = (f"`{python[code].__name__}`", f"`{node[code]}`")
        yield (f"[`{code}`](#{code})", status + retried, *classes, exit_status)


def _kinds() -> dict[str, type[Exception]]:
    """Return by code the classes whose docstrings are the entries; the daemon's come first."""
    daemon = daemon_codes()
    own = {code: kind for code, kind in bucketd_client.CODES.items() if code not in daemon}
    return {code: daemon[code] for code in responses.STATUS} | own


def explained() -> dict[str, tuple[str, str]]:
    """Return by code the cause, and how to fix it."""
    return {code: _paragraphs(kind) for code, kind in _kinds().items()}


def _paragraphs(kind: type[Exception]) -> tuple[str, str]:
    cause, fix = (" ".join(part.split()) for part in (kind.__doc__ or "").split("\n\n"))
    return cause.replace("``", "`"), fix.replace("``", "`")
