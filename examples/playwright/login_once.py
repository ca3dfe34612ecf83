"""Log in to a web page once; go on with its cookies and local storage in every later iteration.

    bucketctl run --device browser-1 --job login --label checkout-test -- python login_once.py

It needs the packages ``bucketd-client`` and ``playwright``. The page and the account come from the
environment: PAGE, APP_USER and APP_PASSWORD; and BROWSER, the path of a browser in the place of
Playwright's own, such as /usr/bin/chromium. The label, such as the name of the test, says which run
it is; without ``--label`` it is the time and the program.
"""

import os

from bucketd_client import Bucket
from playwright.sync_api import Page, sync_playwright

PAGE = os.environ.get("PAGE", "http://localhost:8080")


def log_in(page: Page) -> None:
    page.get_by_label("User").fill(os.environ["APP_USER"])
    page.get_by_label("Password").fill(os.environ["APP_PASSWORD"])
    page.get_by_role("button", name="Log in").click()
    page.get_by_text("Welcome").wait_for()


def main() -> None:
    # The bucket is that of BUCKETD_TOKEN, which ``bucketctl run`` sets.
    bucket = Bucket()
    known = bucket.get()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=os.environ.get("BROWSER"))
        context = browser.new_context(storage_state=known.get("storageState"))
        page = context.new_page()
        page.goto(PAGE)
        if page.get_by_text("Welcome").is_visible():
            print("going on with the stored session")
        else:
            print(f"logging in as {os.environ['APP_USER']}")
            log_in(page)
        visits = known.get("visits", 0) + 1
        # Each time, because a page may renew its cookies.
        bucket.set(storageState=context.storage_state(), visits=visits)
        print(f"visit {visits}")
        browser.close()


if __name__ == "__main__":
    main()
