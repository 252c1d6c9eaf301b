"""Feedback and the review queue over HTTP."""

from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient
from test_auth import Make, make  # noqa: F401 - a fixture
from test_jobs_routes import ended, service
from test_main import check_problem


def scored(client: TestClient, score: float, **headers: Any) -> str:
    posted = client.post("/v1/jobs", content=f"SCORE:{score}", **headers)
    found = client.get(posted.headers["Location"], **headers).json()
    if found["status"] in {"queued", "running"}:
        client.headers.update(headers.get("headers", {}))
        found = ended(client, posted)
    return str(found["id"])


def queue(client: TestClient, query: str = "") -> Any:
    return client.get(f"/v1/review{query}").json()


def test_an_opinion_reaches_the_store_and_the_job(client: TestClient) -> None:
    job = scored(client, 0.97)
    assert client.get(f"/v1/jobs/{job}").json()["feedback"] == {
        "right": 0,
        "wrong": 0,
        "unsure": 0,
        "mine": None,
        "decision": None,
    }
    said = {"verdict": "wrong", "label": "real", "note": "Filmed by me.\nToday."}
    answer = client.post(f"/v1/jobs/{job}/feedback", json=said)
    assert answer.status_code == 200
    found = client.get(f"/v1/jobs/{job}").json()["feedback"]
    assert answer.json() == found
    assert (found["wrong"], found["mine"]["note"], found["mine"]["source"]) == (1, said["note"], "user")
    changed = client.post(f"/v1/jobs/{job}/feedback", json={"verdict": "right"}).json()
    assert (changed["right"], changed["wrong"], changed["mine"]["label"]) == (1, 0, None)
    assert client.delete(f"/v1/jobs/{job}/feedback").status_code == 204
    assert client.get(f"/v1/jobs/{job}").json()["feedback"]["mine"] is None
    check_problem(client.delete(f"/v1/jobs/{job}/feedback"), 404, "feedback_not_found")
    assert client.get("/v1/jobs").json()["jobs"][0]["feedback"] is None


def test_what_is_refused(client: TestClient) -> None:
    job = scored(client, 0.97)
    for bad in (
        {},
        {"verdict": "perhaps"},
        {"verdict": "right", "label": "cat"},
        {"verdict": "right", "note": "x" * 1001},
        {"verdict": "right", "note": "a\0b"},
        {"verdict": "right", "note": "\x1b[31m"},
        {"verdict": "right", "source": "review"},
        [],
    ):
        check_problem(client.post(f"/v1/jobs/{job}/feedback", json=bad), 422, "invalid_request")
    lone = client.post(f"/v1/jobs/{job}/feedback", content=rb'{"verdict": "right", "note": "\ud800"}')
    check_problem(lone, 422, "invalid_request")
    large = client.post(f"/v1/jobs/{job}/feedback", json={"verdict": "right", "note": "x" * 100_000})
    check_problem(large, 413, "limits_exceeded")
    check_problem(client.put(f"/v1/review/{job}", json={"label": "right"}), 422, "invalid_request")
    for there_is_none in ("0" * 32, "%00"):
        for answer in (
            client.post(f"/v1/jobs/{there_is_none}/feedback", json={"verdict": "right"}),
            client.delete(f"/v1/jobs/{there_is_none}/feedback"),
            client.put(f"/v1/review/{there_is_none}", json={"label": "real"}),
            client.delete(f"/v1/review/{there_is_none}"),
        ):
            check_problem(answer, 404, "job_not_found")
    failed = ended(client, client.post("/v1/jobs", content=b"BAD:encrypted"))["id"]
    check_problem(client.post(f"/v1/jobs/{failed}/feedback", json={"verdict": "right"}), 409, "job_not_done")
    check_problem(client.put(f"/v1/review/{failed}", json={"label": "real"}), 409, "job_not_done")
    for query in ("limit=0", "limit=101", "cursor=x", "cursor=bmFuIHg"):
        check_problem(client.get(f"/v1/review?{query}"), 422, "invalid_request")


def test_the_queue_is_decided_and_undone(client: TestClient) -> None:
    clear, near, open_ = scored(client, 0.99), scored(client, 0.91), scored(client, 0.5)
    ended(client, client.post("/v1/jobs", content=b"BAD:encrypted"))
    found = queue(client)
    assert [item["job"]["id"] for item in found["items"]] == [near, clear, open_]
    assert [item["verdict"] for item in found["items"]] == ["generated", "generated", "inconclusive"]
    assert [item["action"] for item in found["items"]] == ["review", "review", "allow"]
    assert (found["waiting"], found["next"], found["items"][0]["job"]["result"]) == (3, None, None)

    client.post(f"/v1/jobs/{clear}/feedback", json={"verdict": "unsure", "note": "odd hands"})
    reported = queue(client)["items"][1]
    assert (reported["job"]["id"], reported["reports"][0]["note"]) == (clear, "odd hands")

    decided = client.put(f"/v1/review/{near}", json={"label": "real", "note": "known footage"})
    assert decided.json()["decision"]["verdict"] == "wrong"
    assert (decided.json()["decision"]["source"], decided.json()["mine"]) == ("review", None)
    unsure = client.put(f"/v1/review/{open_}", json={"label": "unsure"}).json()
    assert (unsure["decision"]["verdict"], unsure["decision"]["label"]) == ("unsure", None)
    assert [item["job"]["id"] for item in queue(client)["items"]] == [clear]
    assert client.delete(f"/v1/review/{near}").status_code == 204
    check_problem(client.delete(f"/v1/review/{near}"), 404, "feedback_not_found")
    assert [item["job"]["id"] for item in queue(client)["items"]] == [near, clear]


