"""Results and errors as values: what they show, hide, and survive."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator, Mapping
from typing import Any

import bucketd_client
import pytest
from bucketd_client import (
    CODES,
    AsyncBucket,
    Bucket,
    BucketError,
    BucketSuccess,
    Failure,
    InvalidRequest,
    PreconditionFailed,
    Snapshot,
    Unavailable,
    agent,
)
from bucketd_client._api import encode, whole
from bucketd_client._context import from_environment
from bucketd_client._errors import error

FAILED = Failure.of(error("precondition_failed", "cannot set: changed", status=412, revision=7))
DONE = BucketSuccess(
    {"success": True, "bucket": {"a": 1}, "revision": 2, "recovered_from": {"revision": 1}}
)
STALE = BucketSuccess({"success": True, "bucket": {"a": 1}, "revision": 2, "stale_seconds": 12.5})


def test_a_success_is_an_object_and_a_mapping() -> None:
    assert DONE.success is True
    assert DONE.bucket is DONE["bucket"]
    assert (DONE.revision, DONE.recovered_from) == (2, {"revision": 1})
    assert (DONE.stale_seconds, STALE.stale_seconds) == (None, 12.5)
    assert "error" not in DONE
    assert set(DONE) == {"success", "bucket", "revision", "recovered_from"}


def test_a_failure_is_an_object_and_a_mapping() -> None:
    assert FAILED.success is False
    assert (FAILED.error, FAILED.code, FAILED.revision) == (
        "cannot set: changed",
        "precondition_failed",
        7,
    )
    assert FAILED.details == []
    assert dict(FAILED) == {
        "success": False,
        "error": "cannot set: changed",
        "code": "precondition_failed",
        "revision": 7,
    }


def test_a_failure_that_is_taken_for_a_success_says_what_failed() -> None:
    with pytest.raises(AttributeError, match=r"'bucket': no job context.*bucketctl run"):
        _ = agent.utils.bucket.get().bucket
    assert not hasattr(FAILED, "bucket")


@pytest.mark.parametrize("value", [FAILED, DONE], ids=["failure", "success"])
def test_results_can_be_copied_and_pickled(value: Mapping[str, Any]) -> None:
    assert dict(copy.deepcopy(value)) == dict(pickle.loads(pickle.dumps(value))) == dict(value)  # noqa: S301


def test_exceptions_keep_what_they_know_when_pickled() -> None:
    again = pickle.loads(pickle.dumps(error("too_large", "cannot", status=413, details=[1])))  # noqa: S301
    assert type(again) is CODES["too_large"]
    assert (again.code, again.status, again.details) == ("too_large", 413, [1])


def test_a_code_of_a_newer_daemon_is_kept() -> None:
    unknown = error("brand_new", "cannot", status=409)
    assert (type(unknown), unknown.code, unknown.status) == (BucketError, "brand_new", 409)


def test_every_class_of_the_tree_is_public_and_drawn() -> None:
    drawn = bucketd_client._errors.__doc__ or ""
    for kind in {BucketError, Unavailable, *CODES.values()}:
        assert kind.__name__ in drawn
        assert getattr(bucketd_client, kind.__name__) is kind


def test_a_snapshot_cannot_be_changed() -> None:
    snapshot = Snapshot({"a": 1}, 1, '"e"')
    with pytest.raises(AttributeError):
        snapshot.revision = 2  # type: ignore[misc]


@pytest.mark.parametrize("kind", [Bucket, AsyncBucket])
def test_a_repr_tells_whose_bucket_and_no_token(kind: Any) -> None:
    name = kind.__name__
    assert repr(kind()) == f"{name}()"
    assert repr(kind(device="d", job="j")) == f"{name}(device='d', job='j')"
    assert repr(kind(token="secret", device_bucket=True)) == f"{name}(token=…, device_bucket=True)"
    assert "secret" not in repr(from_environment({"BUCKETD_TOKEN": "secret"}))


@pytest.mark.parametrize(
    "options",
    [
        {"token": "t", "device": "d"},
        {"token": "t", "automation": "a"},
        {"job": "j"},
        {"automation": "a"},
        {"device": "d", "automation": "a"},
    ],
)
@pytest.mark.parametrize("kind", [Bucket, AsyncBucket])
def test_options_that_make_no_sense_together(kind: Any, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match="cannot use"):
        kind(**options)


@pytest.mark.parametrize("key", [1, None, True, (1, 2)])
def test_keys_that_json_would_make_texts_of_are_refused_at_every_depth(key: object) -> None:
    with pytest.raises(InvalidRequest, match=r"at '/a/1/b' is a .*must be a string"):
        encode({"a": [0, {"b": {key: 1}}]})


class Hostile(Mapping[str, Any]):
    """A mapping that fails in a way of its own."""

    def __getitem__(self, key: str) -> Any:
        raise LookupError("out of order")

    def __iter__(self) -> Iterator[str]:
        return iter(["a"])

    def __len__(self) -> int:
        return 1


def test_a_mapping_that_fails_is_a_failure_of_the_call() -> None:
    with pytest.raises(InvalidRequest, match="LookupError"):
        whole(Hostile())
    result = agent.utils.bucket.set(Hostile())
    assert result["code"] == "invalid_request"


def test_a_refusal_of_a_guard_is_of_its_own_class() -> None:
    assert type(error("precondition_failed", "cannot")) is PreconditionFailed
