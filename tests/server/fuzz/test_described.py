"""Whatever the API description allows, or forbids, is answered as the description says.

schemathesis makes the requests, from the description that the daemon itself gives, and
checks each answer: status, headers, media type and schema as documented, no 5xx, bad
data refused and good data taken, methods that are none refused.
"""

from __future__ import annotations

import atexit
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from harness import Daemon
from hypothesis import HealthCheck, Phase, settings
from relay import relayed
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

SCALE = float(os.environ.get("FUZZ_SCALE", "0.02"))
DESCRIPTION = Path(__file__).parents[3] / "bucketd" / "api" / "openapi.json"
SCHEMA = schemathesis.openapi.from_path(str(DESCRIPTION))
# Here, because the tests are made of it before there is a daemon.
pytestmark = pytest.mark.timeout(max(120, 1200 * SCALE))
LISTENER = socket.create_server(("127.0.0.1", 0))
atexit.register(LISTENER.close)
SCHEMA.config.update(base_url=f"http://127.0.0.1:{LISTENER.getsockname()[1]}")


@pytest.fixture(scope="module")
def token(shared_daemon: Daemon) -> Iterator[str]:
    with relayed(shared_daemon.socket, LISTENER):
        yield shared_daemon.mint("fuzzed", "job", "fuzzed")


def has_long_integer(value: Any) -> bool:
    """One that is refused, lest it come back rounded; JSON Schema cannot say so at any depth."""
    if isinstance(value, dict):
        return any(has_long_integer(inner) for inner in value.values())
    if isinstance(value, list):
        return any(has_long_integer(inner) for inner in value)
    return isinstance(value, int) and not -(2**63) <= value < 2**64


def is_right_on_the_wire(case: schemathesis.Case) -> bool:
    """Whether what was made wrong is not sent, or sent as a text that is right.

    Each key in a query is a text, whatever it was made as; a parameter with an empty list is none;
    and tokens are put in by the test.
    """
    assert case.meta is not None
    wrong = {place.value for place, info in case.meta.components.items() if info.mode.is_negative}
    query = case.query or {}
    key = query.get("key", [])
    flat = not isinstance(key, list) or not all(isinstance(one, str) for one in key)
    sent = {name for name, value in query.items() if value not in (None, [], {})}
    return wrong <= {"header"} or (wrong <= {"header", "query"} and (flat or sent <= {"key"}))


# An event stream has no end that an answer could be read to; tests/api/test_events.py and
# test_holds.py do those.
@SCHEMA.exclude(path_regex="/(events|hold)$").parametrize()
@settings(
    max_examples=max(5, int(1000 * SCALE)),
    derandomize=SCALE < 1,  # a test run of every day must not depend on luck
    database=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)
def test_each_operation(case: schemathesis.Case, token: str, shared_daemon: Daemon) -> None:
    automation = case.operation.path.startswith(("/v1/bucket", "/v1/context", "/v1/device/"))
    own = automation and not case.operation.path.startswith(("/v1/buckets", "/v1/contexts"))
    headers = {"Authorization": f"Bearer {token}"} if own else {}
    response = case.call(headers=headers)
    # Cursors, ETags and fences are opaque, and a ttl's bound is a setting, so no schema tells what
    # is good.
    sent = {*(case.query or {}), *(case.headers or {})}
    sent |= set(case.body) if isinstance(case.body, dict) else set()
    opaque = {"cursor", "If-Match", "If-None-Match", "Bucketd-Fence", "ttl_seconds"}
    untold = bool(opaque & sent)
    # Some parameters exclude each other, which no schema of one tells.
    untold |= {"revision", "defaults"} <= sent or {"trash", "key"} <= sent
    # Nor does this description tell what is a schema: the metaschema of JSON Schema does.
    untold |= case.method != "GET" and case.operation.path.startswith("/v1/schemas/")
    # Nor what a schema forbids that an example of another operation has put.
    untold |= response.status_code == 422 and response.json()["code"] == "schema_violation"
    excluded: list[Any] = (
        [positive_data_acceptance] if untold or has_long_integer(case.body) else []
    )
    if is_right_on_the_wire(case):
        excluded.append(negative_data_rejection)
    case.validate_response(response, excluded_checks=excluded)
    assert shared_daemon.process is not None
    assert shared_daemon.process.poll() is None
