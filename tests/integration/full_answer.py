"""An answer with everything in it, put in place of what a server says: what the page makes of each record."""

import io
from typing import Any

from PIL import Image

from specsem.result import (
    ActionThreshold,
    Attribution,
    C2pa,
    Decision,
    Evidence,
    Family,
    Finding,
    Moment,
    Provenance,
    Reshipping,
    Share,
    Stability,
    Trail,
    View,
)

KINDS = ("frame", "residual", "spectrum", "reference_spectrum", "gate")


def _view(segment: int, kind: Any) -> View:
    return View(
        name=f"{segment}-{kind}",
        kind=kind,
        segment=segment,
        pts_s=2.0 * segment,
        width=160,
        height=90,
        caption=f"What {kind} shows.",
    )


EXTRAS: dict[str, Any] = {
    "findings": [
        Finding(code="score_above_threshold", text="It scores 0.97, above 0.90.", figures={"score": 0.97})
    ],
    "evidence": Evidence(
        peak=1,
        highest=Moment(pts_s=2.1, score=0.97),
        lowest=Moment(pts_s=0.1, score=0.96),
        shares=[Share(spectral=1.5, semantic=-0.25), Share(spectral=2.0, semantic=0.5)],
        gate=[0.4, 0.8],
        views=[_view(segment, kind) for segment in (0, 1) for kind in KINDS],
    ),
    "stability": Stability(
        stable=True,
        spread=0.15,
        tried=[
            Reshipping(name="half_size", score=0.91, verdict="generated"),
            Reshipping(name="reencode", score=0.82, verdict="inconclusive"),
        ],
    ),
    "decision": Decision(
        action="review",
        policy="moderation",
        version=3,
        rule="high-score",
        threshold=ActionThreshold(value=0.9, max_fpr=0.03, fpr_upper95=0.022, calibration_n=284),
        reasons=[Finding(code="score_at_rate", text="Few camera clips reach 0.90.", figures={"score": 0.97})],
        surface="ads",
    ),
    "attribution": Attribution(
        family="wan",
        probability=0.62,
        candidates=[Family(name="wan", probability=0.62), Family(name="sora", probability=0.2)],
        basis="Right for 41 of 80 unseen clips.",
    ),
    "provenance": Provenance(
        c2pa=C2pa(
            status="valid", detail="Signed by nobody known.", signer="A Camera Maker", says_generated=True
        ),
        trail=Trail(muxer="Lavf", tracks=["video h264", "audio aac"], trailing_bytes=12),
    ),
}


def full(result: dict[str, Any]) -> dict[str, Any]:
    """The answer of a stand-in with all that it lacks."""
    extras = {
        name: [finding.model_dump() for finding in value]
        if name == "findings"
        else value.model_dump(mode="json")
        for name, value in EXTRAS.items()
    }
    return result | extras


def picture() -> bytes:
    """Some PNG."""
    file = io.BytesIO()
    Image.linear_gradient("L").resize((160, 90)).save(file, "png")
    return file.getvalue()


def put_in_place(page: Any) -> list[Any]:
    """Give this page full answers and pictures. The requests for pictures and reports, as they come."""
    asked = []

    def answer(route: Any) -> None:
        response = route.fetch()
        job = response.json()
        if response.ok and job.get("result"):
            job["result"] = full(job["result"])
        route.fulfill(response=response, json=job)

    def view(route: Any) -> None:
        asked.append(route.request)
        route.fulfill(body=picture(), content_type="image/png")

    def report(route: Any) -> None:
        asked.append(route.request)
        route.fulfill(body=b"%PDF-1.7", content_type="application/pdf")

    page.route("**/v1/jobs/*", answer)
    page.route("**/views/*.png", view)
    page.route("**/report?*", report)
    return asked
