"""The page in a real browser: what a moderator does with it, by pointer and by keyboard."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from serving import DOUBLES, Server, serving

from app.keys import open_keys
from app.settings import Settings

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-background-networking"]
        )
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def doubles(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data_dir = tmp_path_factory.mktemp("page") / "data"
    with serving(DOUBLES, data_dir, max_upload_bytes=2_000_000) as server:
        server.wait_ready()
        yield server


class Visit:
    """A page, and what it should never do: ask another host, break the policy, throw."""

    def __init__(self, browser: Any, server: Server, path: str = "/", **options: Any) -> None:
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.page.set_default_timeout(20_000)
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

    def __enter__(self) -> "Visit":
        return self

    def __exit__(self, *_: object) -> None:
        self.context.close()
        assert self.faults == []


def fake(folder: Path, name: str, content: str) -> Path:
    path = folder / name
    path.write_text(content)
    return path


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
            card.get_by_role("button", name="Download JSON").or_(card.locator(".download")).first.click()
        answer = json.loads(Path(download.value.path()).read_text())
        assert download.value.suggested_filename == "clip.mp4.specsem.json"
        assert card.locator(".window").count() == len(answer["segments"]) == 2
        assert card.locator("tbody tr").count() == 2
        assert answer["sha256"] in card.locator(".media").text_content()

        # By keyboard: along the windows, and into the video.
        page.wait_for_function("document.querySelector('video').readyState >= 1")
        card.locator(".window").first.focus()
        page.keyboard.press("ArrowRight")
        assert f"score {answer['segments'][1]['score']:.2f}" in card.locator(".readout").text_content()
        page.keyboard.press("Enter")
        start_s = answer["segments"][1]["start_s"]
        page.wait_for_function(f"Math.abs(document.querySelector('video').currentTime - {start_s}) < 0.1")
        page.keyboard.press("Home")
        assert card.locator(".window").first.evaluate("bar => bar === document.activeElement")


def test_a_bad_file_says_why(browser: Any, service: Server, tmp_path: Path) -> None:
    with Visit(browser, service) as visit:
        visit.choose(fake(tmp_path, "<b>notes.mp4", "no video at all"))
        visit.page.wait_for_selector(".failed")
        card = visit.page.locator(".job").first
        assert card.locator(".failed-code").text_content() == "Code not_a_video"
        assert card.locator(".name").text_content() == "<b>notes.mp4"  # a name is never markup
        assert "Not a video" in visit.page.text_content("#announcer")


def test_several_files_wait_for_their_turn(browser: Any, doubles: Server, tmp_path: Path) -> None:
    with Visit(browser, doubles) as visit:
        page = visit.page
        visit.choose(
            fake(tmp_path, "1.mp4", "SLOW:0.6 SCORE:0.97"),
            fake(tmp_path, "2.mp4", "SCORE:0.02"),
            fake(tmp_path, "3.mp4", "BAD:encrypted"),
            fake(tmp_path, "4.mp4", "SCORE:0.5"),
        )
        assert page.locator(".job").count() == 4
        assert page.get_by_text("Waiting for its turn").count() == 3
        page.get_by_role("button", name="Cancel 4.mp4").click()  # one that has not begun
        page.wait_for_selector(".failed")
        verdicts = page.locator(".word").all_text_contents()
        assert sorted(verdicts) == ["Authentic", "Generated"]
        assert page.locator(".job").count() == 3


def test_cancel_frees_the_service(browser: Any, doubles: Server, tmp_path: Path) -> None:
    with Visit(browser, doubles) as visit:
        page = visit.page
        visit.choose(fake(tmp_path, "slow.mp4", "SLOW:60"))
        page.get_by_text("Analysing…").wait_for()
        page.get_by_role("button", name="Cancel slow.mp4").click()
        page.wait_for_selector(".job", state="detached")
        assert "cancelled" in page.text_content("#announcer")
        page.wait_for_timeout(300)
        assert doubles.uploads() == []
        visit.choose(fake(tmp_path, "next.mp4", "SCORE:0.97"))
        page.wait_for_selector(".job[data-verdict=generated]")


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
                key, _ = store.create(scopes=["score"])
            visit.choose(fake(tmp_path, "a.mp4", "SCORE:0.97"))
            page.wait_for_selector(".failed")
            assert "unauthorized" in page.text_content(".failed-code")
            assert page.evaluate("document.activeElement.id") == "key"
            page.keyboard.type(key)
            visit.choose(tmp_path / "a.mp4")
            page.wait_for_selector(".job[data-verdict=generated]")
            page.reload()
            assert page.locator("#key").is_visible()
            assert page.input_value("#key") == key  # for as long as the tab is open


def test_keyboard_alone_reaches_the_picker(browser: Any, doubles: Server) -> None:
    with Visit(browser, doubles) as visit:
        page = visit.page
        reached = []
        for _ in range(5):
            page.keyboard.press("Tab")
            reached.append(page.evaluate("document.activeElement.id || document.activeElement.className"))
        assert reached[0] == "skip"
        assert "picker" in reached
        assert "thorough" in reached
        page.focus("#picker")
        with page.expect_file_chooser():
            page.keyboard.press("Space")


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
    for path in ("/", "/docs"):
        with Visit(browser, doubles, path, **options) as visit:
            if path == "/":
                visit.choose(fake(tmp_path, f"{'long-name-' * 15}.mp4", "SCORE:0.97"))
                visit.page.wait_for_selector(".job[data-verdict]")
            assert visit.page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_reference_leads_to_its_errors(browser: Any, doubles: Server) -> None:
    with Visit(browser, doubles, "/docs#error-too_short") as visit:
        assert visit.page.locator("tr:target").locator("code").text_content() == "too_short"
