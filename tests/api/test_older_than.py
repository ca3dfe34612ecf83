"""``GET /v1/buckets?older_than_days=N``: the rule of retention, for a list."""

from __future__ import annotations

import pytest
from harness import Daemon, pair


def test_only_what_retention_calls_older_is_listed(daemon: Daemon) -> None:
    daemon.request("PUT", pair("d", "new"), {"n": 1})
    old = pair("d", "old") + "?revision=5&updated_at=2020-01-01T00:00:00.000Z"
    assert daemon.request("PUT", old, {"n": 1}).status == 200
    for days, expected in (("1", ["old"]), ("365", ["old"]), ("36525", [])):
        listed = daemon.request("GET", f"/v1/buckets?older_than_days={days}").json["buckets"]
        assert [row["job"] for row in listed] == expected, days
    assert len(daemon.request("GET", "/v1/buckets").json["buckets"]) == 2


@pytest.mark.parametrize("days", ["0", "-1", "36526", "1.5", "x7secret", "", "9" * 5000])
def test_other_numbers_are_refused_without_the_value(daemon: Daemon, days: str) -> None:
    answer = daemon.request("GET", f"/v1/buckets?older_than_days={days}")
    assert (answer.status, answer.json["code"]) == (400, "invalid_request")
    assert "a whole number from 1 to 36525" in answer.json["error"]
    assert "secret" not in answer.json["error"]
