"""Reports of jobs: what is in them, who gets them, and that a changed byte is found."""

import io
import json
import random
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import doubles
import pytest
from fastapi.testclient import TestClient
from joserfc.jwk import OKPKey
from PIL import Image
from test_auth import bearer
from test_jobs_routes import NEW, ended, service
from test_main import check_problem
from typer.testing import CliRunner

from app.audit import check
from app.jobs.service import Jobs
from app.jobs.store import Finished
from app.jobs.table import JobRow
from app.keys import open_keys
from app.reports import document, html, pdf
from app.reports.document import Picture, Report, compose
from app.reports.layout import lay_out
from app.reports.sealing import open_sealed, seal
from app.reports.verifying import verify
from app.settings import Settings
from app.signing import SignatureRefused, Signer
from specsem import cli
from specsem.errors import FileUnusable
from specsem.registry import get_model
from specsem.result import ScoredFile

FORMATS = ("json", "html", "pdf")
NASTY = '<script>alert(1)</script>\u202egpj.\u0000\x1b[31m你好\ufdd0\n%PDF {"$schema":'
THEN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SIGNER = Signer(OKPKey.generate_key("Ed25519"))


@pytest.fixture
def served(tmp_path: Path) -> Iterator[TestClient]:
    with service(tmp_path / "data") as client:
        yield client


def done(client: TestClient, content: bytes = b"SCORE:0.97") -> str:
    job = ended(client, client.post("/v1/jobs", files={"file": ("clip.mp4", content)}))
    assert job["status"] == "done"
    return str(job["id"])


def reports(client: TestClient, job: str, folder: Path) -> dict[str, Path]:
    """One of each format, as files."""
    found = {}
    for rendering in FORMATS:
        answer = client.get(f"/v1/jobs/{job}/report", params={"format": rendering})
        assert answer.status_code == 200, answer.text
        found[rendering] = folder / f"report.{rendering}"
        found[rendering].write_bytes(answer.content)
    return found


def segment(start_s: float, score: float) -> dict[str, float]:
    return {"start_s": start_s, "end_s": start_s + 0.5, "score": score}


def png(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (width, height), 90).save(buffer, "PNG")
    return buffer.getvalue()


PICTURES = {"0-frame": png(160, 90), "0-gate": png(14, 14)}


def full(name: str = NASTY) -> Report:
    """A report with every section filled, where the file has its say in many places."""
    model = get_model()
    result = {
        "path": name,
        "sha256": "5" * 64,
        "verdict": "inconclusive",
        "score": 0.5,
        "logit": 0.1,
        "threshold": {"value": 0.9, "lower": 0.1, "max_fpr": 0.01, "fpr_upper95": 0.02, "calibration_n": 284},
        "reasons": ["unstable"],
        "segments": [segment(0.0, 0.2), segment(1.0, 0.95)],
        "coverage": {"analysed_s": 1.0, "duration_s": 4.0, "fraction": 0.25},
        "media": {
            "container": "mp4",
            "codec": "h264",
            "width": 640,
            "height": 360,
            "fps": None,
            "duration_s": 4.0,
            "frames_scored": 16,
        },
        "provenance": {
            "c2pa": {"status": "valid", "signer": name, "claim_generator": name, "says_generated": True},
            "trail": {"muxer": name, "encoder": name, "trailing_bytes": 7},
        },
        "findings": [{"code": "peak", "text": "One window stands out.", "figures": {"score": 0.95}}],
        "evidence": {
            "peak": 1,
            "highest": {"pts_s": 1.2, "score": 0.95},
            "lowest": {"pts_s": 0.2, "score": 0.2},
            "shares": [{"spectral": 0.1, "semantic": -0.2}, {"spectral": 1.5, "semantic": 2.5}],
            "views": [
                {
                    "name": view,
                    "kind": view.partition("-")[2],
                    "segment": 0,
                    "pts_s": 0.2,
                    "width": 160,
                    "height": 90,
                    "caption": "What was looked at.",
                }
                for view in (*PICTURES, "0-residual")
            ],
        },
        "stability": {
            "stable": False,
            "spread": 0.6,
            "tried": [{"name": "flip", "score": 0.05, "verdict": "authentic"}],
        },
        "attribution": {
            "family": "unknown",
            "probability": 0.4,
            "candidates": [{"name": "wan", "probability": 0.3}],
            "basis": "Right in 41 of 100 unseen clips.",
        },
        "model": {"name": model.name, "version": model.version, "sha256": model.sha256},
        "timing_ms": {"total": 12.5},
        "warnings": ["hdr"],
    }
    job = JobRow(
        id="0" * 32,
        filename=name,
        bytes=1234,
        sha256="5" * 64,
        url=None,
        thorough=False,
        from_store=False,
        created_at=1.5,
        finished_at=2.5,
    )
    pictures = [
        Picture(name=view, bytes=len(data), sha256=sha256(data).hexdigest())
        for view, data in PICTURES.items()
    ]
    answer = ScoredFile.model_validate(result)
    return compose(job, answer, pictures, issued_at=THEN, commit=None)


