"""The commands on one bucket: get, set, unset, patch, replace, clear."""

from __future__ import annotations

from ... import _api
from ..._errors import NOT_BUCKETD, error
from .. import output
from ..parser import Usage
from ..session import NEWEST, Session, Shown
from ..table.daily import Options

TYPE_CHECKING = False  # see bucketd_client

if TYPE_CHECKING:
    from typing import Any, NoReturn

# How often set --defaults begins again when others have changed the bucket.
TRIES = 10


def get(options: Options) -> int:
    words = options.arguments
    default = _default(options)
    reply, bucket = _ask(options, "GET", words=words, defaults=options.has("defaults"))
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


def set_keys(options: Options) -> int:
    from ..inputs import assignments, data_and_words

    data, words = data_and_words(options)
    if data is None and not words and not options.has("defaults"):
        raise Usage(
            "cannot set: give KEY=TEXT, KEY:=JSON, --data OBJ, - for standard input, or --defaults"
        )
    given = {**(data or {}), **assignments(words)}
    if not options.has("defaults"):
        return _write(options, "PATCH", data=given)
    return _set_defaults(options, given)


def _set_defaults(options: Options, given: dict[str, Any]) -> int:
    """Set the defaults of keys that are not stored, unless others write the bucket meanwhile."""
    from ..._errors import PreconditionFailed

    if options.has("curl"):
        raise Usage("cannot use --curl with --defaults, which is more than one request")
    for tries_left in reversed(range(TRIES if options.get("if-match") is None else 1)):
        reply, stored = _ask(options, "GET", headers=NEWEST, shown=False)
        _, completed = _ask(options, "GET", headers=NEWEST, defaults=True, shown=False)
        missing = {k: v for k, v in completed.items() if k not in stored and k not in given}
        etag = None if reply is None else reply.etag
        guard = {"If-None-Match": "*"} if etag is None else {"If-Match": etag}
        if not missing and not given:
            output.warn("there is nothing to set: no key with a default is missing")
            return 0 if options.has("quiet") else output.show(_ask(options, "GET")[1])
        try:
            status = _write(options, "PATCH", data={**missing, **given}, guard=guard)
        except PreconditionFailed:
            if not tries_left:
                raise
            continue
        if not options.has("quiet"):
            output.warn(f"set by default: {', '.join(missing) or 'nothing'}")
        return status
    raise AssertionError("the last try returns or raises")


def unset(options: Options) -> int:
    return _write(options, "DELETE", keys=options.arguments)


def patch(options: Options) -> int:
    from ..inputs import data_and_words

    is_list = options.has("json-patch")
    data, words = data_and_words(options, list if is_list else dict)
    if data is None or words:
        raise Usage("cannot patch: give --data JSON, or - to read it from standard input")
    return _write(
        options, "PATCH", data=data, kind=_api.JSON_PATCH if is_list else _api.MERGE_PATCH
    )


def replace(options: Options) -> int:
    from ..inputs import data_and_words

    data, words = data_and_words(options)
    if data is None or words:
        raise Usage("cannot replace: give --data OBJ, or - to read it from standard input")
    return _write(options, "PUT", data=data)


def clear(options: Options) -> int:
    if options.has("all"):
        from .bulk import clear as clear_all

        return clear_all(options)
    if options.has("dry-run"):
        raise Usage("cannot use --dry-run: it goes with --all")
    if _is_job_left_out(options) and not options.has("curl"):
        from ..prompts import ask, person_is_there

        # A script that clears a device bucket goes on doing so.
        if person_is_there():
            device = options.get("device")
            ask(options, f"clear the device bucket of {device}, as no --job is given")
    return _write(options, "DELETE")


def _is_job_left_out(options: Options) -> bool:
    """Report whether the options name a device bucket only by naming no job."""
    is_named = options.has("job") or options.has("device-bucket")
    return options.has("device") and not is_named


def _write(
    options: Options, method: str, *, guard: dict[str, str] | None = None, **more: Any
) -> int:
    headers = dict(guard or {})
    if (tag := options.get("if-match")) is not None:
        headers = {"If-Match": tag}
    is_quiet = options.has("quiet")
    if is_quiet:
        headers |= _api.RETURN_MINIMAL
    reply, bucket = _ask(options, method, headers=headers, **more)
    if reply is None or is_quiet:
        return 0
    if options.has("json"):
        return output.show_answer(reply)
    output.show(bucket)
    if output.for_people():
        output.remark(_told(options, reply))
    return 0


def _told(options: Options, reply: _api.Reply) -> str:
    """Return which bucket was written, and its revision."""
    import os

    device, job = options.get("device"), options.get("job")
    if device is None:
        device, job = os.environ.get("BUCKETD_DEVICE"), os.environ.get("BUCKETD_JOB")
    of_device = "deviceBucket" in reply.members
    where = "this context" if device is None else device if of_device else f"{device}, {job}"
    bucket = f"{'device bucket' if of_device else 'bucket'} of {where}"
    revision = reply.members.get("revision")
    what = f"{bucket}, revision {revision}" if revision else f"{bucket}: removed"
    if _is_job_left_out(options):
        what += "; no --job was given, and all jobs of the device share this bucket"
    return what


def _ask(
    options: Options,
    method: str,
    *,
    data: dict[str, Any] | list[Any] | None = None,
    kind: str = _api.JSON,
    keys: list[str] | None = None,
    words: list[str] | None = None,
    headers: dict[str, str] | None = None,
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
        mask = session.mask if shown else ()
        target = scope.target(keys or (), defaults, mask)
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
