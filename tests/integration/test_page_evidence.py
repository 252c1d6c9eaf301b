"""What the page shows of an answer that has everything in it, and what it makes of a prevalence."""

from pathlib import Path
from typing import Any

from browsing import NEEDS_BROWSER, Visit, fake
from full_answer import KINDS, put_in_place
from serving import DOUBLES, Server, serving

KEY = "0123456789abcdef0123456789abcdef"
MEASURED = {
    "n_generated": 359,
    "n_real": 284,
    "generated_called_generated": 0.5,
    "generated_called_generated95": [0.25, 0.75],
    "camera_called_generated": 0.02,
    "generated_called_authentic": 0.1,
    "camera_called_authentic": 0.4,
    "calibration_error": 0.06,
}

pytestmark = NEEDS_BROWSER


def test_all_that_is_known_is_shown(browser: Any, tmp_path: Path) -> None:
    with serving(DOUBLES, tmp_path / "data", api_keys=KEY) as server:
        server.wait_ready()
        with Visit(browser, server) as visit:
            page = visit.page
            asked = put_in_place(page)
            page.fill("#key", KEY)
            visit.choose(fake(tmp_path, "a.mp4", "SCORE:0.97"))
            card = page.locator(".job[data-verdict=generated]")
            card.wait_for()
            visit.until("[...document.images].every(image => image.complete && image.naturalWidth)")
            assert card.locator(".reasons li").all_text_contents() == ["It scores 0.97, above 0.90."]
            assert card.locator(".range").text_content().startswith("0.82 to 0.97 over 2 other ways")
            assert card.locator(".strip figure").count() == 2
            assert card.locator(".views img").count() == 2 * (len(KINDS) - 1)
            windows = card.locator(".windows")
            assert "Highest window, 0:02.0 to 0:02.3: score 0.97" in windows.text_content()
            assert "+2.00 comes from the spectrum and +0.50 from the content" in windows.text_content()
            assert "−0.25 from the content" in windows.text_content()
            assert "80% of the spectral evidence" in windows.text_content()
            assert card.get_by_alt_text("What gate shows.").count() == 2
            assert "holds in 2 other ways" in card.locator(".steady").text_content()
            assert (
                card.locator(".stability tbody tr").all_text_contents()[2] == "encoded again0.82Inconclusive"
            )
            assert (
                "Most like wan, with a probability of 0.62. Next: sora 0.20."
                in card.locator(".family").text_content()
            )
            assert "41 of 80" in card.locator(".basis").text_content()
            origin = card.locator(".provenance")
            assert "Signed, by somebody unknown here" in origin.locator(".badge").text_content()
            assert "A Camera Maker" in origin.text_content()
            assert "made by a trained model" in origin.text_content()

            with page.expect_download() as download:
                card.get_by_role("button", name="PDF").click()
            assert download.value.suggested_filename == "a.mp4.report.pdf"
            assert Path(download.value.path()).read_bytes() == b"%PDF-1.7"
            assert len(asked) == 2 * len(KINDS) + 1
            assert {request.headers["authorization"] for request in asked} == {f"Bearer {KEY}"}


def test_a_report_that_is_refused_is_said(browser: Any, doubles: Server, tmp_path: Path) -> None:
    with Visit(browser, doubles) as visit:
        page = visit.page
        problem = {"code": "job_not_found", "title": "No such job", "detail": "It may have been deleted."}
        page.route("**/report?*", lambda route: route.fulfill(status=404, json=problem))
        visit.choose(fake(tmp_path, "a.mp4", "SCORE:0.97"))
        page.get_by_role("button", name="HTML").click()
        page.locator(".actions .said", has_text="No such job. It may have been deleted.").wait_for()


def test_a_prevalence_becomes_a_chance(browser: Any, doubles: Server, tmp_path: Path) -> None:
    with Visit(browser, doubles) as visit:
        page = visit.page

        def policies(route: Any) -> None:
            response = route.fetch()
            found = response.json()
            found["policies"][0]["measured"] = MEASURED
            route.fulfill(response=response, json=found)

        page.route("**/v1/policies", policies)
        visit.choose(fake(tmp_path, "a.mp4", "SCORE:0.97"))
        odds = page.locator(".job[data-verdict=generated] .odds")
        odds.locator(".posterior", has_text="with a chance of 0.97").wait_for()
        assert "off by 0.06 on average" in odds.locator(".posterior").text_content()
        odds.get_by_label("Of 100 such videos").fill("1")
        # 0.97 * 0.01 / (0.97 * 0.01 + 0.03 * 0.99)
        assert "Where 1 in 100" in odds.locator(".posterior").text_content()
        assert "with a chance of 0.25" in odds.locator(".posterior").text_content()
        # 0.5 * 0.01 / (0.5 * 0.01 + 0.02 * 0.99), and with 0.25 and 0.06
        assert "about 20 are, and 4 if both rates" in odds.locator(".predictive").text_content()
        odds.get_by_label("Of 100 such videos").fill("100")
        assert odds.locator(".posterior").text_content() == "A number between 0.01 and 99.99."

        visit.choose(fake(tmp_path, "b.mp4", "SCORE:0.03"))
        odds = page.locator(".job[data-verdict=authentic] .odds")
        odds.get_by_label("Of 100 such videos").fill("10")
        # 0.4 * 0.9 / (0.4 * 0.9 + 0.1 * 0.1)
        odds.locator(".predictive", has_text="called authentic, about 97 are").wait_for()


def test_what_was_never_measured_is_said(browser: Any, doubles: Server, tmp_path: Path) -> None:
    with Visit(browser, doubles) as visit:
        visit.choose(fake(tmp_path, "a.mp4", "SCORE:0.97"))
        visit.page.locator(".posterior", has_text="never measured").wait_for()
        assert visit.page.locator(".predictive").text_content() == ""
        for name in ("evidence", "stability", "attribution"):
            assert visit.page.locator(f".{name}").is_hidden()
