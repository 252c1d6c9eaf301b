"""The page in a real browser: what a moderator does with it, by pointer and by keyboard."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from browsing import NEEDS_BROWSER, Visit, fake
from serving import DOUBLES, Server, serving, until

from app.keys import open_keys
from app.settings import Settings

pytestmark = NEEDS_BROWSER


def test_a_real_clip_from_drop_to_verdict(browser: Any, service: Server, drawn_clip: Path) -> None:
    with Visit(browser, service) as visit:
        page = visit.page
        page.wait_for_selector("#status[data-state=ready]")
        assert "specsem-compact" in page.text_content("#status-text")
        visit.choose(drawn_clip)
        page.wait_for_selector(".job[data-verdict]")
        card = page.locator(".job").first
        word = card.locator(".word").text_content()
        assert word in {"Generated", "Authentic", "Inconclusive"}
        assert word in page.text_content("#announcer")
        assert "on 60 camera clips" in card.locator(".cost").text_content()
        assert "5 in 100" in card.locator(".cost").text_content()
        with page.expect_download() as download:
            card.locator(".download").click()
        answer = json.loads(Path(download.value.path()).read_text())
        assert download.value.suggested_filename == "clip.mp4.specsem.json"
        chart = card.get_by_role("slider", name="Time line")
        assert int(chart.get_attribute("aria-valuemax")) == len(answer["segments"]) == 2
        assert card.locator(".timeline tbody tr").count() == 2
        assert answer["sha256"] in card.locator(".media").text_content()

        # By keyboard: along the windows, and into the video.
        visit.until("document.querySelector('video').readyState >= 1")
        first, second = answer["segments"]
        chart.focus()
        page.keyboard.press("ArrowRight")
        assert f"score {second['score']:.2f}" in card.locator(".readout").text_content()
        assert "Window 2 of 2" in chart.get_attribute("aria-valuetext")
        page.keyboard.press("Enter")
        visit.until(f"Math.abs(document.querySelector('video').currentTime - {second['start_s']}) < 0.1")
        page.keyboard.press("Home")
        assert "Window 1 of 2" in chart.get_attribute("aria-valuetext")

        # By pointer: hover tells, a click seeks.
        visit.until("Object.keys(globalThis.Chart.instances).length === 1")
        box = chart.bounding_box()
        right = {"x": box["width"] - 20, "y": box["height"] / 2}
        chart.hover(position=right)
        assert f"score {second['score']:.2f}" in card.locator(".readout").text_content()
        chart.click(position=right)
        visit.until(f"Math.abs(document.querySelector('video').currentTime - {second['start_s']}) < 0.1")
        chart.click(position={"x": 40, "y": box["height"] / 2})
        visit.until(f"Math.abs(document.querySelector('video').currentTime - {first['start_s']}) < 0.1")


def test_the_time_line_follows_the_colour_scheme(browser: Any, doubles: Server, tmp_path: Path) -> None:
    with Visit(browser, doubles, color_scheme="light") as visit:
        page = visit.page
        visit.choose(fake(tmp_path, "a.mp4", "SCORE:0.97"))
        visit.until("Object.keys(globalThis.Chart?.instances ?? {}).length === 1")
        drawn = "document.querySelector('.chart').toDataURL()"
        light = page.evaluate(drawn)
        page.emulate_media(color_scheme="dark")
        visit.until(f"{drawn} !== '{light}'")
        page.emulate_media(color_scheme="light")
        visit.until(f"{drawn} === '{light}'")


def test_a_bad_file_says_why(browser: Any, service: Server, tmp_path: Path) -> None:
    with Visit(browser, service) as visit:
        visit.choose(fake(tmp_path, "<b>notes.mp4", "no video at all"))
        visit.page.wait_for_selector(".failed")
        card = visit.page.locator(".job").first
        assert card.locator(".failed-code").text_content() == "Code not_a_video"
        assert card.locator(".name").text_content() == "<b>notes.mp4"  # a name is never markup
        visit.said("It could not be scored")


def test_several_files_wait_for_their_turn(browser: Any, doubles: Server, tmp_path: Path) -> None:
    with Visit(browser, doubles) as visit:
        page = visit.page
        files = {
            "1.mp4": "SLOW:1 SCORE:0.97",
            "2.mp4": "SCORE:0.02",
            "3.mp4": "BAD:encrypted",
            "4.mp4": "SLOW:60",
        }
        visit.choose(*(fake(tmp_path, name, content) for name, content in files.items()))
        assert page.locator(".job").count() == 4
        page.get_by_role("button", name="Cancel 4.mp4").click()
        page.wait_for_selector(".failed")
        page.locator(".job[data-verdict]").nth(1).wait_for()
        assert sorted(page.locator(".word").all_text_contents()) == ["Authentic", "Generated"]
        assert page.locator(".job").count() == 3


def test_cancel_frees_the_service(browser: Any, doubles: Server, tmp_path: Path) -> None:
    with Visit(browser, doubles) as visit:
        page = visit.page
        visit.choose(fake(tmp_path, "slow.mp4", "SLOW:60"))
        page.locator(".stage", has_text="Decoding").wait_for()
        page.get_by_role("button", name="Cancel slow.mp4").click()
        page.wait_for_selector(".job", state="detached")
        visit.said("cancelled")
        assert visit.focused() == "picker"
        until(lambda: running(doubles) == [])
        assert page.locator("#history").is_hidden()
        visit.choose(fake(tmp_path, "next.mp4", "SCORE:0.97"))
        page.wait_for_selector(".job[data-verdict=generated]")


def running(server: Server) -> list[Any]:
    found = httpx.get(f"{server.url}/v1/jobs?status=queued&status=running").json()["jobs"]
    assert isinstance(found, list)
    return found


def test_a_long_job_goes_on_though_the_page_is_left(browser: Any, doubles: Server, tmp_path: Path) -> None:
    with Visit(browser, doubles) as visit:
        page = visit.page
        page.check("#thorough")
        page.uncheck("#stability")
        visit.choose(fake(tmp_path, "long.mp4", "SLOW:6 SCORE:0.97"))
        page.locator(".stage", has_text="Starting").wait_for()
        page.reload()
        page.wait_for_selector(".job[data-verdict=generated]")
        assert page.locator(".job .name").text_content() == "long.mp4"
        assert page.get_by_role("slider").get_attribute("aria-valuemax") == "12"
        assert page.locator("video").count() == 0  # the local file is gone with the page


def test_without_events_the_page_asks(browser: Any, doubles: Server, tmp_path: Path) -> None:
    with Visit(browser, doubles) as visit:
        visit.page.route("**/events", lambda route: route.abort())
        visit.page.uncheck("#stability")
        visit.choose(fake(tmp_path, "a.mp4", "SLOW:1 SCORE:0.97"))
        visit.page.wait_for_selector(".job[data-verdict=generated]")


def test_too_large_is_said_before_it_is_sent(browser: Any, doubles: Server, tmp_path: Path) -> None:
    with Visit(browser, doubles) as visit:
        visit.choose(fake(tmp_path, "large.mp4", "x" * 2_000_001))
        visit.page.wait_for_selector(".failed")
        assert "limits_exceeded" in visit.page.text_content(".failed-code")


def test_a_key_is_asked_for_and_used(browser: Any, tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    with serving(DOUBLES, data_dir, key_cache_s=0) as server:
        server.wait_ready()
        with Visit(browser, server) as visit:
            page = visit.page
            assert page.locator("#key").is_hidden()
            with open_keys(Settings(data_dir=data_dir)) as store:  # the first one, after the page was opened
                key, _ = store.create(scopes=["jobs"])
                other, _ = store.create(scopes=["score"])
            visit.choose(fake(tmp_path, "a.mp4", "SCORE:0.97"))
            page.wait_for_selector(".failed")
            assert "unauthorized" in page.text_content(".failed-code")
            assert visit.focused() == "key"
            page.keyboard.type(other)
            visit.choose(tmp_path / "a.mp4")
            page.locator(".failed-code", has_text="forbidden").wait_for()
            page.fill("#key", key)
            visit.choose(tmp_path / "a.mp4")
            page.wait_for_selector(".job[data-verdict=generated]")
            page.reload()
            assert page.locator("#key").is_visible()
            assert page.input_value("#key") == key  # for as long as the tab is open


def test_feedback_reaches_the_store(browser: Any, doubles: Server, tmp_path: Path) -> None:
    with Visit(browser, doubles) as visit:
        page = visit.page
        visit.choose(fake(tmp_path, "mine.mp4", "SCORE:0.98"))
        form = page.locator(".feedback")
        form.get_by_role("radio", name="Wrong").check()
        form.get_by_label("The video is").select_option("real")
        form.get_by_label("A note").fill("Filmed by me.")
        form.get_by_role("button", name="Send").click()
        form.locator(".said", has_text="Thank you").wait_for()
        job = page.locator(".job").get_attribute("data-id")
        found = httpx.get(f"{doubles.url}/v1/jobs/{job}").json()["feedback"]
        assert (found["wrong"], found["mine"]["label"], found["mine"]["note"]) == (1, "real", "Filmed by me.")

        # It is there when the answer is opened again, and can be withdrawn.
        page.goto(f"{doubles.url}/?job={job}")
        page.wait_for_selector(".job[data-verdict]")
        assert form.get_by_role("radio", name="Wrong").is_checked()
        form.get_by_role("button", name="Withdraw").click()
        form.locator(".said", has_text="Withdrawn").wait_for()
        assert httpx.get(f"{doubles.url}/v1/jobs/{job}").json()["feedback"]["mine"] is None


def test_this_browser_remembers_and_forgets(browser: Any, doubles: Server, tmp_path: Path) -> None:
    with Visit(browser, doubles) as visit:
        page = visit.page
        visit.choose(fake(tmp_path, "a.mp4", "SCORE:0.97"), fake(tmp_path, "b.mp4", "SCORE:0.03"))
        page.locator(".job[data-verdict]").nth(1).wait_for()
        page.reload()
        page.locator("#history summary").click()
        rows = page.locator("#history li")
        assert rows.locator(".name").all_text_contents() == ["b.mp4", "a.mp4"]
        assert rows.locator(".outcome").all_text_contents() == ["Authentic", "Generated"]
        assert "shared machine" in page.text_content("#history")
        page.get_by_role("button", name="Show a.mp4").click()
        page.wait_for_selector(".job[data-verdict=generated]")
        page.get_by_role("button", name="Forget a.mp4").click()
        assert rows.locator(".name").all_text_contents() == ["b.mp4"]
        page.get_by_role("button", name="Show b.mp4").click()
        page.wait_for_selector(".job[data-verdict=authentic]")
        card = page.locator(".job[data-verdict=authentic]")
        job = card.get_attribute("data-id")
        card.get_by_role("button", name="Delete from the service").click()
        card.wait_for(state="detached")
        assert httpx.get(f"{doubles.url}/v1/jobs/{job}").status_code == 404
        assert page.locator("#history").is_hidden()


PASTE = """(given) => {
  const data = new DataTransfer();
  if (given.name) data.items.add(new File([given.content], given.name));
  if (given.text) data.setData("text/plain", given.text);
  const init = { clipboardData: data, bubbles: true, cancelable: true };
  document.dispatchEvent(new ClipboardEvent("paste", init));
}"""


def test_a_file_may_be_pasted(browser: Any, doubles: Server) -> None:
    with Visit(browser, doubles) as visit:
        assert visit.page.locator("#url").count() == 0  # addresses are not fetched here
        visit.page.evaluate(PASTE, {"text": "https://example.org/a.mp4"})
        visit.page.evaluate(PASTE, {"name": "pasted.mp4", "content": "SCORE:0.97"})
        visit.page.wait_for_selector(".job[data-verdict=generated]")
        assert visit.page.locator(".job .name").all_text_contents() == ["pasted.mp4"]


def test_an_address_may_be_pasted_where_addresses_are_fetched(browser: Any, tmp_path: Path) -> None:
    with serving(DOUBLES, tmp_path / "data", url_fetch="true") as server, Visit(browser, server) as visit:
        page = visit.page
        server.wait_ready()
        page.evaluate(PASTE, {"text": "https://127.0.0.1/clips/a.mp4?key=secret"})
        assert visit.focused() == "fetch"
        assert page.locator(".job").count() == 0  # not before it is said to
        page.keyboard.press("Enter")
        page.locator(".failed-code", has_text="url_refused").wait_for()
        assert page.locator(".job .name").text_content() == "https://127.0.0.1/clips/a.mp4"


def test_keyboard_alone_reaches_everything(browser: Any, doubles: Server, tmp_path: Path) -> None:
    with Visit(browser, doubles) as visit:
        page = visit.page
        reached = []
        while "stability" not in reached:
            assert len(reached) < 10
            page.keyboard.press("Tab")
            reached.append(visit.focused())
        assert reached[0] == "skip"
        assert {"picker", "thorough"} <= set(reached)
        with page.expect_file_chooser() as chooser:
            page.focus("#picker")  # in here: the browser has begun to listen for choosers when it is done
            page.keyboard.press("Space")
        chooser.value.set_files(str(fake(tmp_path, "a.mp4", "SCORE:0.97")))
        page.wait_for_selector(".job[data-verdict]")
        page.focus("#stability")
        reached = []
        for _ in range(20):
            page.keyboard.press("Tab")
            reached.append(visit.focused())
        wanted = [
            "prevalence",
            "chart",
            "button",
            "button quiet",
            "button copy",
            "button download",
        ]
        assert [name for name in wanted if name not in reached] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 1200])
def test_no_sideways_scrolling(
    browser: Any, doubles: Server, tmp_path: Path, width: int, scheme: str
) -> None:
    options = {
        "viewport": {"width": width, "height": 700},
        "color_scheme": scheme,
        "reduced_motion": "reduce",
    }
    for path in ("/", "/review", "/docs"):
        with Visit(browser, doubles, path, **options) as visit:
            if path == "/":
                visit.choose(fake(tmp_path, f"{'long-name-' * 15}.mp4", "SCORE:0.97"))
                visit.page.wait_for_selector(".job[data-verdict]")
            elif path == "/review":
                visit.page.locator("#current").wait_for()
            assert visit.page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_reference_leads_to_its_errors(browser: Any, doubles: Server) -> None:
    with Visit(browser, doubles, "/docs#error-too_short") as visit:
        assert visit.page.locator("tr:target").locator("code").text_content() == "too_short"
