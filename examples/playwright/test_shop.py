"""Tests of a shop that log in once for all of their runs, with pytest-playwright.

    bucketctl run --device browser-1 --job shop-tests -- pytest test_shop.py

It needs the packages ``bucketd-client`` and ``pytest-playwright``, and the environment of
shared_login.py, from which it takes how to log in.
"""

import os
from typing import Any

import pytest
from bucketd_client import Bucket
from playwright.sync_api import Browser, Page, expect
from shared_login import PAGE, is_logged_in, log_in


@pytest.fixture(scope="session")
def browser_type_launch_args(browser_type_launch_args: dict[str, Any]) -> dict[str, Any]:
    """Use the browser at BROWSER, else Playwright's own."""
    return {**browser_type_launch_args, "executable_path": os.environ.get("BROWSER")}


@pytest.fixture(scope="session")
def browser_context_args(browser_context_args: dict[str, Any], browser: Browser) -> dict[str, Any]:
    """Give each test a page that is logged in; of many workers at once, one logs in."""
    session = Bucket().refresh(
        lambda stored: is_logged_in(browser, stored), lambda: log_in(browser)
    )
    return {**browser_context_args, "storage_state": session["storageState"]}


def test_the_shop_knows_us(page: Page) -> None:
    page.goto(PAGE)
    expect(page.get_by_text("Welcome")).to_be_visible()


def test_the_order_is_open(page: Page) -> None:
    page.goto(PAGE)
    expect(page.get_by_role("listitem")).to_have_text("order 1")
