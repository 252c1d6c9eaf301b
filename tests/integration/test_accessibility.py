"""axe-core finds nothing: light and dark, on a desktop, a phone and at 200%."""

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
    # What 200% makes of a window of 1280 by 800.
    "zoomed": {"viewport": {"width": 640, "height": 400}, "device_scale_factor": 2, "color_scheme": "dark"},
}


def check(page: Any) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    found = axe.Axe().run(page).response["violations"]
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
        check(page)
        page.goto(f"{doubles.url}/review")
        page.locator("#current").wait_for()
        page.keyboard.press("o")
        page.locator("#answer .job[data-verdict]").wait_for()
        check(page)
        page.goto(f"{doubles.url}/docs")
        check(page)
