"""Read the input of a command: words, files and standard input, as text and as JSON.

No message shows a value, since the words of a command line and the contents of a file may be
secrets. Functions import their modules, since ``set KEY=TEXT`` is started often.
"""

from __future__ import annotations

import sys

from .parser import Usage

TYPE_CHECKING = False  # see bucketd_client

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, NoReturn

    from .table.daily import Options

# The format of a bucket's file, and of one line of an export.
FORMAT = "bucketd/1"
EXAMPLE = '{"a": 1}'


def standard_input() -> bytes:
    """Return all of standard input. Raises Usage if it is closed or cannot be read."""
    if sys.stdin is None:
        raise Usage("cannot read the data: standard input is closed; redirect a file to it")
    try:
        return sys.stdin.buffer.read()
    except OSError as problem:
        raise Usage(f"cannot read standard input: {problem.strerror}") from None


def read_bytes(name: str) -> bytes:
    """Return the content of a file (``-``: standard input). Raises Usage if it cannot be read."""
    if name == "-":
        return standard_input()
    try:
        with open(name, "rb") as file:
            return file.read()
    # A NUL in the name raises a ValueError.
    except (OSError, ValueError) as problem:
        raise Usage(f"cannot read {name}: {getattr(problem, 'strerror', problem)}") from None


def read_text(name: str) -> str:
    """Return the text in a file. Raises Usage if it cannot be read or is not UTF-8."""
    return decoded(read_bytes(name), name if name != "-" else "standard input")


def decoded(data: bytes, what: str) -> str:
    """Decode UTF-8. Raises Usage, which names the first invalid byte."""
    try:
        return data.decode()
    except UnicodeDecodeError as problem:
        raise Usage(
            f"cannot read {what}: it is not valid UTF-8, at byte {problem.start + 1}"
        ) from None


def read_object(name: str) -> dict[str, Any]:
    """Return the JSON object in a file; for a bucket's file, the bucket in it."""
    value = parse_json(read_text(name), f"what {name} holds")
    if isinstance(value, dict) and value.get("format") == FORMAT:
        value = value.get("bucket")
    if not isinstance(value, dict):
        raise Usage(f"cannot use {name}: it does not hold a JSON object")
    return value


def data_and_words(
    options: Options, kind: type[dict[str, Any]] | type[list[Any]] = dict
) -> tuple[Any, list[str]]:
    """Return the data of ``--data`` or ``-`` (None for neither), and the other words.

    Raises Usage for data that is not of this ``kind``.
    """
    words = [word for word in options.arguments if word != "-"]
    dashes, text = len(options.arguments) - len(words), options.get("data")
    if dashes + (text is not None) > 1:
        raise Usage("cannot take the data twice: give --data OBJ, or - once")
    if dashes or text == "-":
        value = parse_json(decoded(standard_input(), "standard input"), "the data")
    elif text is None:
        return None, words
    else:
        value = parse_json(text, "the data", lambda: _quoting_hint(text, f"--data '{EXAMPLE}'"))
    if not isinstance(value, kind):
        what = "object, such as '{\"loggedIn\": true}'"
        if kind is list:
            what = 'array of operations, such as \'[{"op": "remove", "path": "/a"}]\''
        raise Usage(f"cannot use the data: it must be a JSON {what}")
    return value, words


def assignments(words: list[str]) -> dict[str, Any]:
    """Return the keys that ``KEY=TEXT`` and ``KEY:=JSON`` words set."""
    return dict(_assignment(number, word) for number, word in enumerate(words, 1))


def _assignment(number: int, word: str) -> tuple[str, Any]:
    """Split a word at the first ``=`` or ``:=``; a key can contain neither."""
    key, equals, value = word.partition("=")
    if not equals:
        what = f"word {number} ({len(word)} characters) has no ="
        raise Usage(f"cannot set keys: {what}; it must be KEY=TEXT or KEY:=JSON")
    if not key.endswith(":"):
        if value.startswith("@"):
            value = value[1:] if value.startswith("@@") else _text_for(key, value[1:])
        _check_unicode(value, f"the value of {key!r}")
        return key, value
    key = key[:-1]
    if value.startswith("@"):
        return key, parse_json(read_text(value[1:]), f"the file for {key!r}")
    return key, parse_json(value, f"the value of {key!r}", lambda: _assignment_hint(key, value))


def _text_for(key: str, name: str) -> str:
    """Return the text in a file, without the last line break, which echo and get -r write."""
    try:
        return read_text(name).removesuffix("\n")
    except Usage as problem:
        from shlex import quote

        raise Usage(
            f"{problem}; {quote(f'{key}=@FILE')} reads a file, and a string that begins with an @ "
            f"is {quote(f'{key}=@@TEXT')}"
        ) from None


def _assignment_hint(key: str, value: str) -> str:
    """Return how to write a word whose value is not JSON."""
    from shlex import quote

    if value.lstrip()[:1] in ("{", "["):
        return _quoting_hint(value, quote(f"{key}:={EXAMPLE}"))
    return f"; a string is {quote(f'{key}=TEXT')}"


def _quoting_hint(text: str, example: str) -> str:
    """Return how to quote JSON, if the text has no quotes, which a shell may have removed."""
    return "" if '"' in text else f"; put JSON in single quotes, such as {example}"


def parse_json(text: str, what: str, hint: Callable[[], str] = str) -> Any:
    """Parse a JSON text. Raises Usage, with the ``hint``, if it is not JSON."""
    import json

    try:
        value = json.loads(text, parse_constant=_refuse_constant, parse_float=_parse_float)
    except RecursionError:
        raise Usage(f"cannot read {what} as JSON: it is nested too deep") from None
    except ValueError as problem:
        raise Usage(f"cannot read {what} as JSON: {problem}{hint()}") from None
    _check_unicode(value, what)
    return value


def _parse_float(text: str) -> float:
    # Python would parse the number as infinity, which JSON cannot represent.
    if float(text) in (float("inf"), float("-inf")):
        raise ValueError(f"a number of {len(text)} characters is too large")
    return float(text)


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _check_unicode(value: Any, what: str) -> None:
    """Raise Usage for a string that UTF-8 cannot encode, with the JSON Pointer to it."""
    found = _lone_surrogate(value, "")
    if found is None:
        return
    place = f" at {found}" if found else ""
    raise Usage(
        f"cannot use {what}: the string{place} has a lone surrogate, which UTF-8 cannot encode; "
        "leave it out, or store it escaped (JSON.stringify of the string, or base64) and undo "
        "that when it is read"
    )


def _lone_surrogate(value: Any, place: str) -> str | None:
    """Return the JSON Pointer to the first string, or key, with a lone surrogate."""
    if isinstance(value, str):
        return None if _encodes(value) else place
    children: Iterable[tuple[str | int, Any]] = ()
    if isinstance(value, (dict, list)):
        children = value.items() if isinstance(value, dict) else enumerate(value)
    for name, inner in children:
        step = str(name).replace("~", "~0").replace("/", "~1")
        if isinstance(name, str) and not _encodes(name):
            shown = step.encode("utf-8", "backslashreplace").decode()
            return f"{place}/{shown} (its key)"
        if isinstance(inner, (str, dict, list)):
            found = _lone_surrogate(inner, f"{place}/{step}")
            if found is not None:
                return found
    return None


def _encodes(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