def test_the_queue_is_paged(client: TestClient) -> None:
    jobs = [scored(client, score) for score in (0.5, 0.1, 0.0, 0.899999, 0.6)]
    seen, query = [], "?limit=2"
    while True:
        page = queue(client, query)
        seen += [item["job"]["id"] for item in page["items"]]
        if page["next"] is None:
            break
        query = f"?limit=2&cursor={page['next']}"
    assert sorted(seen) == sorted(jobs)
    assert seen == [item["job"]["id"] for item in queue(client)["items"]]


def test_each_key_has_its_opinion_and_a_tenant_its_queue(tmp_path: Path, make: Make) -> None:  # noqa: F811
    ours, second, theirs = make(tenant="ours"), make(tenant="ours"), make(tenant="theirs")
    reviewer, other = (make(tenant=tenant, scopes=["review"]) for tenant in ("ours", "theirs"))
    with service(tmp_path) as client:
        job = scored(client, 0.97, headers=ours)
        at = f"/v1/jobs/{job}/feedback"
        client.post(at, json={"verdict": "right"}, headers=ours)
        found = client.post(at, json={"verdict": "wrong"}, headers=second).json()
        assert (found["right"], found["wrong"], found["mine"]["verdict"]) == (1, 1, "wrong")
        check_problem(client.post(at, json={"verdict": "wrong"}, headers=theirs), 404, "job_not_found")
        check_problem(client.delete(at, headers=theirs), 404, "job_not_found")
        check_problem(client.get("/v1/review", headers=ours), 403, "forbidden")
        foreign = client.put(f"/v1/review/{job}", json={"label": "real"}, headers=other)
        check_problem(foreign, 404, "job_not_found")
        assert client.get("/v1/review", headers=other).json()["items"] == []
        assert client.get("/v1/review", headers=reviewer).json()["waiting"] == 1
        assert client.get(f"/v1/jobs/{job}", headers=reviewer).json()["result"]["score"] == 0.97
        assert client.put(f"/v1/review/{job}", json={"label": "generated"}, headers=reviewer).is_success


def test_policies_say_what_was_measured(client: TestClient) -> None:
    assert client.get("/v1/policies/default").json()["measured"] is None  # nobody measured a stand-in


def test_of_how_many_over_http(client: TestClient) -> None:
    jobs = [scored(client, score) for score in (0.97, 0.96, 0.02)]
    given = client.post("/v1/feedback", json={"jobs": jobs, "upheld": 2, "note": "tuesday"})
    assert given.status_code == 201
    found = given.json()
    assert (found["kind"], found["count"], found["jobs"], found["note"]) == ("upheld", 2, 3, "tuesday")
    client.post("/v1/feedback", json={"jobs": jobs, "generated": 1})
    first = client.get("/v1/feedback?limit=1").json()
    rest = client.get(f"/v1/feedback?limit=1&cursor={first['next']}").json()
    assert [page["groups"][0]["kind"] for page in (first, rest)] == ["generated", "upheld"]
    assert rest["next"] is None
    assert client.delete(f"/v1/feedback/{found['id']}").status_code == 204
    check_problem(client.delete(f"/v1/feedback/{found['id']}"), 404, "feedback_not_found")
    for bad, status, code in (
        ({"jobs": jobs}, 422, "invalid_request"),
        ({"jobs": jobs, "upheld": 1, "generated": 1}, 422, "invalid_request"),
        ({"jobs": jobs, "upheld": 4}, 422, "invalid_request"),
        ({"jobs": jobs, "upheld": -1}, 422, "invalid_request"),
        ({"jobs": [], "upheld": 0}, 422, "invalid_request"),
        ({"jobs": ["../a"], "upheld": 0}, 422, "invalid_request"),
        ({"jobs": [*jobs, "f" * 32], "upheld": 0}, 404, "job_not_found"),
    ):
        check_problem(client.post("/v1/feedback", json=bad), status, code)
    check_problem(client.delete(f"/v1/feedback/{2**63}"), 422, "invalid_request")
    assert client.get("/v1/drift").json()["agreement"] == []  # a count of videos says nothing of answers


def test_counts_are_an_operator_s_and_a_tenant_s(tmp_path: Path, make: Make) -> None:  # noqa: F811
    everything = ["jobs", "review", "score"]
    one, other = make(tenant="one", scopes=everything), make(tenant="other", scopes=everything)
    with service(tmp_path) as client:
        job = scored(client, 0.97, headers=one)
        body = {"jobs": [job], "generated": 1}
        check_problem(client.post("/v1/feedback", json=body, headers=other), 404, "job_not_found")
        given = client.post("/v1/feedback", json=body, headers=one).json()
        assert client.get("/v1/feedback", headers=other).json()["groups"] == []
        refused = client.delete(f"/v1/feedback/{given['id']}", headers=other)
        check_problem(refused, 404, "feedback_not_found")
        user = make(tenant="one", scopes=["jobs"])
        check_problem(client.post("/v1/feedback", json=body, headers=user), 403, "forbidden")
