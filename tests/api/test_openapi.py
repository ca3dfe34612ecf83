"""The description of the API and the table of routes say the same."""

from __future__ import annotations

from typing import Any

from harness import Daemon

from bucketd.api import access, responses
from bucketd.api.routes import ROUTES

TAGS = {
    access.anyone: "anyone",
    access.operator: "operator",
    access.job_context: "automation",
    access.any_context: "automation",
}


def document(daemon: Daemon) -> Any:
    answer = daemon.request("GET", "/v1/openapi.json")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    return answer.json


def test_every_route_is_described_and_no_other(shared_daemon: Daemon) -> None:
    paths = document(shared_daemon)["paths"]
    described = {
        (path, method.upper()) for path, item in paths.items() for method in item
        if method != "parameters"
    }  # fmt: skip
    assert described == {(route.path, route.method) for route in ROUTES}


def test_the_table_is_sorted() -> None:
    rows = [(route.path, route.method) for route in ROUTES]
    assert rows == sorted(rows)


def test_each_operation_takes_what_its_route_takes(shared_daemon: Daemon) -> None:
    whole = document(shared_daemon)
    for route in ROUTES:
        operation = whole["paths"][route.path][route.method.lower()]
        given = [_resolved(whole, p) for p in operation.get("parameters", [])]
        query = {p["name"] for p in given if p["in"] == "query"}
        assert query == set(route.parameters.split()), route
        assert operation["tags"] == [TAGS[route.access]], route
        assert bool(operation["security"]) == (TAGS[route.access] == "automation"), route


def test_every_code_has_its_status(shared_daemon: Daemon) -> None:
    components = document(shared_daemon)["components"]
    assert set(components["schemas"]["Error"]["properties"]["code"]["enum"]) == set(
        responses.STATUS
    )
    for code, status in responses.STATUS.items():
        assert code in components["responses"][f"Error{status}"]["description"], code


def test_every_refusal_has_its_request_id(shared_daemon: Daemon) -> None:
    components = document(shared_daemon)["components"]
    for status in set(responses.STATUS.values()):
        assert "X-Request-Id" in components["responses"][f"Error{status}"]["headers"], status
    assert shared_daemon.request("GET", "/nowhere").headers["x-request-id"]


def test_the_status_page_is_described_whole(shared_daemon: Daemon) -> None:
    described = document(shared_daemon)["components"]["schemas"]["Status"]
    told = shared_daemon.request("GET", "/v1/status").json
    assert set(told) == set(described["properties"]) == set(described["required"])
    member = described["properties"]["settings"]["additionalProperties"]
    for name, value in told["settings"].items():
        assert set(value) == set(member["properties"]) == set(member["required"]), name


def _resolved(whole: Any, parameter: Any) -> Any:
    if "$ref" not in parameter:
        return parameter
    return whole["components"]["parameters"][parameter["$ref"].rpartition("/")[2]]