def rendered(report: Report, rendering: Any, signer: Signer = SIGNER) -> bytes:
    page = lay_out(report, PICTURES, signer.kid)

    def render(data: bytes) -> bytes:
        return html.render(page, data) if rendering == "html" else pdf.render(page, data, report.issued_at)

    return seal(report.content(), signer, rendering, render)


# -- over HTTP ----------------------------------------------------------------------------------------------


def test_a_report_comes_in_three_formats_that_hold(served: TestClient, tmp_path: Path) -> None:
    job = done(served)
    keys = served.get("/.well-known/specsem-keys.json")
    assert keys.status_code == 200
    (tmp_path / "keys.json").write_bytes(keys.content)
    kinds = {"json": "application/json", "html": "text/html; charset=utf-8", "pdf": "application/pdf"}
    for rendering, path in reports(served, job, tmp_path).items():
        answer = served.get(f"/v1/jobs/{job}/report", params={"format": rendering})
        assert answer.headers["Content-Type"] == kinds[rendering]
        assert answer.headers["Content-Disposition"].startswith("attachment;")
        found = verify(path, keys=str(tmp_path / "keys.json"))
        assert (found.format, found.trusted, found.job) == (rendering, True, job)
        assert (found.verdict, found.score, found.sha256) == (
            "generated",
            0.97,
            sha256(b"SCORE:0.97").hexdigest(),
        )
        assert verify(path, keys=found.kid).trusted
        assert not verify(path).trusted
        with pytest.raises(SignatureRefused, match="none of yours"):
            verify(path, keys="A" * 43)


def test_a_report_says_what_the_job_says_and_what_it_lacks(served: TestClient) -> None:
    job = done(served)
    told = served.get(f"/v1/jobs/{job}/report").json()
    answer = served.get(f"/v1/jobs/{job}").json()
    assert answer["links"]["report"] == f"/v1/jobs/{job}/report"
    assert told["result"] == ScoredFile.model_validate(answer["result"]).model_dump(mode="json")
    assert told["job"]["sha256"] == answer["sha256"]
    assert told["model_card"] is None  # the stand-in was never judged
    assert {gap["about"] for gap in told["gaps"]} >= {
        "coverage",
        "evidence",
        "stability",
        "attribution",
        "card",
    }
    assert len(told["limits"]) >= 5


@pytest.mark.parametrize(
    ("verdict", "asked", "told"),
    [
        ("authentic", True, "only where the verdict is"),
        ("generated", True, "not asked"),
        ("authentic", False, "not asked"),
    ],
)
def test_why_no_family_of_generators_is_named(verdict: Any, asked: bool, told: str) -> None:
    result = full().result.model_copy(update={"verdict": verdict, "attribution": None})
    if not asked:
        result = result.model_copy(update={"evidence": None})
    (gap,) = [gap for gap in document._gaps(result, [], None) if gap.about == "attribution"]
    assert told in gap.text


