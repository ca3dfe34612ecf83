"""As much of Playwright as the example calls: a page that knows who has its cookie."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any


class Page:
    def __init__(self, context: Context) -> None:
        self.context = context
        self._typed: dict[str, str] = {}

    def goto(self, url: str) -> None:
        assert url == os.environ["PAGE"]

    def get_by_label(self, label: str) -> Any:
        return SimpleNamespace(fill=lambda text: self._typed.update({label: text}))

    def get_by_role(self, role: str, name: str) -> Any:
        assert (role, name) == ("button", "Log in")
        return SimpleNamespace(click=lambda: self.context.log_in(**self._typed))

    def get_by_text(self, text: str) -> Any:
        assert text == "Welcome"

        def wait_for() -> None:
            assert self.context.cookies

        return SimpleNamespace(is_visible=lambda: bool(self.context.cookies), wait_for=wait_for)


class Context:
    def __init__(self, storage_state: dict[str, Any] | None) -> None:
        self.cookies = (storage_state or {}).get("cookies", [])

    def log_in(self, User: str, Password: str) -> None:  # noqa: N803  (labels of the page)
        assert Password == "s3cret"
        self.cookies = [{"name": "session", "value": User, "domain": "shop.example"}]

    def new_page(self) -> Page:
        return Page(self)

    def storage_state(self) -> dict[str, Any]:
        return {"cookies": self.cookies, "origins": []}

    def close(self) -> None:
        pass


class Browser:
    def new_context(self, storage_state: dict[str, Any] | None = None) -> Context:
        return Context(storage_state)

    def close(self) -> None:
        pass


@contextlib.contextmanager
def sync_playwright() -> Iterator[Any]:
    yield SimpleNamespace(chromium=SimpleNamespace(launch=lambda executable_path: Browser()))
