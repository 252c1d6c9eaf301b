"""The pictures of the page in docs/, made anew: ``make screenshots``.

The service as it ships, Debian's Chromium, and a clip that ``specsem.synthetic`` draws: nobody's video.
"""

import io
import tempfile
from pathlib import Path
from typing import Any

import httpx
from browsing import PHONE, Visit, chromium
from PIL import Image
from serving import SERVICE, Server, serving

from specsem.synthetic import write_clip

DOCS = Path(__file__).parent.parent.parent / "docs"
DESKTOP: dict[str, Any] = {"viewport": {"width": 1100, "height": 900}}
PICTURES: dict[str, dict[str, Any]] = {
    "page": DESKTOP,
    "page-dark": DESKTOP | {"color_scheme": "dark"},
    "page-phone": PHONE | {"device_scale_factor": 1},
}
CLIPS = ("market.mp4", "harbour.mp4", "stairs.mp4")
"""What they are called; each is drawn from another seed."""
SCORING_MS = 300_000
"""On a busy machine."""


def main() -> None:
    """Take them all."""
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(SERVICE, Path(folder) / "data") as server,
        chromium() as browser,
    ):
        server.wait_ready(timeout_s=SCORING_MS / 1000)
        for seed, (clip, (name, options)) in enumerate(zip(CLIPS, PICTURES.items(), strict=True)):
            write_clip(path := Path(folder) / clip, seed=seed)
            with Visit(browser, server, reduced_motion="reduce", **options) as visit:
                page = visit.page
                page.wait_for_selector("#status[data-state=ready]")
                visit.choose(path)
                page.wait_for_selector(".job[data-verdict]", timeout=SCORING_MS)
                page.locator(".posterior", has_text="with a chance of").wait_for()
                page.locator("video").scroll_into_view_if_needed()
                visit.until("document.querySelector('video').readyState >= 2")
                take(visit, name)
                job = page.locator(".job").get_attribute("data-id")
        note = {"verdict": "unsure", "note": "The reflections on the water look wrong to me."}
        httpx.post(f"{server.url}/v1/jobs/{job}/feedback", json=note).raise_for_status()
        review(browser, server)


def review(browser: Any, server: Server) -> None:
    """The queue, with the answers of before in it."""
    with Visit(browser, server, "/review", reduced_motion="reduce", **DESKTOP) as visit:
        visit.page.locator("#current").wait_for()
        visit.page.keyboard.press("o")
        visit.page.locator("#answer .posterior", has_text="with a chance of").wait_for()
        take(visit, "review")


def take(visit: Visit, name: str) -> None:
    """All of the page, as a file of docs/, in 256 colours: a third of the bytes."""
    visit.until("[...document.images].every(image => image.complete)")
    visit.until("[...document.querySelectorAll('.chart')].every(chart => globalThis.Chart?.getChart(chart))")
    path = DOCS / f"{name}.png"
    taken = Image.open(io.BytesIO(visit.page.screenshot(full_page=True))).convert("RGB")
    taken.quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"docs/{path.name}: {path.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main()
