"""``bucketctl apply``: set schemas and buckets to those of a directory in version control."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import unquote

from ... import _api, _context
from ..._errors import BucketError, error
from .. import colours, json_diff, output, prompts
from ..archive import Envelope, Source, read
from ..inputs import parse_json, read_text
from ..parser import Usage
from ..preflight import (
    FINE,
    TOLERATE,
    TOLERATE_SUFFIX,
    Coming,
    Preflight,
    bound,
    check_bucket,
    check_schema,
    rebinding,
)
from ..session import NEWEST, Session
from ..table.daily import Options

NEW, CHANGED, SAME = "created", "changed", "unchanged"
SIGNS = {NEW: ("+", colours.GREEN), CHANGED: ("~", colours.YELLOW), SAME: ("=", colours.BOLD)}


class Step(NamedTuple):
    """One change of the plan, and the request that makes it."""

    kind: str
    name: str
    change: str
    places: list[str]
    target: str
    headers: dict[str, str]
    wanted: Any
    preflight: Preflight = FINE

    def as_data(self) -> dict[str, Any]:
        step = {"kind": self.kind, "name": self.name, "change": self.change, "places": self.places}
        return {**step, **self.preflight._asdict()}


def apply(options: Options) -> int:
    directory = options.get("file")
    if directory is None:
        raise Usage("cannot apply: name the directory with -f DIR")
    if not os.path.isdir(directory):
        raise Usage(f"cannot apply {directory}: it is not a directory")
    session = Session(options)
    schemas = list(_schemas(session, directory))
    plan = [*schemas, *_buckets(session, directory, schemas)]
    if not plan:
        raise Usage(f"cannot apply {directory}: it has neither schemas/*.json nor buckets/*.json")
    _show(options, plan)
    if refused := sum(bool(step.preflight.refused) for step in plan):
        raise error(
            "schema_violation",
            f"cannot apply {directory}: {prompts.counted(refused, 'change')} would be refused; "
            "fix what the plan names, nothing was changed",
        )
    todo = [step for step in plan if step.change != SAME]
    if todo and not options.has("dry-run"):
        prompts.ask(options, f"make {prompts.counted(len(todo), 'change')}")
        _do_all(session, todo)
        if not output.quiet:
            output.warn(f"{prompts.counted(len(todo), 'change')} made")
    return 0


def _do_all(session: Session, todo: list[Step]) -> None:
    for number, step in enumerate(todo):
        try:
            _do(session, step)
        except BucketError:
            output.warn(f"{number} of {prompts.counted(len(todo), 'change')} made, then:")
            raise


def _do(session: Session, step: Step) -> None:
    method = "PUT" if step.kind == "schema" else "PATCH"
    headers = {**step.headers, "Content-Type": _api.JSON}
    session.call(method, step.target, headers=headers, body=_api.encode(step.wanted))


def _show(options: Options, plan: list[Step]) -> None:
    """Show places without values, since plans end up in logs."""
    if options.has("json") or not output.for_people():
        output.show({"plan": [step.as_data() for step in plan]})
        return
    for step in plan:
        sign, colour = SIGNS[step.change]
        places = f": {', '.join(step.places)}" if step.places else ""
        output.write(colours.paint(output.plain(f"{sign} {step.kind} {step.name}{places}"), colour))
        for line in step.preflight.tolerated:
            output.write(output.plain(f"  tolerated: {line}"))
        for line in step.preflight.refused:
            output.write(colours.paint(output.plain(f"  would be refused: {line}"), colours.RED))
        if step.preflight.unchecked is not None:
            output.write(output.plain(f"  {step.preflight.unchecked}"))


def _schemas(session: Session, directory: str) -> Iterator[Step]:
    for path in _files(os.path.join(directory, "schemas"), (".json",)):
        automation = unquote(os.path.basename(path)[: -len(".json")])
        wanted = parse_json(read_text(path), f"what {path} holds")
        target = f"/v1/schemas/{_context.escape(automation)}"
        tolerates = os.path.exists(path[: -len(".json")] + TOLERATE_SUFFIX)
        places: list[str] = []
        try:
            stored = session.call("GET", target).members
            change = SAME if json_diff.same(stored["schema"], wanted) else CHANGED
            if stored.get("existing") == TOLERATE:
                # The mode in force stays: only schema set puts refuse back.
                tolerates = True
            elif tolerates:
                change, places = CHANGED, ["(existing)"]
        except BucketError as problem:
            if problem.code != "not_found":
                raise
            change = NEW
        preflight = FINE if change == SAME else check_schema(session, target, wanted, tolerates)
        target += f"?existing={TOLERATE}" if tolerates else ""
        yield Step("schema", automation, change, places, target, {}, wanted, preflight)


def _buckets(session: Session, directory: str, schemas: list[Step]) -> Iterator[Step]:
    coming = {
        step.name: Coming(step.wanted, step.target.endswith(TOLERATE))
        for step in schemas
        if step.change != SAME
    }
    seen: dict[tuple[str, str | None], str] = {}
    for envelope in _envelopes(os.path.join(directory, "buckets")):
        key = (envelope.device, envelope.job)
        if key in seen:
            raise Usage(f"cannot apply {envelope.where}: {seen[key]} is about the same bucket")
        seen[key] = envelope.where
        yield _bucket(session, envelope, coming)


def _bucket(session: Session, envelope: Envelope, coming: dict[str, Coming]) -> Step:
    scope = _context.named(envelope.device, envelope.job, envelope.automation, False)
    reply = session.call("GET", scope.target(), headers=NEWEST)
    stored = reply.members[scope.label]
    after = {**stored, **envelope.bucket}
    found = list(json_diff.changes(stored, after))
    if reply.etag is not None and not found:
        found = rebinding(session, envelope)
    guard = {"If-None-Match": "*"} if reply.etag is None else {"If-Match": reply.etag}
    change = NEW if reply.etag is None else CHANGED if found else SAME
    places = [place.path for place in found]
    preflight = FINE
    if change != SAME:
        automation = bound(session, envelope, stored=change == CHANGED)
        before = None if reply.etag is None else stored
        preflight = check_bucket(session, automation, after, before, coming)
    target, wanted = scope.target(), envelope.bucket
    return Step("bucket", envelope.name, change, places, target, guard, wanted, preflight)


def _envelopes(directory: str) -> Iterator[Envelope]:
    for path in _files(directory, (".json", ".ndjson")):
        if path.endswith(".json"):
            yield read(path, read_text(path))
            continue
        for found in Source(path).envelopes():
            if isinstance(found, Usage):
                raise Usage(f"{found} (in {path})")
            yield found._replace(where=f"{path}, {found.where}")


def _files(directory: str, ends: tuple[str, ...]) -> Iterator[str]:
    for place, directories, names in os.walk(directory):
        directories.sort()
        for name in sorted(names):
            if name.endswith(ends) and not name.startswith("."):
                yield os.path.join(place, name)
