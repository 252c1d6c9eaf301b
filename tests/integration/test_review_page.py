"""The operators' queue in a real browser, by keyboard."""

from pathlib import Path
from typing import Any

import httpx
import pytest
from browsing import NEEDS_BROWSER, Visit
from serving import DOUBLES, Server, serving, until

pytestmark = NEEDS_BROWSER

SCORES = {"clear.mp4": 0.01, "near.mp4": 0.09, "open.mp4": 0.5, "reported.mp4": 0.98}
ORDER = ["reported.mp4", "open.mp4", "near.mp4", "clear.mp4"]
"""What was reported, or is the policy's to review, is inconclusive's equal, and nearer to a threshold."""


@pytest.fixture
def server(tmp_path: Path) -> Any:
    with serving(DOUBLES, tmp_path / "data") as server:
        server.wait_ready()
        yield server


def submit(server: Server, name: str, score: float) -> str:
    job = httpx.post(f"{server.url}/v1/jobs?filename={name}", content=f"SCORE:{score}").json()["id"]
    until(lambda: httpx.get(f"{server.url}/v1/jobs/{job}").json()["status"] == "done", 60)
    return str(job)


def fill(server: Server) -> dict[str, str]:
    jobs = {name: submit(server, name, score) for name, score in SCORES.items()}
    said = {"verdict": "wrong", "note": "It is <b>mine</b>."}
    httpx.post(f"{server.url}/v1/jobs/{jobs['reported.mp4']}/feedback", json=said)
    return jobs


def decision(server: Server, job: str) -> Any:
    return httpx.get(f"{server.url}/v1/jobs/{job}").json()["feedback"]["decision"]


def test_the_queue_is_worked_off_by_keys(browser: Any, server: Server) -> None:
    jobs = fill(server)
    with Visit(browser, server, "/review") as visit:
        page = visit.page
        names, name = page.locator("#queue .name"), page.locator("#current-name")
        name.get_by_text("reported.mp4").wait_for()
        assert names.all_text_contents() == ORDER
        assert page.text_content("#waiting-count") == "4 waiting"
        assert "It is <b>mine</b>." in page.text_content("#reports")
        assert "reported once, to be reviewed by the policy, generated" in page.text_content("#why")
        page.keyboard.press("r")
        name.get_by_text("open.mp4").wait_for()
        visit.said("reported.mp4: real. 3 left.")
        assert decision(server, jobs["reported.mp4"])["verdict"] == "wrong"

        page.keyboard.press("j")
        name.get_by_text("near.mp4").wait_for()
        page.keyboard.press("k")
        name.get_by_text("open.mp4").wait_for()
        page.keyboard.press("o")
        page.locator("#answer .job[data-verdict=inconclusive]").wait_for()
        assert page.get_attribute("#open", "aria-expanded") == "true"
        page.fill("#note", "grr")  # letters of a note decide nothing
        page.keyboard.press("Tab")
        page.keyboard.press("u")
        page.locator("#answer .job[data-verdict=authentic]").wait_for()
        found = decision(server, jobs["open.mp4"])
        assert (found["verdict"], found["label"], found["note"]) == ("unsure", None, "grr")

        page.keyboard.press("z")
        name.get_by_text("open.mp4").wait_for()
        assert decision(server, jobs["open.mp4"]) is None
        page.keyboard.press("z")
        name.get_by_text("reported.mp4").wait_for()
        assert names.all_text_contents() == ORDER
        for label, following in zip("grug", [*ORDER[1:], None], strict=True):
            page.keyboard.press(label)
            if following:
                name.get_by_text(following).wait_for()
        page.locator("#review").wait_for(state="hidden")
        visit.said("0 left")
        assert decision(server, jobs["clear.mp4"])["label"] == "generated"


def test_single_keys_can_be_switched_off(browser: Any, server: Server) -> None:
    job = submit(server, "a.mp4", 0.5)
    with Visit(browser, server, "/review") as visit:
        page = visit.page
        page.locator("#current").wait_for()
        page.uncheck("#shortcuts")
        page.keyboard.press("g")
        page.reload()
        page.locator("#current").wait_for()
        assert not page.is_checked("#shortcuts")
        page.keyboard.press("g")
        page.get_by_role("button", name="Real").click()
        page.get_by_text("Nothing waits.").wait_for()
        assert decision(server, job)["label"] == "real"
        page.get_by_role("button", name="Undo").click()
        page.locator("#current").wait_for()


def test_an_empty_queue_and_a_missing_key(browser: Any, server: Server, tmp_path: Path) -> None:
    with Visit(browser, server, "/review") as visit:
        visit.page.get_by_text("Nothing waits.").wait_for()
    key = "0123456789abcdef0123456789abcdef"
    with serving(DOUBLES, tmp_path / "closed", api_keys=key) as closed:
        closed.wait_ready()
        submit_with = {"Authorization": f"Bearer {key}"}
        httpx.post(f"{closed.url}/v1/jobs?filename=a.mp4", content="SCORE:0.5", headers=submit_with)
        with Visit(browser, closed, "/review") as visit:
            page = visit.page
            page.get_by_text("A key is needed").first.wait_for()
            assert visit.focused() == "key"
            page.keyboard.type(key)
            page.keyboard.press("Tab")
            page.locator("#current-name", has_text="a.mp4").or_(
                page.get_by_text("Nothing waits.")
            ).first.wait_for()
