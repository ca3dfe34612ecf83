"""Golden cases, read by the TypeScript tests as well: call, request, answer, result."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from bucketd_client import Bucket, BucketError, Snapshot, agent
from fake import Seen, answer, fake

FOLDER = Path(__file__).resolve().parent.parent / "wire"
CASES = [case for path in sorted(FOLDER.glob("*.json")) for case in json.loads(path.read_text())]


def snake(name: str) -> str:
    return re.sub(r"([A-Z])", lambda found: "_" + found[1].lower(), name)


def subject(call: dict[str, Any], socket: str) -> Any:
    if call["on"] == "Bucket":
        options = {snake(name): value for name, value in call.get("options", {}).items()}
        return Bucket(**options, timeout=call.get("seconds"), socket=socket)
    return {"agent.bucket": agent.utils.bucket, "agent.deviceBucket": agent.utils.deviceBucket}[
        call["on"]
    ]


def check_request(made: Seen, wanted: dict[str, Any]) -> None:
    assert (made.method, made.target) == (wanted["method"], wanted["target"])
    for name, value in wanted["headers"].items():
        assert made.headers.get(name) == value, name
    assert (json.loads(made.body) if made.body else None) == wanted.get("body")


def outcome(case: dict[str, Any], socket: str) -> None:
    call = case["call"]

    def act() -> Any:
        guard = {"if_match": call["guard"]} if "guard" in call else {}
        return getattr(subject(call, socket), snake(call["method"]))(*call["args"], **guard)

    if "raises" in case:
        with pytest.raises(BucketError) as caught:
            act()
        for name, value in case["raises"].items():
            assert getattr(caught.value, snake(name)) == value, name
    elif "result" in case:
        result = act()
        for name, value in case["result"].items():
            assert result[name] == value, name
            assert getattr(result, name) == value, name
    elif "returns" in case:
        returned, wanted = act(), case["returns"]
        if isinstance(returned, Snapshot):
            returned = {name: getattr(returned, name) for name in wanted}
        assert returned == wanted
    else:
        assert act() is None


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_wire(case: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    response = case["response"]

    def script(connection: Any, _seen: Seen, _number: int) -> bool:
        if "status" in response:
            answer(connection, response["status"], response["body"], response["headers"])
        else:
            connection.sendall(response.get("raw", "").encode())
        return "closes" not in response

    with fake(script) as server:
        monkeypatch.setenv("BUCKETD_SOCKET", server.path)
        for name, value in case["env"].items():
            monkeypatch.setenv(name, value)
        outcome(case, server.path)
        made = len(server.seen)
        repeated = "closes" in (response or {}) and case["call"]["method"] == "get"
        assert made > 1 if repeated else made == (1 if case["request"] else 0)
        if case["request"]:
            check_request(server.seen[0], case["request"])


def test_there_are_cases() -> None:
    assert len(CASES) > 20
