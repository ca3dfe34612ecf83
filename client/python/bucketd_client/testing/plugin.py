"""The pytest plugin: ``bucket``, ``device_bucket`` and ``bucketd_server``.

``@pytest.mark.bucketd(bucket={…}, device_bucket={…}, device="…", job="…", label="…")`` sets their
content and names. The label of their context is the name of the test, unless the marker sets one.
``schema={…}`` is the schema of the automation (``automation="…"``); it needs bucketd itself, so
the test is skipped where that is not installed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from . import Server, StoredBucket

_NAMES = {"device": "test-device", "job": "test-job"}
_KNOWN = (*_NAMES, "bucket", "device_bucket", "label", "automation", "schema")
# Characters of a label that bucketd accepts.
_MAX_LABEL = 128


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "bucketd(bucket, device_bucket, device, job, label, automation, schema): the initial "
        "content, the names, the run label and the schema of the bucket fixtures",
    )


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini(
        "bucketd_in_memory",
        "Use the small server in memory, also where bucketd is installed.",
        type="bool",
        default=False,
    )


@pytest.fixture
def bucketd_server(
    pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Server]:
    """Start a server of this test alone, without buckets, and set BUCKETD_SOCKET."""
    from . import Server

    server = Server(in_memory=pytestconfig.getini("bucketd_in_memory"))
    for name in [each for each in os.environ if each.startswith("BUCKETD_")]:
        monkeypatch.delenv(name)
    with server:
        monkeypatch.setenv("BUCKETD_SOCKET", server.socket)
        yield server


@pytest.fixture
def bucket(
    request: pytest.FixtureRequest, bucketd_server: Server, monkeypatch: pytest.MonkeyPatch
) -> StoredBucket:
    """Return the bucket that ``agent.utils.bucket`` uses in this test."""
    said = _settings(request)
    # pytest escapes the control characters in the name of a test.
    label = said.get("label", request.node.name[:_MAX_LABEL])
    automation = said.get("automation")
    if "schema" in said:
        if bucketd_server.in_memory:
            pytest.skip("a schema needs bucketd itself, which is not installed here")
        automation = automation or "test-automation"
        bucketd_server.schema(automation, said["schema"])
    found = bucketd_server.bucket(said["device"], said["job"], label=label, automation=automation)
    if "bucket" in said:
        found.seed(said["bucket"])
    for name, value in found.environ.items():
        monkeypatch.setenv(name, value)
    return found


@pytest.fixture
def device_bucket(
    request: pytest.FixtureRequest, bucketd_server: Server, bucket: StoredBucket
) -> StoredBucket:
    """Return the bucket that ``agent.utils.deviceBucket`` uses in this test."""
    # The context of ``bucket`` is in the environment, and opens this bucket too.
    _ = bucket
    said = _settings(request)
    found = bucketd_server.bucket(said["device"])
    if "device_bucket" in said:
        found.seed(said["device_bucket"])
    return found


def _settings(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Return what the markers set; the nearest marker wins."""
    said: dict[str, Any] = dict(_NAMES)
    for marker in reversed(list(request.node.iter_markers("bucketd"))):
        unknown = [name for name in marker.kwargs if name not in _KNOWN]
        if marker.args or unknown:
            raise pytest.UsageError(
                f"cannot use the marker bucketd with {unknown or 'positional arguments'}: "
                f"it takes {', '.join(_KNOWN)}, by name"
            )
        said.update(marker.kwargs)
    return said
