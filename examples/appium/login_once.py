"""Log in to an app on a phone once, and resume the session in every later task iteration.

    bucketctl run --device emulator-5554 --job login --label nightly-42 -- python login_once.py

The device's name in bucketd is its udid, so one program serves a whole farm. It needs the
packages ``bucketd-client`` and ``Appium-Python-Client``, and an Appium server. The account
comes from the environment: APP_USER and APP_PASSWORD. The label, such as the name of a test or a
build, says which run it is; without ``--label`` it is the time and the program.
"""

import os
import time

from appium import webdriver
from appium.options.android import UiAutomator2Options
from appium.webdriver.common.appiumby import AppiumBy
from bucketd_client import Bucket

SERVER = os.environ.get("APPIUM_SERVER", "http://127.0.0.1:4723")
APP = "com.example.shop"


def open_app() -> webdriver.Remote:
    """Open the app as it was left: ``no_reset`` keeps its data, and so the login."""
    options = UiAutomator2Options()
    # ``bucketctl run`` sets BUCKETD_DEVICE.
    options.udid = os.environ["BUCKETD_DEVICE"]
    options.app_package, options.app_activity, options.no_reset = APP, ".MainActivity", True
    driver = webdriver.Remote(SERVER, options=options)
    # A screen may take 5 s to appear.
    driver.implicitly_wait(5)
    return driver


def logged_in(driver: webdriver.Remote) -> bool:
    return bool(driver.find_elements(AppiumBy.ACCESSIBILITY_ID, "home"))


def log_in(driver: webdriver.Remote, user: str) -> None:
    driver.find_element(AppiumBy.ACCESSIBILITY_ID, "user").send_keys(user)
    driver.find_element(AppiumBy.ACCESSIBILITY_ID, "password").send_keys(os.environ["APP_PASSWORD"])
    driver.find_element(AppiumBy.ACCESSIBILITY_ID, "log in").click()


def open_next_order(driver: webdriver.Remote, number: int) -> None:
    driver.find_element(AppiumBy.ACCESSIBILITY_ID, f"order {number}").click()


def main() -> None:
    # The bucket is that of BUCKETD_TOKEN, which ``bucketctl run`` sets.
    bucket = Bucket()
    known = bucket.get()
    driver = open_app()
    try:
        if known.get("user") == os.environ["APP_USER"] and logged_in(driver):
            print(f"resuming as {known['user']}")
        else:
            print(f"logging in as {os.environ['APP_USER']}")
            log_in(driver, os.environ["APP_USER"])
            known = bucket.set(user=os.environ["APP_USER"], loggedInAt=round(time.time()))
        number = known.get("order", 0) + 1
        open_next_order(driver, number)
        # The order is stored, so that a later crash does not open it again.
        bucket.set(order=number)
        print(f"opened order {number}")
    finally:
        driver.quit()


if __name__ == "__main__":
    main()