def test_what_has_no_answer_has_no_report(tmp_path: Path) -> None:
    with service(tmp_path, job_slots=0) as client:
        waiting = client.post("/v1/jobs", files={"file": ("a.mp4", b"a")}).json()["id"]
        check_problem(client.get(f"/v1/jobs/{waiting}/report"), 409, "report_unavailable")
        check_problem(client.get(f"/v1/jobs/{'0' * 32}/report"), 404, "job_not_found")
        check_problem(client.get(f"/v1/jobs/{waiting}/report?format=docx"), 422, "invalid_request")
        jobs: Jobs = client.app.state.parts.jobs  # type: ignore[attr-defined]
        for number, (finished, ttl_s, status) in enumerate(
            [
                (Finished(error_code="undecodable", error_message="No."), 60.0, 409),
                (Finished(result="{}", made_by="another version"), 60.0, 409),
                (Finished(result="{}", made_by="x"), -1.0, 410),
            ]
        ):
            new = replace(NEW, id=str(number) * 32)
            jobs._store.add(new, finished=finished, ttl_s=ttl_s)
            check_problem(client.get(f"/v1/jobs/{new.id}/report"), status, "report_unavailable")


def test_a_report_is_its_tenant_s_and_is_noted_in_the_trail(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with open_keys(Settings(data_dir=data)) as store:
        mine, row = store.create(tenant="acme")
        theirs, _ = store.create(tenant="other")
    with service(data) as client:
        check_problem(client.get(f"/v1/jobs/{'0' * 32}/report"), 401, "unauthorized")
        assert client.get("/.well-known/specsem-keys.json").status_code == 200  # without any key
        client.headers.update(bearer(mine))
        job = done(client)
        answer = client.get(f"/v1/jobs/{job}/report")
        check_problem(client.get(f"/v1/jobs/{job}/report", headers=bearer(theirs)), 404, "job_not_found")
        client.delete(f"/v1/jobs/{job}")
        trail = client.app.state.parts.jobs.trail  # type: ignore[attr-defined]
        told = [json.loads(link.entry) for link in trail.links()]
        check(trail.links())
    issued = next(entry for entry in told if entry["event"] == "report_issued")
    assert (issued["tenant"], issued["key"], issued["job"]) == ("acme", row.prefix, job)
    assert issued["details"]["sha256"] == sha256(answer.content).hexdigest()
    life = [(entry["event"], entry["key"]) for entry in told if entry["job"] == job]
    assert life == [
        ("job_submitted", row.prefix),
        ("job_scored", ""),
        ("report_issued", row.prefix),
        ("job_deleted", row.prefix),
    ]
    started = next(entry for entry in told if entry["event"] == "service_started")
    assert started["details"]["threshold"] == doubles.THRESHOLD.model_dump()


# -- the file -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rendering", FORMATS)
def test_the_same_input_gives_the_same_bytes(rendering: str) -> None:
    assert rendered(full(), rendering) == rendered(full(), rendering)


@pytest.mark.parametrize("rendering", FORMATS)
def test_a_changed_byte_is_found_wherever_it_is(rendering: str) -> None:
    file = bytearray(rendered(full(), rendering))
    assert open_sealed(bytes(file))[1] == SIGNER.kid
    dice = random.Random(7)
    edges = [*range(30), *range(len(file) - 60, len(file))]
    for place in [*edges, *dice.sample(range(len(file)), 400)]:
        before = file[place]
        file[place] ^= 1 << dice.randrange(8)
        with pytest.raises(SignatureRefused):
            open_sealed(bytes(file))
        file[place] = before
    for other in (bytes(file[:-1]), bytes(file) + b"\n", b" " + bytes(file), b"", bytes(file) * 2):
        with pytest.raises(SignatureRefused):
            open_sealed(other)


@pytest.mark.parametrize("rendering", ["html", "pdf"])
def test_what_is_shown_is_bound_to_what_was_signed(rendering: str) -> None:
    """Well signed data in another report's clothes: what people see is not what the signature is of."""
    honest, flattering = full("a.mp4"), full("b.mp4")
    page = lay_out(flattering, PICTURES, SIGNER.kid)
    data = rendered(honest, "json")
    for carried in (data, rendered(flattering, "json")):
        dressed = (
            html.render(page, carried)
            if rendering == "html"
            else pdf.render(page, carried, flattering.issued_at)
        )
        with pytest.raises(SignatureRefused, match="belongs to other data"):
            open_sealed(dressed)


def test_data_that_are_no_report_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    for content in (
        b"{}",
        b'{"a":NaN}',
        b"[" * 5000,
        b"{" + b'"a":{' * 5000,
        b'{"signature":1}',
        b'{"a":1e999}',
        b"\xff",
    ):
        path.write_bytes(content)
        with pytest.raises(SignatureRefused):
            verify(path)
    path.write_bytes(seal({"$schema": "urn:other"}, SIGNER, "json", lambda data: data))
    with pytest.raises(SignatureRefused, match="no report as this version knows"):
        verify(path)
    with pytest.raises(FileUnusable):
        verify(tmp_path / "nothing")


def test_html_shows_foreign_text_as_text() -> None:
    text = rendered(full(), "html").decode()
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;\\u202egpj.\\x00\\x1b[31m你好" in text
    visible = re.sub(r'href="[^"]*"', "", text)
    assert not [char for char in visible if not char.isprintable() and char != "\n"]
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    assert policy
    assert "script-src" not in policy[1]
    assert "default-src &#39;none&#39;" in policy[1]
    assert re.findall(r'(?:src|href)="(\w+:)', text) == ["data:"] * 3
    for words in (
        "Between the lowest",
        "unknown (probability 0.40)",
        "mirrored",
        "but signed by somebody",
        "AUC",
    ):
        assert words in text
    assert "1 of 2 windows of the time line reach 0.90" in text


def test_pdf_holds_the_signed_data_as_an_attachment() -> None:
    file = rendered(full(), "pdf")
    assert file.count(b"/Type /EmbeddedFile") == 1
    assert b"/JavaScript" not in file
    assert file.count(b"\nendstream") > 5


def test_sections_without_data_say_so() -> None:
    bare = full("a.mp4")
    result = bare.result.model_copy(update={"evidence": None, "stability": None, "attribution": None})
    text = rendered(bare.model_copy(update={"result": result}), "html").decode()
    assert "It was not asked for." in text
    assert "It was not tried." in text


# -- the command line ---------------------------------------------------------------------------------------


def test_the_command_line_checks_reports(tmp_path: Path) -> None:
    video, report, damaged = tmp_path / "a.mp4", tmp_path / "r.pdf", tmp_path / "damaged.pdf"
    video.write_bytes(b"another")
    content = rendered(full("a.mp4"), "pdf")
    report.write_bytes(content)
    damaged.write_bytes(content.replace(b"%%EOF", b"%%EOG"))

    def run(*args: object) -> tuple[int, str]:
        ran = CliRunner().invoke(cli.app, ["verify", *map(str, args)])
        return ran.exit_code, ran.output

    status, told = run(report)
    assert status == 0
    assert "whose owner is not known" in told
    assert "Anybody can make a key" in told
    status, told = run(report, "--keys", SIGNER.kid)
    assert status == 0
    assert "a key that you trust" in told
    status, told = run(report, "--keys", SIGNER.kid, "--json")
    assert json.loads(told)["trusted"] is True
    for refused in ((damaged,), (report, "--keys", "A" * 43), (report, "--video", video)):
        status, told = run(*refused)
        assert status == 1
        assert "signature_refused" in told
