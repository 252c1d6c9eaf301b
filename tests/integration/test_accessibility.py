"""axe-core finds nothing: light and dark, on a desktop, a phone and at 200%, whatever the page shows."""

from pathlib import Path
from typing import Any

import pytest
from browsing import NEEDS_BROWSER, PHONE, Visit, fake
from full_answer import put_in_place
from serving import Server

pytestmark = NEEDS_BROWSER

SCREENS: dict[str, dict[str, Any]] = {
    "light": {},
    "dark": {"color_scheme": "dark"},
    "phone": PHONE,
    "dark phone": PHONE | {"color_scheme": "dark"},
    # What 200% makes of a window of 1280 by 800.
    "zoomed": {"viewport": {"width": 640, "height": 400}, "device_scale_factor": 2, "color_scheme": "dark"},
}


RULES = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice")
"""All of WCAG 2.2 AA that axe has; by itself it leaves out the sizes of targets."""


def check(page: Any) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    only = {"runOnly": {"type": "tag", "values": RULES}, "resultTypes": ["violations"]}
    found = axe.Axe().run(page, options=only).response["violations"]
    assert [(rule["id"], [node["html"][:200] for node in rule["nodes"]]) for rule in found] == []


@pytest.mark.parametrize("screen", SCREENS)
def test_axe_finds_nothing(browser: Any, doubles: Server, tmp_path: Path, screen: str) -> None:
    options = SCREENS[screen] | {"reduced_motion": "reduce"}
    with Visit(browser, doubles, **options) as visit:
        page = visit.page
        check(page)
        put_in_place(page)
        for content in ("SCORE:0.97", "SCORE:0.02", "SCORE:0.5", "BAD:encrypted"):
            visit.choose(fake(tmp_path, f"{content[-4:]}.mp4", content))
        page.locator(".job[data-verdict]").nth(2).wait_for()
        page.wait_for_selector(".failed")
        for summary in page.locator("summary").all():
            summary.click()
        page.get_by_role("slider").first.focus()  # a window is marked
        check(page)
        page.goto(f"{doubles.url}/review")
        page.locator("#current").wait_for()
        page.keyboard.press("o")
        page.locator("#answer .job[data-verdict]").wait_for()
        check(page)


def test_axe_finds_nothing_while_it_waits_or_is_refused(
    browser: Any, doubles: Server, tmp_path: Path
) -> None:
    refusal = {"code": "unauthorized", "title": "A key is needed", "detail": "This service has keys."}
    with Visit(browser, doubles, color_scheme="dark", reduced_motion="reduce") as visit:
        page = visit.page
        for path in ("**/report?*", "**/v1/review*"):
            page.route(path, lambda route: route.fulfill(status=401, json=refusal))
        visit.choose(fake(tmp_path, "done.mp4", "SCORE:0.97"), fake(tmp_path, "slow.mp4", "SLOW:60"))
        page.get_by_role("button", name="PDF").click()
        page.locator(".actions .said", has_text="A key is needed").wait_for()
        page.locator(".stage", has_text="Decoding").wait_for()
        page.locator("#key-row").evaluate("row => (row.hidden = false)")
        check(page)
        page.get_by_role("button", name="Cancel slow.mp4").click()
        page.locator(".stage").wait_for(state="detached")
        page.goto(f"{doubles.url}/review")
        page.get_by_text("A key is needed").first.wait_for()
        check(page)


@pytest.mark.parametrize("screen", ["light", "dark phone"])
def test_axe_finds_nothing_in_the_reference(browser: Any, doubles: Server, screen: str) -> None:
    with Visit(browser, doubles, "/docs", **SCREENS[screen]) as visit:
        check(visit.page)
