"""The pages that are made of the code are as it is now, and all sides know the same error codes."""

from __future__ import annotations

import json
import sys

import bucketd_client
import pytest
from bucketd_client.ctl import refusals
from harness import REPO

from bucketd.api import responses

sys.path.insert(0, str(REPO / "docs"))

import client_codes
import codes
import generate

CLIENTS_OWN = {"connection_lost", "daemon_unreachable", "timeout"}
PAGES = generate.pages()


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_as_the_code(name: str) -> None:
    assert (REPO / "docs" / name).read_text() == PAGES[name], "run make docs"


@pytest.mark.parametrize("name", client_codes.files())
def test_a_clients_table_of_codes_is_as_the_daemons(name: str) -> None:
    assert (REPO / name).read_text() == client_codes.files()[name], "run make docs"


@pytest.mark.parametrize("name", generate.manual_pages())
def test_a_manual_page_is_as_the_code(name: str) -> None:
    assert (REPO / name).read_text() == generate.manual_pages()[name], "run make docs"


def test_daemon_clients_and_api_know_the_same_codes() -> None:
    daemon = set(codes.daemon_codes())
    document = json.loads((REPO / "bucketd" / "api" / "openapi.json").read_text())
    described = document["components"]["schemas"]["Error"]["properties"]["code"]["enum"]
    assert daemon == set(responses.STATUS) == set(described)
    assert set(bucketd_client.CODES) == daemon | CLIENTS_OWN
    assert set(codes.node_codes()) == daemon | CLIENTS_OWN
    assert set(refusals.STATUS) <= set(bucketd_client.CODES)
    assert set(responses.RETRY_AFTER) <= daemon


def test_every_code_says_why_and_what_to_do() -> None:
    for code, (cause, cure) in codes.explained().items():
        assert cause.endswith(".") or cause.endswith(".)"), code
        assert cure.endswith("."), code


def test_every_setting_says_why() -> None:
    assert {name: why for name, why in generate.reasons().items() if not why} == {}
