"""``/v1/jobs`` and what ``/v1/score`` makes a job of."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import doubles
import pytest
from fastapi.testclient import TestClient
from sqlalchemy.exc import OperationalError
from test_main import check_problem, files_in

from app.auth import ANYBODY
from app.jobs.service import Jobs
from app.jobs.store import Finished, NewJob
from app.main import create_app
from app.routes import jobs as routes
from app.services import _caller
from app.settings import Settings
from specsem.pipeline import Options
from specsem.result import ScoredFile

FILE = {"file": ("clip.mp4", b"SCORE:0.97")}
NEW = NewJob(
    id="0" * 32, tenant="", filename="a", bytes=1, sha256="0" * 64, options=Options(), keep_media=False
)


@contextmanager
def service(
    data_dir: Path, decoder: doubles.Decoder | None = None, *, address: str = "testclient", **given: Any
) -> Iterator[TestClient]:
    settings = Settings(data_dir=data_dir, **{"shutdown_grace_s": 0} | given)
    application = create_app(settings, doubles.Engine(settings), decoder or doubles.Decoder())
    with TestClient(application, base_url="http://127.0.0.1", client=(address, 50000)) as client:
        doubles.until_ready(client)
        yield client


def ended(client: TestClient, job: Any) -> dict[str, Any]:
    ends = time.monotonic() + 30
    while (found := client.get(job.headers["Location"]).json())["status"] in {"queued", "running"}:
        assert time.monotonic() < ends, found
        time.sleep(0.02)
    return dict(found)


def stored_files(client: TestClient, settings: Settings) -> list[Path]:
    """What is kept, a moment after the last job ended: its media go right after its row says so."""
    ends = time.monotonic() + 5
    while (found := files_in(settings)) and time.monotonic() < ends:
        time.sleep(0.02)
    return found


def test_a_job_has_the_answer_of_a_score(client: TestClient, settings: Settings) -> None:
    posted = client.post("/v1/jobs", files=FILE)
    assert posted.status_code == 202
    job = posted.json()
    assert posted.headers["Location"] == job["links"]["self"] == f"/v1/jobs/{job['id']}"
    assert "Preference-Applied" not in posted.headers
    assert (job["status"], job["result"], job["error"], job["from_store"]) == ("queued", None, None, False)
    assert job["progress"] == {"stage": "queued", "fraction": 0.0, "eta_s": None}
    done = ended(client, posted)
    assert (done["status"], done["progress"]["fraction"]) == ("done", 1.0)
    ScoredFile.model_validate(done["result"])
    direct = client.post("/v1/score", files=FILE).json()
    assert done["result"] | {"timing_ms": {}} == direct | {"timing_ms": {}}
    assert done["created_at"] <= done["started_at"] <= done["finished_at"] < done["expires_at"]
    assert stored_files(client, settings) == []


def test_a_raw_body_and_a_stored_video_become_jobs(client: TestClient, settings: Settings) -> None:
    raw = client.post("/v1/jobs?filename=a.mp4&thorough=true", content=b"SCORE:0.3")
    assert (raw.status_code, raw.json()["filename"], raw.json()["thorough"]) == (202, "a.mp4", True)
    assert len(ended(client, raw)["result"]["segments"]) == 12
    form = client.post("/v1/jobs", files={"file": ("b.mp4", b"SCORE:0.4")}, data={"thorough": "on"})
    assert form.json()["thorough"]
    video = client.post("/v1/videos", files=FILE).json()["id"]
    stored = client.post("/v1/jobs", json={"video": video})
    assert client.delete(f"/v1/videos/{video}").status_code == 204
    assert ended(client, stored)["result"]["path"] == "clip.mp4"
    ended(client, form)
    assert stored_files(client, settings) == []


def test_a_bad_file_fails_with_its_code(client: TestClient) -> None:
    failed = ended(client, client.post("/v1/jobs", files={"file": b"BAD:no_video_stream"}))
    assert (failed["status"], failed["error"]["code"]) == ("failed", "no_video_stream")
    assert failed["result"] is None


def test_refusals(client: TestClient, settings: Settings) -> None:
    check_problem(client.post("/v1/jobs", json={"url": "https://example.org/a.mp4"}), 403, "url_refused")
    check_problem(client.post("/v1/jobs", json={"video": "0" * 32}), 404, "video_not_found")
    for body in ({}, {"video": "a", "url": "b"}, {"video": None}, {"thorough": True}):
        check_problem(client.post("/v1/jobs", json=body), 422, "invalid_request")
    check_problem(client.post("/v1/jobs", files={"file": b"x" * 200_000}), 413, "limits_exceeded")
    check_problem(client.post("/v1/jobs", data={"file": "x"}), 415, "unsupported_media_type")
    check_problem(client.post("/v1/jobs", files=FILE, data={"thorough": "perhaps"}), 422, "invalid_request")
    for path in ("0" * 32, "A" * 32, "x", "%00"):
        check_problem(client.get(f"/v1/jobs/{path}/events"), 404, "job_not_found")
    check_problem(client.get("/v1/jobs/" + "0" * 32), 404, "job_not_found")
    check_problem(client.delete("/v1/jobs/" + "0" * 32), 404, "job_not_found")
    for query in (
        "cursor=x",
        "cursor=%00",
        "cursor=%E4",
        "limit=0",
        "limit=101",
        "status=lost",
        "cursor=bmFuIHg",
    ):
        check_problem(client.get(f"/v1/jobs?{query}"), 422, "invalid_request")
    long_key = client.post("/v1/jobs", files=FILE, headers={"Idempotency-Key": "k" * 256})
    check_problem(long_key, 422, "invalid_request")
    assert files_in(settings) == []


def test_the_list_is_paged_and_filtered(tmp_path: Path) -> None:
    with service(tmp_path / "data", job_slots=0) as client:
        for number in range(5):
            client.post(f"/v1/jobs?filename={number}.mp4", content=f"SCORE:0.{number}".encode())
        names, cursor = [], ""
        while True:
            page = client.get(f"/v1/jobs?limit=2{cursor}").json()
            names += [job["filename"] for job in page["jobs"]]
            if page["next"] is None:
                break
            cursor = f"&cursor={page['next']}"
        assert names == ["4.mp4", "3.mp4", "2.mp4", "1.mp4", "0.mp4"]
        assert len(client.get("/v1/jobs?status=queued&status=running").json()["jobs"]) == 5
        assert client.get("/v1/jobs?status=done").json() == {"jobs": [], "next": None}


def test_the_list_leaves_results_out(client: TestClient) -> None:
    job = ended(client, client.post("/v1/jobs", files=FILE))
    assert client.get("/v1/jobs?status=done").json()["jobs"] == [job | {"result": None, "feedback": None}]


def test_deleting_removes_answer_and_media(tmp_path: Path) -> None:
    with service(tmp_path / "data", job_slots=0) as client:
        posted = client.post("/v1/jobs", files=FILE)
        settings = client.app.state.parts.settings  # type: ignore[attr-defined]
        assert [path.name for path in files_in(settings)] == ["media"]
        assert client.delete(posted.headers["Location"]).status_code == 204
        assert files_in(settings) == []
        check_problem(client.get(posted.headers["Location"]), 404, "job_not_found")


def test_deleting_cancels_what_is_under_way(client: TestClient, decoder: doubles.Decoder) -> None:
    posted = client.post("/v1/jobs", files={"file": b"SLOW:60"})
    assert decoder.started.wait(20)
    assert client.delete(posted.headers["Location"]).status_code == 204
    assert decoder.cancelled.wait(5)


def test_a_key_is_answered_with_the_same_job(client: TestClient) -> None:
    headers = {"Idempotency-Key": "mine"}
    first = client.post("/v1/jobs", files=FILE, headers=headers)
    again = client.post("/v1/jobs", files=FILE, headers=headers)
    by_score = client.post("/v1/score", files=FILE, headers=headers | {"Prefer": "respond-async"})
    assert first.json()["id"] == again.json()["id"] == by_score.json()["id"]
    other = client.post("/v1/jobs", files={"file": b"SCORE:0.1"}, headers=headers)
    check_problem(other, 422, "idempotency_key_reused")


def test_the_same_bytes_again_are_said_to_be_from_the_store(client: TestClient) -> None:
    first = ended(client, client.post("/v1/jobs", files=FILE))
    again = client.post("/v1/jobs", files={"file": ("other.mp4", FILE["file"][1])})
    assert (again.status_code, again.json()["status"], again.json()["from_store"]) == (202, "done", True)
    assert again.json()["result"] == first["result"] | {"path": "other.mp4"}
    fresh = client.post("/v1/jobs", files=FILE, headers={"Cache-Control": "no-cache"})
    assert not fresh.json()["from_store"]


def test_who_waits_is_answered_from_the_store_too(client: TestClient) -> None:
    made = client.post("/v1/score", files=FILE)
    assert "Cache-Status" not in made.headers  # an answer without a job is not kept
    first = ended(client, client.post("/v1/jobs", files=FILE))["result"]
    known = client.post("/v1/score", files={"file": ("other.mp4", FILE["file"][1])})
    assert known.headers["Cache-Status"] == "specsem; hit"
    assert known.json() == first | {"path": "other.mp4"}
    video = client.post("/v1/videos", files=FILE).json()["id"]
    assert client.post("/v1/score", json={"video": video}).headers["Cache-Status"] == "specsem; hit"
    for anew in (
        client.post("/v1/score", files=FILE, headers={"Cache-Control": "no-cache"}),
        client.post("/v1/score?evidence=true", files=FILE),
        client.post("/v1/score?stability=true", files=FILE),
    ):
        assert anew.status_code == 200
        assert "Cache-Status" not in anew.headers


def test_who_waits_is_answered_without_the_database(client: TestClient) -> None:
    ended(client, client.post("/v1/jobs", files=FILE))
    jobs: Jobs = client.app.state.parts.jobs  # type: ignore[attr-defined]

    def away(*args: object, **kwargs: object) -> None:
        raise OperationalError("select", {}, Exception("away"))

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(jobs._store, "find_alike", away)
        answer = client.post("/v1/score", files=FILE)
    assert answer.status_code == 200
    assert "Cache-Status" not in answer.headers


def test_another_tenant_sees_nothing_of_it(client: TestClient) -> None:
    mine = client.post("/v1/jobs", files=FILE, headers={"Idempotency-Key": "k"})
    ended(client, mine)
    other = replace(ANYBODY, tenant="other")
    client.app.dependency_overrides[_caller] = lambda: other  # type: ignore[attr-defined]
    location = mine.headers["Location"]
    check_problem(client.get(location), 404, "job_not_found")
    check_problem(client.get(f"{location}/events"), 404, "job_not_found")
    check_problem(client.delete(location), 404, "job_not_found")
    assert client.get("/v1/jobs").json()["jobs"] == []
    theirs = client.post("/v1/jobs", files=FILE, headers={"Idempotency-Key": "k"})
    assert theirs.headers["Location"] != location
    assert not theirs.json()["from_store"]


# -- events -------------------------------------------------------------------------------------------------


def events_of(client: TestClient, location: str) -> list[tuple[str, Any]]:
    found, name = [], ""
    with client.stream("GET", f"{location}/events") as answer:
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        for line in answer.iter_lines():
            field, _, value = line.partition(": ")
            if field == "event":
                name = value
            elif field == "data":
                found.append((name, json.loads(value)))
    return found


def test_events_tell_progress_and_then_the_end(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "LOOK_S", 0.05)
    posted = client.post("/v1/jobs", files={"file": b"SLOW:0.5 SCORE:0.97"})
    *progress, (last, job) = events_of(client, posted.headers["Location"])
    assert progress
    assert {name for name, _ in progress} == {"progress"}
    assert all(set(data["progress"]) == {"stage", "fraction", "eta_s"} for _, data in progress)
    assert (last, job["status"], job["result"]["score"]) == ("done", "done", 0.97)
    assert events_of(client, posted.headers["Location"]) == [("done", job)]
    failed = client.post("/v1/jobs", files={"file": b"BAD:encrypted"})
    assert events_of(client, failed.headers["Location"])[-1][0] == "failed"


def test_events_end_when_the_job_is_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "LOOK_S", 0.05)
    with service(tmp_path / "data", job_slots=0) as client:
        location = client.post("/v1/jobs", files=FILE).headers["Location"]
        later = threading.Timer(0.3, lambda: client.delete(location))
        later.start()
        found = events_of(client, location)
        later.join()
    assert [name for name, _ in found] == ["progress", "deleted"]


def test_what_is_over_by_the_clock_is_expired_at_once(client: TestClient) -> None:
    posted = client.post("/v1/jobs", files=FILE)
    ended(client, posted)
    store = client.app.state.parts.jobs._store  # type: ignore[attr-defined]
    row = store.find("", posted.json()["id"])
    over = replace(NEW, id="f" * 32, sha256=row.sha256)
    store.add(over, finished=Finished(result=row.result, made_by="x"), ttl_s=-1)
    found = client.get(f"/v1/jobs/{over.id}").json()
    assert (found["status"], found["progress"]["stage"], found["result"]) == ("expired", "expired", None)
    assert [job["id"] for job in client.get("/v1/jobs?status=expired").json()["jobs"]] == [over.id]
    assert events_of(client, f"/v1/jobs/{over.id}")[0][0] == "expired"


# -- /v1/score ----------------------------------------------------------------------------------------------


def test_a_score_becomes_a_job_where_that_is_preferred(client: TestClient) -> None:
    for preference in ("respond-async", "Respond-Async, wait=5", "handling=lenient, respond-async;x=1"):
        answer = client.post("/v1/score?thorough=1", files=FILE, headers={"Prefer": preference})
        assert (answer.status_code, answer.headers["Preference-Applied"]) == (202, "respond-async")
        assert len(ended(client, answer)["result"]["segments"]) == 12
    twice = client.post(
        "/v1/score", files=FILE, headers=[("Prefer", "return=minimal"), ("Prefer", "respond-async")]
    )
    assert twice.status_code == 202
    for preference in ("wait", "wait=10", "return=minimal", ""):
        answer = client.post("/v1/score", files=FILE, headers={"Prefer": preference})
        assert (answer.status_code, "Preference-Applied" in answer.headers) == (200, False)
    video = client.post("/v1/videos", files=FILE).json()["id"]
    answer = client.post("/v1/score", json={"video": video}, headers={"Prefer": "respond-async"})
    assert answer.status_code == 202
    assert ended(client, answer)["status"] == "done"


def test_a_long_video_becomes_a_job_by_itself(tmp_path: Path) -> None:
    long = b"SCORE:0.97" + b" " * 40_000  # the stand-in for a decoder says 4 s of any file
    with service(tmp_path / "data", long_video_s=3.0) as client:
        answer = client.post("/v1/score", files={"file": long})
        assert (answer.status_code, "Preference-Applied" in answer.headers) == (202, False)
        assert ended(client, answer)["result"]["score"] == 0.97
        assert client.post("/v1/score", files={"file": long}, headers={"Prefer": "wait"}).status_code == 200
        assert client.post("/v1/score", files={"file": b"SCORE:0.97"}).status_code == 200  # too few bytes
        bad = b"BAD:encrypted" + b" " * 40_000
        check_problem(client.post("/v1/score", files={"file": bad}), 422, "encrypted")
        video = client.post("/v1/videos", files=FILE).json()["id"]
        assert client.post("/v1/score", json={"video": video}).status_code == 202
        waits = client.post("/v1/score", json={"video": video}, headers={"Prefer": "wait"})
        assert waits.status_code == 200
    with service(tmp_path / "more", long_video_s=4.0) as client:
        assert client.post("/v1/score", files={"file": long}).status_code == 200


def test_jobs_are_taken_before_the_model_is_loaded(settings: Settings) -> None:
    engine = doubles.Engine(settings)
    engine.may_load.clear()
    with TestClient(create_app(settings, engine, doubles.Decoder()), base_url="http://127.0.0.1") as client:
        posted = client.post("/v1/score", files=FILE, headers={"Prefer": "respond-async"})
        assert posted.status_code == 202
        time.sleep(0.1)
        assert client.get(posted.headers["Location"]).json()["status"] == "queued"
        engine.may_load.set()
        assert ended(client, posted)["status"] == "done"


def test_media_of_jobs_count_for_the_store(tmp_path: Path) -> None:
    with service(tmp_path / "data", job_slots=0, max_stored_bytes=700) as client:
        assert client.post("/v1/jobs", content=b"x" * 500).status_code == 202
        check_problem(client.post("/v1/jobs", content=b"x" * 500), 503, "storage_full")
        check_problem(client.post("/v1/videos", content=b"x" * 500), 503, "storage_full")


def test_the_description_says_what_may_be_sent(client: TestClient) -> None:
    schema = client.get("/openapi.json").json()
    for path in ("/v1/score", "/v1/jobs"):
        described = schema["paths"][path]["post"]
        assert {"prefer", "Idempotency-Key"} <= {found["name"] for found in described["parameters"]}
        accepted = described["responses"]["202"]["content"]["application/json"]["schema"]
        assert accepted["$ref"].endswith("/Job")
        assert (
            "thorough" in described["requestBody"]["content"]["multipart/form-data"]["schema"]["properties"]
        )
    assert (
        "text/event-stream"
        in schema["paths"]["/v1/jobs/{job_id}/events"]["get"]["responses"]["200"]["content"]
    )


def test_jobs_survive_a_restart(tmp_path: Path) -> None:
    with service(tmp_path / "data", job_slots=0) as client:
        posted = client.post("/v1/jobs", files=FILE)
    with service(tmp_path / "data") as client:
        assert ended(client, posted)["result"]["score"] == 0.97


@pytest.fixture
def artist() -> None:
    """Who draws brings torch, which takes its time; a real engine has brought it before."""
    import specsem.views  # noqa: F401


@pytest.mark.usefixtures("artist")
def test_a_job_keeps_the_pictures_of_its_evidence(client: TestClient, settings: Settings) -> None:
    done = ended(client, client.post("/v1/jobs?evidence=true", content=b"SCORE:0.95"))
    assert (done["evidence"], done["stability"]) == (True, False)
    result = done["result"]
    views = result["evidence"]["views"]
    assert [view["kind"] for view in views[:3]] == ["frame", "residual", "spectrum"]
    assert result["attribution"]["family"] == "double"
    assert result["evidence"]["gate"] == [0.5, 0.5]
    for view in views:
        answer = client.get(f"{done['links']['views']}{view['name']}.png")
        assert (answer.status_code, answer.headers["Content-Type"]) == (200, "image/png")
        assert answer.content.startswith(b"\x89PNG")
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Content-Disposition"].startswith("inline; filename=")
    address = f"{done['links']['views']}{views[0]['name']}.png"
    for other in ("9-frame", "0-nothing"):
        check_problem(client.get(f"{done['links']['views']}{other}.png"), 404, "view_not_found")
    check_problem(client.get(f"{done['links']['views']}..%5C..%5Cmedia.png"), 422, "invalid_request")
    check_problem(client.get(address.replace(done["id"], "f" * 32)), 404, "job_not_found")

    again = ended(client, client.post("/v1/jobs?evidence=true", content=b"SCORE:0.95"))
    assert again["from_store"]
    client.delete(done["links"]["self"])
    check_problem(client.get(address), 404, "job_not_found")
    assert client.get(address.replace(done["id"], again["id"])).status_code == 200  # its own name for them
    client.delete(again["links"]["self"])
    assert list((settings.data_dir / "jobs").iterdir()) == []


@pytest.mark.usefixtures("artist")
def test_a_picture_is_its_tenant_s(client: TestClient) -> None:
    done = ended(client, client.post("/v1/jobs?evidence=true", content=b"SCORE:0.9"))
    address = f"{done['links']['views']}{done['result']['evidence']['views'][0]['name']}.png"
    another = replace(ANYBODY, tenant="another")
    client.app.dependency_overrides[_caller] = lambda: another  # type: ignore[attr-defined]
    check_problem(client.get(address), 404, "job_not_found")


def test_options_are_part_of_an_answer_s_identity(client: TestClient) -> None:
    plain = ended(client, client.post("/v1/jobs", content=b"SCORE:0.95 FLIP:0.01"))
    assert (plain["result"]["verdict"], plain["result"]["stability"]) == ("generated", None)
    tried = ended(client, client.post("/v1/jobs?stability=true", content=b"SCORE:0.95 FLIP:0.01"))
    assert not tried["from_store"]
    assert (tried["result"]["verdict"], tried["result"]["reasons"]) == ("inconclusive", ["unstable"])
    assert len(tried["result"]["stability"]["tried"]) == 5
    assert {"decode", "provenance", "forward", "stability", "total"} == set(tried["result"]["timing_ms"])
    key = {"Idempotency-Key": "k"}
    assert client.post("/v1/jobs", content=b"SCORE:0.9", headers=key).status_code == 202
    taken = client.post("/v1/jobs?evidence=1", content=b"SCORE:0.9", headers=key)
    check_problem(taken, 422, "idempotency_key_reused")


@pytest.mark.parametrize("thorough", [False, True])
def test_a_direct_answer_has_evidence_without_pictures(client: TestClient, thorough: bool) -> None:
    flags = {"evidence": "on", "stability": "true", "thorough": str(thorough).lower()}
    answer = client.post("/v1/score", files={"file": ("a.mp4", b"SCORE:0.95 FLIP:0.91")}, data=flags).json()
    assert answer["evidence"]["views"] == []
    assert len(answer["evidence"]["shares"]) == len(answer["segments"]) == (12 if thorough else 2)
    assert answer["stability"]["stable"]
    assert answer["stability"]["spread"] == pytest.approx(0.04)
    assert answer["verdict"] == "generated"
    stored = client.post("/v1/videos", files={"file": ("a.mp4", b"SCORE:0.95")}).json()
    named = client.post("/v1/score", json={"video": stored["id"], "evidence": True}).json()
    assert (named["evidence"]["peak"], named["stability"]) == (0, None)
    check_problem(client.post("/v1/score?evidence=perhaps", content=b"a"), 422, "invalid_request")
