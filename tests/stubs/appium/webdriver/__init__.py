"""A driver whose app has a login and a list of orders."""

import json
import os
from pathlib import Path


class Element:
    def __init__(self, driver: "Remote", name: str) -> None:
        self.driver, self.name = driver, name

    def send_keys(self, text: str) -> None:
        self.driver.typed[self.name] = text

    def click(self) -> None:
        if self.name == "log in":
            assert self.driver.typed["password"] == "s3cret"
            self.driver.phone["user"] = self.driver.typed["user"]
        else:
            assert self.driver.phone["user"], "an order can be opened only by somebody"
            self.driver.phone["opened"].append(self.name)
        self.driver.save()


class Remote:
    def __init__(self, _server: str, *, options: object) -> None:
        self.file, self.typed = Path(os.environ["PHONE"]), {}
        new = {"udid": options.udid, "user": "", "opened": []}
        self.phone = json.loads(self.file.read_text()) if self.file.exists() else new
        assert self.phone["udid"] == options.udid
        assert options.no_reset

    def implicitly_wait(self, _seconds: float) -> None:
        pass

    def find_elements(self, by: str, name: str) -> list[Element]:
        there = name != "home" or self.phone["user"]
        return [self.find_element(by, name)] if there else []

    def find_element(self, by: str, name: str) -> Element:
        assert by == "accessibility id"
        return Element(self, name)

    def save(self) -> None:
        self.file.write_text(json.dumps(self.phone))

    def quit(self) -> None:
        self.save()
