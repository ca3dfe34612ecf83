"""Handlers of the schema routes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...concurrency import offload
from ...core.schemas.registry import Entry
from ...errors import InvalidRequest, SchemaConflict
from ...model import strict_json
from ...model.bucket import check_name
from ...model.strict_json import as_object
from .. import responses
from ..request import Request
from ..responses import Response

if TYPE_CHECKING:
    from ...core.schemas.validator import Validator

MOST_DETAILS = 100
_CHECKED = ("bucket", "schema")


def list_all(request: Request) -> Response:
    entries = request.services.schemas.entries()
    return responses.success({"schemas": [_row(entry) for entry in entries]})


async def read(request: Request) -> Response:
    entry = request.services.schemas.get(request.head.names["automation"])
    return await offload(lambda: responses.success(_whole(entry)))


async def put(request: Request) -> Response:
    """Set a schema unless stored buckets violate it; ``force`` sets it anyway.

    ``dry_run`` changes nothing, and returns which buckets violate the schema.
    """
    automation = check_name(request.head.names["automation"], "automation")
    force, dry_run = request.flag("force"), request.flag("dry_run")
    document: Any = await request.json(lambda document: document)
    compiled = await offload(_compile, document)
    found = await request.services.buckets.violations_of(automation, compiled, MOST_DETAILS)
    if found.count and not (force or dry_run):
        raise SchemaConflict(
            f"cannot set the schema of {automation!r}: {found.count} stored buckets violate it; "
            "nothing was changed, correct them or set it with force",
            details=found.details,
            count=found.count,
        )
    if not dry_run:
        await request.services.schema_writer.put(automation, document)
    result = {
        "automation": automation,
        "schema": document,
        "json_schema": compiled.json_schema,
        "details": found.details,
        "count": found.count,
        "dry_run": dry_run,
        **responses.unreadable(found.unreadable),
    }
    return await offload(responses.success, result)


async def check(request: Request) -> Response:
    """Return the violations and the secrets of a bucket by the schema in force, or one sent.

    Nothing is stored. The violations show no values, since they go into plans that others read.
    """
    automation = check_name(request.head.names["automation"], "automation")
    body = await request.json(as_object)
    if unknown := [name for name in body if name not in _CHECKED]:
        raise InvalidRequest(
            f"cannot check the bucket: {unknown[0][:40]!r} is not one of {', '.join(_CHECKED)}"
        )
    if not isinstance(body.get("bucket"), dict):
        raise InvalidRequest('cannot check the bucket: "bucket" must be a JSON object')
    in_force = request.services.schemas.find(automation)
    result = {"automation": automation, **await offload(_checked, body, in_force)}
    return await offload(responses.success, result)


async def remove(request: Request) -> Response:
    automation = request.head.names["automation"]
    await request.services.schema_writer.remove(automation)
    return responses.success({"automation": automation})


def _compile(document: Any) -> Validator:
    # The import takes long, and a daemon without schemas never needs it.
    from ...core.schemas.validator import compile_schema

    return compile_schema(document)


def _checked(body: dict[str, Any], in_force: Validator | None) -> dict[str, Any]:
    """Return whether there is a schema to check by, the violations, and where secrets are."""
    schema, bucket = _compile(body["schema"]) if "schema" in body else in_force, body["bucket"]
    if schema is None:
        return {"schema": False, "violations": [], "secrets": []}
    violations = schema.violations(strict_json.dumps(bucket), secret=True)
    places = schema.secrets.places(bucket) if schema.secrets is not None else []
    return {"schema": True, "violations": violations, "secrets": places}


def _row(entry: Entry) -> dict[str, Any]:
    return {
        "automation": entry.automation,
        "source": entry.source,
        "path": entry.path,
        "form": entry.validator.form if entry.validator is not None else None,
        "problem": entry.problem,
    }


def _whole(entry: Entry) -> dict[str, Any]:
    compiled = entry.validator
    shown = None if compiled is None else (compiled.document, compiled.json_schema)
    schema, json_schema = shown or (None, None)
    return {**_row(entry), "schema": schema, "json_schema": json_schema}
