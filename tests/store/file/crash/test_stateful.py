"""Any sequence of requests, edits by others, restarts and kills, against a dictionary."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import bucket_inputs as inputs
import jsonpatch
import pytest
from bucket_model import Bucket, Model, Name, same
from harness import Daemon, Response, new_daemon, pair
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

STEPS = 40
FIGURES: Counter[str] = Counter()
names, buckets = inputs.names, inputs.buckets
some_keys = st.lists(inputs.keys, min_size=1, max_size=2)


class Requests(RuleBasedStateMachine):
    """One daemon for each run, and every way to ask it for a change of its buckets."""

    def __init__(self) -> None:
        super().__init__()
        self.daemon = self.new()
        self.model = Model(self.daemon)
        FIGURES["runs"] += 1

    def new(self) -> Daemon:
        return new_daemon().start()

    def teardown(self) -> None:
        self.daemon.remove()

    def bucket(self, name: Name) -> Bucket:
        return self.model.stored[name].bucket or {}

    # --- requests that are granted

    @rule(name=names)
    def get(self, name: Name) -> None:
        self.model.read(name)

    @rule(name=names, chosen=some_keys)
    def get_keys(self, name: Name, chosen: list[str]) -> None:
        self.model.read(name)
        response = self.model.ask("GET", name, query=inputs.query_of(chosen))
        assert same(response.bucket, {k: v for k, v in self.bucket(name).items() if k in chosen})
        assert response.etag == self.model.stored[name].etag

    @rule(name=names, data=buckets)
    def set(self, name: Name, data: Bucket) -> None:
        after = {**self.bucket(name), **data}
        self.wrote(name, self.model.ask("PATCH", name, data), after)

    @rule(name=names, data=buckets)
    def merge_patch(self, name: Name, data: Bucket) -> None:
        response = self.model.ask("PATCH", name, data, headers=inputs.MERGE_PATCH)
        self.wrote(name, response, inputs.merged(self.bucket(name), data))

    @rule(name=names, data=buckets)
    def replace(self, name: Name, data: Bucket) -> None:
        self.model.changed(name, self.model.ask("PUT", name, data), data)

    @rule(name=names, chosen=some_keys)
    def remove_keys(self, name: Name, chosen: list[str]) -> None:
        response = self.model.ask("DELETE", name, query=inputs.query_of(chosen))
        self.wrote(name, response, {k: v for k, v in self.bucket(name).items() if k not in chosen})

    @rule(name=names)
    def remove_all(self, name: Name) -> None:
        self.model.changed(name, self.model.ask("DELETE", name), None)

    @rule(name=names, data=buckets)
    def swap(self, name: Name, data: Bucket) -> None:
        self.model.read(name)
        etag = self.model.stored[name].etag
        guard = {"If-Match": etag} if etag else {"If-None-Match": "*"}
        self.model.changed(name, self.model.ask("PUT", name, data, headers=guard), data)

    def wrote(self, name: Name, response: Response, after: Bucket) -> None:
        """A change to what is there, which does not create an empty bucket out of none."""
        nothing = self.model.stored[name].bucket is None and not after
        self.model.changed(name, response, None if nothing else after)

    # --- requests that may be refused, or must

    @rule(name=names, steps=st.lists(inputs.operations, min_size=1, max_size=3))
    def json_patch(self, name: Name, steps: list[dict[str, Any]]) -> None:
        response = self.model.ask("PATCH", name, steps, headers=inputs.JSON_PATCH)
        try:
            after = jsonpatch.apply_patch(self.bucket(name), steps)
        except (jsonpatch.JsonPatchException, jsonpatch.JsonPointerException):
            self.model.refused(name, response, 409, "patch_failed")
        else:
            self.wrote(name, response, after)
        FIGURES[f"JSON Patch {response.status}"] += 1

    @rule(name=names, method=st.sampled_from(["PUT", "PATCH", "DELETE"]), which=st.integers(0, 20))
    def swap_by_an_old_etag(self, name: Name, method: str, which: int) -> None:
        now = self.model.stored[name]
        old = sorted(now.used - {now.etag}) or ['"never"']
        guard = {"If-Match": old[which % len(old)]}
        body = None if method == "DELETE" else {"a": "lost"}
        response = self.model.ask(method, name, body, headers=guard)
        self.model.refused(name, response, 412, "precondition_failed")

    @rule(name=names, bad=st.sampled_from(inputs.BAD_INPUT))
    def bad_input(self, name: Name, bad: tuple[str, str, Any, dict[str, str], int, str]) -> None:
        method, query, body, headers, status, code = bad
        response = self.model.ask(method, name, body, query, headers=headers)
        self.model.refused(name, response, status, code)


class BucketMachine(Requests):
    """All that, by tokens too, with what happens to the files and to the process in between."""

    def __init__(self) -> None:
        super().__init__()
        self.live: dict[str, tuple[Name, str]] = {}  # by the id of the context
        self.revoked: list[tuple[Name, str]] = []

    # --- contexts

    @rule(name=names)
    def mint(self, name: Name) -> None:
        scope = {"device": name[0], "job": name[1]}
        given = {key: value for key, value in scope.items() if value is not None}
        answer = self.daemon.request("POST", "/v1/contexts", given)
        assert answer.status == 201, answer
        assert {key: answer.json[key] for key in scope} == scope
        self.live[answer.json["id"]] = (name, answer.json["token"])

    @precondition(lambda self: self.live)
    @rule(data=st.data(), sent=buckets)
    def use(self, data: st.DataObject, sent: Bucket) -> None:
        (device, job), token = self.live[data.draw(st.sampled_from(sorted(self.live)))]
        own = (device, job) if data.draw(st.booleans()) else (device, None)
        route = route_of(own)
        if own[1] is None or job is not None:
            self.model.read(own, self.daemon.request("GET", route, token=token))
            response = self.daemon.request("PATCH", route, sent, token=token)
            self.wrote(own, response, {**self.bucket(own), **sent})
        other = self.daemon.request("PUT", pair(device, job), {"a": "not yours"}, token=token)
        assert other.status in (401, 403), other

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def revoke(self, data: st.DataObject) -> None:
        chosen = data.draw(st.sampled_from(sorted(self.live)))
        assert self.daemon.request("DELETE", f"/v1/contexts/{chosen}").status == 200
        self.revoked.append(self.live.pop(chosen))

    @precondition(lambda self: self.revoked)
    @rule(data=st.data())
    def use_revoked(self, data: st.DataObject) -> None:
        name, token = data.draw(st.sampled_from(self.revoked))
        for method, body in (("GET", None), ("PUT", {"a": "nobody's"}), ("DELETE", None)):
            response = self.daemon.request(method, route_of(name), body, token=token)
            self.model.refused(name, response, 401, "no_job_context")

    @rule()
    def list_contexts(self) -> None:
        answer = self.daemon.request("GET", "/v1/contexts")
        found = {row["id"]: (row["device"], row["job"]) for row in answer.json["contexts"]}
        assert found == {key: name for key, (name, _) in self.live.items()}

    # --- all buckets

    @rule(limit=st.integers(1, 4))
    def list(self, limit: int) -> None:
        for name in inputs.NAMES:
            self.model.read(name)
        rows, query = [], f"?limit={limit}"
        while query:
            page = self.daemon.request("GET", f"/v1/buckets{query}").json
            assert len(page["buckets"]) <= limit
            rows += [(r["device"], r["job"], r["revision"]) for r in page["buckets"]]
            query = page["next_cursor"] and f"?limit={limit}&cursor={page['next_cursor']}"
        there = {n: now for n, now in self.model.stored.items() if now.bucket is not None}
        assert sorted(map(str, rows)) == sorted(str((*n, s.revision)) for n, s in there.items())

    # --- other programs, and the process

    @rule(name=names, bucket=buckets)
    def edit_by_hand(self, name: Name, bucket: Bucket) -> None:
        if self.model.stored[name].bucket is None:
            self.model.create(name, bucket)
        else:
            self.model.edit(name, bucket)
        FIGURES["edits by hand"] += 1

    @rule(name=names)
    def unlink_by_hand(self, name: Name) -> None:
        if self.model.stored[name].bucket is not None:
            self.model.unlink(name)
            FIGURES["files removed by hand"] += 1

    @rule()
    def restart(self) -> None:
        self.daemon.restart()
        FIGURES["clean restarts"] += 1

    @rule(early=st.booleans())
    def kill(self, early: bool) -> None:
        if not early:
            time.sleep(0.03)  # past the moment when files are written
        for name in inputs.NAMES:
            self.model.wait_for_adoption(name)
        self.model.see_removals()
        self.daemon.kill()
        self.daemon.start()
        FIGURES["kills"] += 1

    @invariant()
    def files_are_the_model(self) -> None:
        self.model.check_files()
        FIGURES["steps"] += 1


def route_of(name: Name) -> str:
    return "/v1/device/bucket" if name[1] is None else "/v1/bucket"


@pytest.mark.timeout(7200)
def test_any_sequence_agrees_with_the_model(crash_scale: float) -> None:
    began, daily = time.monotonic(), crash_scale < 1
    chosen = settings(
        max_examples=max(4, int(400 * crash_scale)),
        stateful_step_count=STEPS,
        derandomize=daily,  # a test run of every day must not depend on luck
        database=None,
        report_multiple_bugs=False,
    )
    run_state_machine_as_test(BucketMachine, settings=chosen)
    figures = ", ".join(f"{number} {name}" for name, number in sorted(FIGURES.items()))
    print(f"stateful: {figures}, {time.monotonic() - began:.1f} s")
    # A proof about nothing would pass as well.
    assert FIGURES["kills"] > 0
    assert FIGURES["edits by hand"] > 0


def test_removal_by_hand_lasts_over_a_kill(daemon: Daemon) -> None:
    model, name = Model(daemon), inputs.NAMES[0]
    model.changed(name, model.ask("PUT", name, {"n": 1}), {"n": 1})
    model.check_files()
    model.unlink(name)
    model.see_removals()
    daemon.kill()
    daemon.start()
    model.read(name)


def test_edit_told_of_by_a_refusal_is_taken_over(daemon: Daemon) -> None:
    """Else the same revision could stand for another edit after a restart."""
    model, name = Model(daemon), inputs.NAMES[0]
    model.changed(name, model.ask("PUT", name, {"n": 1}), {"n": 1})
    model.edit(name, {"n": 2})
    response = model.ask("PUT", name, {"n": 3}, headers={"If-Match": '"another"'})
    model.refused(name, response, 412, "precondition_failed")
    model.wait_for_adoption(name)
