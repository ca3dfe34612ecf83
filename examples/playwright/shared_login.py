"""Many workers, one account: one logs in, the others take over its cookies and local storage.

for n in 1 2 3; do bucketctl run --device shop --job ada -- python shared_login.py & done; wait

It needs the packages ``bucketd-client`` and ``playwright``. The page and the account come from the
environment: PAGE, APP_USER and APP_PASSWORD; and BROWSER, the path of a browser in the place of
Playwright's own, such as /usr/bin/chromium.
"""

import os
from typing import Any

from bucketd_client import Bucket
from playwright.sync_api import Browser, Page, sync_playwright

PAGE = os.environ.get("PAGE", "http://localhost:8080")


def open_page(browser: Browser, bucket: dict[str, Any]) -> Page:
    """Open the page with the cookies and the local storage of a session, if there is one."""
    page = browser.new_context(storage_state=bucket.get("storageState")).new_page()
    page.goto(PAGE)
    return page


def is_logged_in(browser: Browser, bucket: dict[str, Any]) -> bool:
    """Ask the page itself: nobody else knows whether it still accepts the session."""
    page = open_page(browser, bucket)
    try:
        return page.get_by_text("Welcome").is_visible()
    finally:
        page.context.close()


def log_in(browser: Browser) -> dict[str, Any]:
    """Log in, and return what the other workers need."""
    print(f"logging in as {os.environ['APP_USER']}")
    page = open_page(browser, {})
    page.get_by_label("User").fill(os.environ["APP_USER"])
    page.get_by_label("Password").fill(os.environ["APP_PASSWORD"])
    page.get_by_role("button", name="Log in").click()
    page.get_by_text("Welcome").wait_for()
    try:
        return {"storageState": page.context.storage_state()}
    finally:
        page.context.close()


def main() -> None:
    # The bucket is that of BUCKETD_TOKEN, which ``bucketctl run`` sets.
    bucket = Bucket()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=os.environ.get("BROWSER"))
        session = bucket.refresh(
            lambda stored: is_logged_in(browser, stored), lambda: log_in(browser)
        )
        page = open_page(browser, session)
        page.get_by_text("Welcome").wait_for()
        print("working as everybody else")
        browser.close()


if __name__ == "__main__":
    main()
