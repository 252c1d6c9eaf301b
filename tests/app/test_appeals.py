"""Second looks, and statements of reasons."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient
from test_auth import Make, make  # noqa: F401 - a fixture
from test_jobs_routes import ended, service
from test_main import check_problem

CLIP = "SCORE:0.97"


def submit(client: TestClient, content: str = CLIP, query: str = "", **more: Any) -> str:
    return str(ended(client, client.post(f"/v1/jobs{query}", content=content, **more))["id"])


def test_an_appeal_looks_at_all_of_it_and_the_two_know_of_each_other(client: TestClient) -> None:
    first = submit(client)
    posted = client.post(f"/v1/jobs/{first}/appeal", content=CLIP)
    assert posted.status_code == 202
    second = ended(client, posted)
    assert (second["thorough"], second["from_store"], second["stability"]) == (True, False, False)
    assert second["links"]["appeal_of"] == f"/v1/jobs/{first}"
    found = client.get(f"/v1/jobs/{first}").json()
    assert found["links"]["appeal"] == f"/v1/jobs/{second['id']}"
    assert found["links"]["appeal_of"] is None
    again = client.post(f"/v1/jobs/{first}/appeal", content=CLIP)
    assert again.json()["id"] == second["id"]
    refused = client.post(f"/v1/jobs/{second['id']}/appeal", content=CLIP)
    check_problem(refused, 409, "appeal_refused")


def test_what_was_looked_at_as_a_whole_is_tried_by_deliveries_next(client: TestClient) -> None:
    first = submit(client, query="?thorough=true")
    assert ended(client, client.post(f"/v1/jobs/{first}/appeal", content=CLIP))["stability"] is True
    all_of_it = submit(client, "SCORE:0.96", query="?thorough=true&stability=true")
    refused = client.post(f"/v1/jobs/{all_of_it}/appeal", content="SCORE:0.96")
    check_problem(refused, 409, "appeal_refused")


def test_an_appeal_is_about_the_same_video(client: TestClient) -> None:
    first = submit(client)
    check_problem(client.post(f"/v1/jobs/{first}/appeal", content="SCORE:0.1"), 422, "other_video")
    check_problem(client.post(f"/v1/jobs/{first}/appeal"), 409, "media_gone")
    check_problem(client.post(f"/v1/jobs/{first}/appeal", json={}), 409, "media_gone")
    check_problem(client.post(f"/v1/jobs/{first}/appeal", json={"video": "f" * 32}), 404, "video_not_found")
    check_problem(client.post(f"/v1/jobs/{'f' * 32}/appeal", content=CLIP), 404, "job_not_found")
    other = client.post("/v1/videos", content="SCORE:0.1").json()["id"]
    check_problem(client.post(f"/v1/jobs/{first}/appeal", json={"video": other}), 422, "other_video")
    failed = submit(client, "BAD:encrypted")
    check_problem(client.post(f"/v1/jobs/{failed}/appeal", content=CLIP), 409, "job_not_done")
    assert client.get(f"/v1/jobs/{first}").json()["links"]["appeal"] is None
    stored = client.post("/v1/videos", content=CLIP).json()["id"]
    assert client.post(f"/v1/jobs/{first}/appeal", json={"video": stored}).status_code == 202


def test_two_appeals_at_one_moment_are_one_second_look(tmp_path: Path) -> None:
    with service(tmp_path, keep_media=True) as client:
        first = submit(client, query="?surface=ads")
        with ThreadPoolExecutor(4) as threads:
            answers = list(
                threads.map(lambda _: client.post(f"/v1/jobs/{first}/appeal", content=CLIP), range(4))
            )
        assert {answer.status_code for answer in answers} == {202}
        [second] = {answer.json()["id"] for answer in answers}
        assert ended(client, answers[0])["surface"] == "ads"
        assert [job["id"] for job in client.get("/v1/jobs").json()["jobs"]] == [second, first]
        files = {path.name for path in (tmp_path / "jobs").iterdir()}
        assert files == {first, second}  # nothing is left of those that came second


def test_a_file_that_is_kept_need_not_be_sent_again(tmp_path: Path) -> None:
    with service(tmp_path, keep_media=True) as client:
        first = submit(client)
        second = ended(client, client.post(f"/v1/jobs/{first}/appeal"))
        assert second["status"] == "done"
        assert second["sha256"] == client.get(f"/v1/jobs/{first}").json()["sha256"]


def test_others_can_neither_appeal_nor_read(tmp_path: Path, make: Make) -> None:  # noqa: F811
    one, other = make(tenant="one"), make(tenant="other")
    with service(tmp_path) as client:
        client.headers.update(one)
        first = submit(client)
        for call in (
            client.post(f"/v1/jobs/{first}/appeal", content=CLIP, headers=other),
            client.get(f"/v1/jobs/{first}/statement", headers=other),
        ):
            check_problem(call, 404, "job_not_found")


def pointed(document: Any, pointer: str) -> Any:
    for part in pointer.strip("/").split("/"):
        document = document[part]
    return document


def test_a_statement_says_what_is_known_and_names_what_is_not(client: TestClient) -> None:
    first = submit(client)
    found = client.get(f"/v1/jobs/{first}/statement").json()
    facts, automated, redress = found["facts"], found["automated_means"], found["redress"]
    assert (facts["verdict"], facts["score"], facts["threshold"]["value"]) == ("generated", 0.97, 0.9)
    assert "0.970" in facts["text"]
    assert (automated["assessed"], automated["reviewed_by_human"]) == (True, False)
    assert automated["model"]["name"] == "double"
    assert "6.0%" in automated["text"]
    assert redress["second_look_at"] == f"/v1/jobs/{first}/appeal"
    # Every blank is there, is empty, and is one of the six points; nothing else is empty of what a law asks.
    blanks = {blank["field"]: blank["point"] for blank in found["to_supply"]}
    assert {pointed(found, field) for field in blanks} == {None}
    assert sorted(set(blanks.values())) == ["(a)", "(b)", "(c)", "(d)", "(e)", "(f)"]
    asked = ("measure", "facts", "automated_means", "illegal_content", "incompatible_content", "redress")
    empty = {f"/{part}/{name}" for part in asked for name, value in found[part].items() if value is None}
    ours = {
        "/measure/proposed",
        "/automated_means/reviewed_at",
        "/automated_means/reviewed_as",
        "/redress/second_look",
    }
    assert empty - ours == set(blanks)


def test_a_statement_tells_of_review_and_appeal(client: TestClient) -> None:
    first = submit(client)
    client.put(f"/v1/review/{first}", json={"label": "generated"})
    second = ended(client, client.post(f"/v1/jobs/{first}/appeal", content=CLIP))
    found = client.get(f"/v1/jobs/{first}/statement").json()
    automated, redress = found["automated_means"], found["redress"]
    assert (automated["reviewed_by_human"], automated["reviewed_as"]) == (True, "generated")
    assert redress["second_look_at"] is None
    assert redress["second_look"] == {
        "job": f"/v1/jobs/{second['id']}",
        "status": "done",
        "verdict": "generated",
        "agrees": True,
    }


def test_no_statement_without_an_answer(client: TestClient) -> None:
    job = submit(client, "BAD:encrypted")
    check_problem(client.get(f"/v1/jobs/{job}/statement"), 409, "report_unavailable")
