"""A browser that watches what a page does."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from serving import Server, until

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
NEEDS_BROWSER = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine"),
]
"""``pytestmark`` of a module whose tests drive it."""
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "device_scale_factor": 2}


@contextmanager
def chromium() -> Iterator[Any]:
    """Debian's, through Playwright."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-background-networking"]
        )
        yield browser
        browser.close()


class Visit:
    """A page, and what it should never do: ask another host, break the policy, throw."""

    def __init__(self, browser: Any, server: Server, path: str = "/", **options: Any) -> None:
        self.server = server
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.page.set_default_timeout(30_000)
        self.faults: list[str] = []
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("console", self._console)
        self.page.on("request", lambda request: self._request(request.url, server.url))
        self.page.goto(server.url + path)

    def _console(self, message: Any) -> None:
        # The browser reports every 4xx that a test provokes; everything else counts.
        if message.type in {"error", "warning"} and "Failed to load resource" not in message.text:
            self.faults.append(message.text)

    def _request(self, url: str, home: str) -> None:
        if not url.startswith((home + "/", f"blob:{home}/")):
            self.faults.append(f"asked {url}")

    def choose(self, *paths: Path) -> None:
        self.page.set_input_files("#picker", [str(path) for path in paths])

    def said(self, text: str) -> None:
        """Wait until a screen reader would have been told this."""
        self.page.locator("#announcer", has_text=text).wait_for(state="attached")

    def until(self, expression: str) -> None:
        """Wait until this is true in the page. Playwright's own way needs `eval`, which the page forbids."""
        until(lambda: self.page.evaluate(expression), 30)

    def focused(self) -> str:
        """The id of what has the focus, or its classes."""
        focus = self.page.evaluate(
            "document.activeElement.id || document.activeElement.getAttribute('class')"
        )
        return str(focus)

    def __enter__(self) -> "Visit":
        return self

    def __exit__(self, failure: object, *_: object) -> None:
        self.context.close()
        assert failure is not None or self.faults == [], self.faults


def fake(folder: Path, name: str, content: str) -> Path:
    """A file that the stand-in for a decoder understands."""
    path = folder / name
    path.write_text(content)
    return path
