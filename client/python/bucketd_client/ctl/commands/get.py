"""``bucketctl get``, and the request of all commands on one bucket."""

from __future__ import annotations

from ... import _api
from ..._errors import NOT_BUCKETD, error
from .. import output
from ..parser import Usage
from ..session import Session, Shown
from ..table.daily import Options

TYPE_CHECKING = False  # see bucketd_client

if TYPE_CHECKING:
    from typing import Any, NoReturn


def get(options: Options) -> int:
    words = options.arguments
    default = _default(options)
    query = _revision(options)
    reply, bucket = ask(options, "GET", words=words, query=query, defaults=options.has("defaults"))
    if reply is None:
        return 0
    if (age := reply.members.get("stale_seconds")) is not None:
        output.warn(f"no majority of etcd answers: this value is at most {age:.0f} s old")
    if options.has("json"):
        return output.show_answer(reply)
    if len(words) != 1:
        if reply.etag is None:
            output.remark(f"no such bucket is stored{_as_taken(options)}")
        return output.show(bucket)
    if words[0] not in bucket and default is None:
        return 1 if options.has("quiet") else _refuse_key(options, reply)
    if options.has("quiet"):
        return 0
    return _show_value(options, bucket.get(words[0], *(default or ())))


def _revision(options: Options) -> list[str]:
    """Return the parameter for an earlier state, if ``--revision`` is given. Raises Usage."""
    if (text := options.get("revision")) is None:
        return []
    from ..earlier import number

    return [f"revision={number(text)}"]


def _default(options: Options) -> tuple[Any] | None:
    """Return the value of ``--default``, if it is given. Raises Usage."""
    for name in ("raw", "default", "quiet"):
        if options.has(name) and len(options.arguments) != 1:
            raise Usage(f"cannot use --{name}: it goes with exactly one KEY")
    if options.has("default") and options.has("json"):
        raise Usage("cannot use --default with --json, which prints the whole response")
    if (text := options.get("default")) is None:
        return None
    from ..inputs import parse_json

    return (parse_json(text, "the default", lambda: "; a string is --default '\"TEXT\"'"),)


def _refuse_key(options: Options, reply: _api.Reply) -> NoReturn:
    cause = "the bucket has no such key"
    if options.place and reply.etag is None:
        cause = f"no such bucket is stored{_as_taken(options)}"
    elif not options.place and "/" in options.arguments[0] and not options.has("device"):
        cause += "; in a job context each argument is a key: name another bucket with -d and -j"
    raise error("not_found", f"cannot get {options.arguments[0]!r}: {cause}")


def _as_taken(options: Options) -> str:
    if not options.place:
        return ""
    job = options.get("job")
    what = f"device {options.get('device')!r}" + (f", job {job!r}" if job else "")
    return f": {options.place!r} was taken for {what}; see bucketctl list"


def _show_value(options: Options, value: Any) -> int:
    if not isinstance(value, str):
        return output.show(value)
    if options.has("raw"):
        output.write(value)
        return 0
    if not output.form and output.into_pipe():
        output.remark("this is JSON, so the string has quotes; -r prints it without them")
    return output.show(value)


def ask(
    options: Options,
    method: str,
    *,
    data: dict[str, Any] | list[Any] | None = None,
    kind: str = _api.JSON,
    keys: list[str] | None = None,
    words: list[str] | None = None,
    headers: dict[str, str] | None = None,
    query: list[str] | None = None,
    defaults: bool = False,
    shown: bool = True,
) -> tuple[_api.Reply | None, dict[str, Any]]:
    """Return the response and its bucket; None if a curl command was printed instead.

    ``words`` select keys, or values inside of them. What is ``shown`` on a terminal has masks.
    """
    session = Session(options)
    scope = session.scope()
    headers = {**scope.headers(method), **(headers or {})}
    body = None
    if data is not None:
        headers["Content-Type"] = kind
        body = _api.encode(data)
    pointers = bool(words) and any(word[:1] == "/" for word in words or ())
    if words:
        keys = words
    if pointers:
        from .. import selection

        keys = selection.keys(words or ())
    try:
        more = [*(session.mask if shown else ()), *(query or ())]
        target = scope.target(keys or (), defaults, more)
        reply = session.call(method, target, headers=headers, body=body)
    except Shown:
        return None, {}
    # A response that was asked for without the bucket has none.
    bucket = reply.members.get(scope.label, {} if "Prefer" in headers else None)
    if not isinstance(bucket, dict):
        raise error(
            "internal",
            f"cannot read the answer: {NOT_BUCKETD}",
        )
    if pointers:
        bucket = reply.members[scope.label] = selection.select(bucket, words or ())
    return reply, bucket
