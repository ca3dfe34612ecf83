"""Print a request as a curl command, which takes the token from the environment."""

from __future__ import annotations

import os
from shlex import quote


def command(
    path: str, method: str, target: str, headers: dict[str, str], body: bytes | None
) -> str:
    """Return a command for a POSIX shell that sends the request and prints the response."""
    words = ["curl", "--silent", "--show-error", "--path-as-is", "--unix-socket", quote(path)]
    if method != "GET":
        words += ["--request", method]
    for name, value in headers.items():
        words += ["--header", _header(name, value)]
    if body is not None:
        words += ["--data-binary", quote(body.decode())]
    return " ".join([*words, quote(f"http://bucketd{target}")])


def _header(name: str, value: str) -> str:
    if name == "Authorization":
        return f'"Authorization: Bearer {_token_reference()}"'
    # curl omits a header that ends with a colon; a semicolon sends it empty.
    return quote(f"{name}: {value}" if value else f"{name};")


def _token_reference() -> str:
    return "$BUCKETD_TOKEN" if os.environ.get("BUCKETD_TOKEN") else '$(cat "$BUCKETD_TOKEN_FILE")'
