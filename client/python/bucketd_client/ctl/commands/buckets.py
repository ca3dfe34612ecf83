"""The commands that change one bucket: set, unset, patch, replace, clear."""

from __future__ import annotations

import os

from ... import _api
from ..._errors import PreconditionFailed
from .. import output, prompts
from ..deletions import how_to_restore, query
from ..inputs import assignments, data_and_words
from ..parser import Usage
from ..session import NEWEST, Session
from ..table.daily import Options
from .get import ask

TYPE_CHECKING = False  # see bucketd_client

if TYPE_CHECKING:
    from typing import Any

# How often set --defaults begins again when others have changed the bucket.
TRIES = 10


def set_keys(options: Options) -> int:
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
    if options.has("curl"):
        raise Usage("cannot use --curl with --defaults, which is more than one request")
    for tries_left in reversed(range(TRIES if options.get("if-match") is None else 1)):
        reply, stored = ask(options, "GET", headers=NEWEST, shown=False)
        _, completed = ask(options, "GET", headers=NEWEST, defaults=True, shown=False)
        missing = {k: v for k, v in completed.items() if k not in stored and k not in given}
        etag = None if reply is None else reply.etag
        guard = {"If-None-Match": "*"} if etag is None else {"If-Match": etag}
        if not missing and not given:
            output.warn("there is nothing to set: no key with a default is missing")
            return 0 if options.has("quiet") else output.show(ask(options, "GET")[1])
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
    is_list = options.has("json-patch")
    data, words = data_and_words(options, list if is_list else dict)
    if data is None or words:
        raise Usage("cannot patch: give --data JSON, or - to read it from standard input")
    return _write(
        options, "PATCH", data=data, kind=_api.JSON_PATCH if is_list else _api.MERGE_PATCH
    )


def replace(options: Options) -> int:
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
    is_doubtful = is_job_left_out(options) and not options.has("curl")
    # A script that clears a device bucket goes on doing so.
    if is_doubtful and prompts.person_is_there():
        device = options.get("device")
        prompts.ask(options, f"clear the device bucket of {device}, as no --job is given")
    return _write(options, "DELETE", query=query(options))


def is_job_left_out(options: Options) -> bool:
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
    reply, bucket = ask(options, method, headers=headers, **more)
    if reply is None or is_quiet:
        return 0
    status = output.show_answer(reply) if options.has("json") else output.show(bucket)
    if output.for_people() and not options.has("json"):
        output.remark(told(options, reply))
    if "trash" in reply.members:
        output.remark(how_to_restore(reply.members["trash"], Session(options).scope()))
    return status


def told(options: Options, reply: _api.Reply) -> str:
    """Return which bucket was written, and its revision."""
    device, job = options.get("device"), options.get("job")
    if device is None:
        device, job = os.environ.get("BUCKETD_DEVICE"), os.environ.get("BUCKETD_JOB")
    of_device = "deviceBucket" in reply.members
    where = "this context" if device is None else device if of_device else f"{device}, {job}"
    bucket = f"{'device bucket' if of_device else 'bucket'} of {where}"
    revision = reply.members.get("revision")
    what = f"{bucket}, revision {revision}" if revision else f"{bucket}: removed"
    if is_job_left_out(options):
        what += "; no --job was given, and all jobs of the device share this bucket"
    return what
