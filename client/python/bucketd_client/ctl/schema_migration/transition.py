"""The schema in force while a migration runs: a bucket may be as before, or as after.

The daemon validates each write by the schema in force. By the old schema it would refuse the new
form of a bucket, by the new one it would refuse what automations write to buckets that have not had
their turn. So the migration first sets a schema that allows both, and last the new one. It names
the migration, so that nobody begins another one, or the same one from another directory.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, NamedTuple

from ... import _api, _context
from ..._errors import BucketError
from ..preflight import TOLERATE
from ..session import Session
from .plan import repeated
from .resources import resource

DIALECT = "https://json-schema.org/draft/2020-12/schema"
MARK = "bucketctl schema migrate "
# The daemon validates all stored buckets of the automation before it answers.
CHECK_SECONDS = 600.0


class InForce(NamedTuple):
    """The schema of an automation, as it was given and as JSON Schema; None if there is none."""

    document: Any = None
    json_schema: Any = None
    tolerates: bool = False

    @property
    def mark(self) -> str | None:
        """Return what the schema of a migration says about that migration."""
        said = self.document.get("$comment") if isinstance(self.document, dict) else None
        return said if isinstance(said, str) and said.startswith(MARK) else None


class Schemas:
    """Read and set the schema of one automation."""

    def __init__(self, session: Session, automation: str) -> None:
        self._session = session
        self.target = f"/v1/schemas/{_context.escape(automation)}"

    def in_force(self) -> InForce:
        try:
            members = self._session.call("GET", self.target).members
        except BucketError as problem:
            if problem.code != "not_found":
                raise
            return InForce()
        tolerates = members.get("existing") == TOLERATE
        return InForce(members["schema"], members["json_schema"], tolerates)

    def checked(self, document: Any) -> Any:
        """Return the JSON Schema of a document, which is not set. Raises BucketError."""
        return repeated(lambda: self._put(document, "?dry_run=true"))["json_schema"]

    def put(self, document: Any, query: str = "") -> dict[str, Any]:
        """Set a schema, also across a restart of the daemon; return the daemon's answer."""
        return repeated(lambda: self._put(document, query))

    def violations(self, document: Any) -> dict[str, Any]:
        """Return which stored buckets a schema would refuse: ``count`` and ``details``."""
        return repeated(lambda: self._put(document, "?dry_run=true"))

    def _put(self, document: Any, query: str) -> dict[str, Any]:
        headers, body = {"Content-Type": _api.JSON}, _api.encode(document)
        reply = self._session.call(
            *("PUT", self.target + query),
            headers=headers,
            body=body,
            default_timeout=CHECK_SECONDS,
        )
        return reply.members


def id_of(automation: str, document: Any) -> str:
    """Return what identifies the migration of an automation to a schema."""
    text = json.dumps([automation, document], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def mark_of(id: str, backup: str) -> str:
    return f"{MARK}{id}, backup {backup}"


def both(before: Any, after: Any, mark: str) -> dict[str, Any] | None:
    """Return a schema that allows what either of two JSON Schemas allows; None if there is none."""
    if set(_identifiers(before)) & set(_identifiers(after)):
        # Two resources of one name would be taken for each other.
        return None
    branches = [resource(before, "before"), resource(after, "after")]
    return {"$schema": DIALECT, "$comment": mark, "anyOf": branches}


def anything(mark: str) -> dict[str, Any]:
    """Return a schema that allows any bucket."""
    return {"$schema": DIALECT, "$comment": mark}


def _identifiers(schema: Any) -> list[str]:
    found, waiting = [], [schema]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            if isinstance(node.get("$id"), str):
                found.append(node["$id"])
            waiting += node.values()
        elif isinstance(node, list):
            waiting += node
    return found
