"""Handlers of the schema routes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...concurrency import offload
from ...core.schemas.registry import REFUSE, TOLERATE, Entry, existing
from ...errors import InvalidRequest, SchemaConflict
from ...model.bucket import check_name
from ...model.document import Document
from ...model.strict_json import as_object
from .. import responses
from ..request import Request
from ..responses import Response

if TYPE_CHECKING:
    from ...core.schemas.validator import Validator

MOST_DETAILS = 100
_CHECKED = ("bucket", "schema", "stored", "existing")


def list_all(request: Request) -> Response:
    entries = request.services.schemas.entries()
    return responses.success({"schemas": [_row(entry) for entry in entries]})


async def read(request: Request) -> Response:
    entry = request.services.schemas.get(request.head.names["automation"])
    return await offload(lambda: responses.success(_whole(entry)))


async def put(request: Request) -> Response:
    """Set a schema unless stored buckets violate it; ``force`` sets it anyway.

    So does ``existing=tolerate``: what they violate now does not refuse their later writes.
    ``dry_run`` changes nothing, and returns which buckets violate the schema.
    """
    automation = check_name(request.head.names["automation"], "automation")
    force, dry_run = request.flag("force"), request.flag("dry_run")
    given = request.one("existing")
    tolerates = _tolerates(REFUSE if given is None else given)
    document: Any = await request.json(lambda document: document)
    compiled = await offload(_compile, document)
    found = await request.services.buckets.violations_of(automation, compiled, MOST_DETAILS)
    if found.count and not (force or dry_run or tolerates):
        raise SchemaConflict(
            f"cannot set the schema of {automation!r}: {found.count} stored buckets violate it; "
            "nothing was changed, correct them, or set it with existing=tolerate, which lets what "
            "they violate now stand, or with force",
            details=found.details,
            count=found.count,
        )
    if not dry_run:
        await request.services.schema_writer.put(automation, document, tolerates)
    result = {
        "automation": automation,
        "schema": document,
        "json_schema": compiled.json_schema,
        "details": found.details,
        "count": found.count,
        "dry_run": dry_run,
        "existing": existing(tolerates),
        **responses.unreadable(found.unreadable),
    }
    return await offload(responses.success, result)


async def check(request: Request) -> Response:
    """Return the violations and the secrets of a bucket by the schema in force, or one sent.

    If the schema tolerates, violations that stand in the bucket ``stored`` now come as warnings.
    Nothing is stored. The violations show no values, since they go into plans that others read.
    """
    automation = check_name(request.head.names["automation"], "automation")
    body = await request.json(as_object)
    if unknown := [name for name in body if name not in _CHECKED]:
        raise InvalidRequest(
            f"cannot check the bucket: {unknown[0][:40]!r} is not one of {', '.join(_CHECKED)}"
        )
    for name in ("bucket", *(["stored"] if "stored" in body else [])):
        if not isinstance(body.get(name), dict):
            raise InvalidRequest(f'cannot check the bucket: "{name}" must be a JSON object')
    tolerates = _tolerates(body.get("existing", REFUSE))
    sent = tolerates if "schema" in body else None
    in_force = request.services.schemas.in_force(automation)
    result = {"automation": automation, **await offload(_checked, body, sent, in_force)}
    return await offload(responses.success, result)


async def remove(request: Request) -> Response:
    automation = request.head.names["automation"]
    await request.services.schema_writer.remove(automation)
    return responses.success({"automation": automation})


def _tolerates(text: Any) -> bool:
    if text not in (REFUSE, TOLERATE):
        raise InvalidRequest(f"cannot use existing: it must be {REFUSE} or {TOLERATE}")
    return bool(text == TOLERATE)


def _compile(document: Any) -> Validator:
    # The import takes long, and a daemon without schemas never needs it.
    from ...core.schemas.validator import compile_schema

    return compile_schema(document)


def _checked(body: dict[str, Any], sent: bool | None, in_force: Entry | None) -> dict[str, Any]:
    """Return whether there is a schema to check by, the violations, and where secrets are.

    ``sent``: whether a schema that is sent tolerates, None if the one in force applies.
    """
    if sent is not None:
        schema, tolerates = _compile(body["schema"]), sent
    elif in_force is not None and in_force.validator is not None:
        schema, tolerates = in_force.validator, in_force.tolerates
    else:
        return {"schema": False, "violations": [], "warnings": [], "secrets": []}
    after, places = Document.of(body["bucket"]), []
    if schema.secrets is not None:
        places = schema.secrets.places(body["bucket"])
    if tolerates and "stored" in body:
        found = schema.compare(Document.of(body["stored"]), after, secret=True)
        refused, tolerated = found.refused, found.tolerated
    else:
        refused, tolerated = schema.violations(after.text, secret=True), []
    return {"schema": True, "violations": refused, "warnings": tolerated, "secrets": places}


def _row(entry: Entry) -> dict[str, Any]:
    return {
        "automation": entry.automation,
        "source": entry.source,
        "path": entry.path,
        "form": entry.validator.form if entry.validator is not None else None,
        "existing": entry.existing,
        "problem": entry.problem,
    }


def _whole(entry: Entry) -> dict[str, Any]:
    compiled = entry.validator
    if compiled is None:
        return {**_row(entry), "schema": None, "json_schema": None, "defaults": {}}
    return {
        **_row(entry),
        "schema": compiled.document,
        "json_schema": compiled.json_schema,
        "defaults": compiled.defaults,
    }
