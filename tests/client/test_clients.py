"""Both clients against a service that is scripted: what they send, send again, and make of the answers."""

import inspect
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from specsem.client import (
    AsyncClient,
    Client,
    JobFailed,
    ProblemError,
    ServiceError,
    StillRunning,
    UnexpectedAnswer,
    Unreachable,
)
from specsem.errors import FileUnusable
from specsem.records import Video
from tests.client.answers import ANSWER

JOB = {
    "id": "4bf5122f344554c53bde2ebb8cd2b7e3",
    "status": "queued",
    "progress": {"stage": "queued", "fraction": 0.0, "eta_s": None},
    "result": None,
    "error": None,
    "filename": "a.mp4",
    "bytes": 3,
    "sha256": "0" * 64,
    "url": None,
    "thorough": False,
    "evidence": False,
    "stability": False,
    "from_store": False,
    "created_at": "2026-11-24T15:32:16Z",
    "started_at": None,
    "finished_at": None,
    "expires_at": None,
    "feedback": None,
    "links": {"self": "/", "events": "/", "views": "/", "report": "/"},
}
DONE = JOB | {
    "status": "done",
    "result": ANSWER,
    "progress": {"stage": "done", "fraction": 1.0, "eta_s": None},
}
EXPIRED = JOB | {"status": "expired"}
FAILED = JOB | {"status": "failed", "error": {"code": "undecodable", "message": "No usable frame."}}
VIDEO = {
    "id": "9f86d081884c7d659a2feaa0c55ad015",
    "filename": "a.mp4",
    "bytes": 10,
    "sha256": "0" * 64,
    "media": {"container": "mp4", "codec": "h264", "width": 64, "height": 64, "fps": 25.0, "duration_s": 1.0},
    "created_at": "2026-11-24T15:32:16Z",
    "expires_at": "2026-11-25T15:32:16Z",
}
Answer = httpx.Response | Exception | Callable[[httpx.Request], httpx.Response]


def ok(body: Any, status: int = 200, **headers: str) -> httpx.Response:
    return httpx.Response(status, json=body, headers={n.replace("_", "-"): v for n, v in headers.items()})


def refusal(status: int, code: str, **headers: str) -> httpx.Response:
    problem = {"type": "/", "title": "No", "status": status, "detail": "It is so.", "code": code}
    return ok(problem, status, **headers)


class Service(httpx.MockTransport):
    """Answers from a list, and keeps what it was asked."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.asked: list[httpx.Request] = []
        super().__init__(self._answer)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer(request) if callable(answer) else answer

    @property
    def lines(self) -> list[str]:
        return [f"{request.method} {request.url.path}" for request in self.asked]


@pytest.fixture(params=["sync", "async"])
def call(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Calls a method of a client of each kind."""

    async def awaited(service: Service, name: str, args: Any, given: Any, how: Any) -> Any:
        async with AsyncClient(transport=service, **how) as client:
            called = getattr(client, name)(*args, **given)
            return await called if inspect.isawaitable(called) else [each async for each in called]

    def call(service: Service, name: str, *args: Any, how: dict[str, Any] | None = None, **given: Any) -> Any:
        if request.param == "async":
            return anyio.run(awaited, service, name, args, given, how or {})
        with Client(transport=service, **(how or {})) as client:
            called = getattr(client, name)(*args, **given)
            return list(called) if isinstance(called, Iterator) else called

    return call


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What would have been slept, in seconds."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(time, "sleep", slept.append)
    monkeypatch.setattr(anyio, "sleep", sleep)
    return slept


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "a b.mp4"
    path.write_bytes(b"0123456789")
    return path


def test_both_kinds_have_the_same_calls() -> None:
    def calls(kind: type) -> dict[str, list[str]]:
        found = {
            name: list(inspect.signature(method).parameters)
            for name, method in vars(kind).items()
            if not name.startswith("_")
        }
        return found | {"close": found.pop("close", found.pop("aclose", []))}

    assert calls(Client) == calls(AsyncClient)


def test_a_score_is_the_library_s_own_record(call: Callable[..., Any], clip: Path) -> None:
    service, sent = Service(ok(ANSWER | {"of_a_later_version": 1})), []
    answer = call(
        service,
        "score",
        clip,
        evidence=True,
        on_sent=lambda *so_far: sent.append(so_far),
        how={"key": "k" * 20},
    )
    assert answer.model_dump(mode="json") == ANSWER
    [request] = service.asked
    assert request.content == b"0123456789"
    assert request.headers["content-length"] == "10"
    assert request.headers["authorization"] == f"Bearer {'k' * 20}"
    assert dict(request.url.params) == {"filename": "a b.mp4", "evidence": "true"}
    assert sent == [(10, 10)]


def test_a_long_video_becomes_a_job_and_is_waited_for(
    call: Callable[..., Any], clip: Path, pauses: list[float]
) -> None:
    running = JOB | {"status": "running", "progress": {"stage": "score", "fraction": 0.5, "eta_s": 1.0}}
    service, heard = Service(ok(JOB, 202), ok(running), ok(running), ok(DONE)), []
    answer = call(service, "score", clip, on_progress=heard.append)
    assert (answer.verdict, answer.score) == (ANSWER["verdict"], ANSWER["score"])
    assert [progress.stage for progress in heard] == ["queued", "score"]
    assert pauses == pytest.approx([0.25, 0.375, 0.5625])


@pytest.mark.parametrize(
    ("end", "code"), [(FAILED, "undecodable"), (JOB | {"status": "expired"}, "job_expired")]
)
def test_a_job_without_an_answer_is_an_error(
    call: Callable[..., Any], clip: Path, end: dict[str, Any], code: str
) -> None:
    with pytest.raises(JobFailed) as caught:
        call(Service(ok(end, 202)), "score", clip)
    assert caught.value.code == code


def test_waiting_ends_when_its_time_is_over_and_the_job_goes_on(call: Callable[..., Any]) -> None:
    with pytest.raises(StillRunning) as caught:
        call(Service(ok(JOB)), "wait", JOB["id"], timeout_s=0)
    assert caught.value.job.id == JOB["id"]


def test_what_passes_is_asked_again_with_the_same_key(
    call: Callable[..., Any], clip: Path, pauses: list[float]
) -> None:
    service = Service(
        httpx.ConnectError("away"),
        refusal(503, "busy", Retry_After="7"),
        refusal(429, "rate_limited", Retry_After="9999"),
        httpx.Response(502, text="<html>"),
        ok(JOB, 202),
    )
    assert call(service, "submit", clip).id == JOB["id"]
    keys = {request.headers["idempotency-key"] for request in service.asked}
    assert len(keys) == 1
    assert [request.content for request in service.asked] == [b"0123456789"] * 5
    assert 0.25 <= pauses[0] <= 0.5
    assert pauses[1:3] == [7, 300]
    assert 2 <= pauses[3] <= 4


def test_what_would_be_done_twice_is_sent_again_only_if_nothing_was_done(
    call: Callable[..., Any], pauses: list[float]
) -> None:
    count = {"id": 1, "kind": "upheld", "count": 1, "jobs": 2, "note": "", "created_at": JOB["created_at"]}
    undone = (httpx.ConnectError("away"), refusal(503, "busy"), refusal(429, "rate_limited"))
    service = Service(*undone, ok(count, 201))
    assert call(service, "count", [JOB["id"], JOB["id"]], upheld=1).id == 1
    assert len(pauses) == 3
    for maybe_done in (httpx.ReadError("broken"), httpx.Response(502, text="<html>")):
        for name, args in (
            ("count", ([JOB["id"]],)),
            ("create_webhook", ("https://hooks.example.org/",)),
            ("rotate_webhook", ("7d" * 16,)),
        ):
            service = Service(maybe_done)
            with pytest.raises((Unreachable, ProblemError)):
                call(service, name, *args)
            assert len(service.asked) == 1


def test_each_call_has_a_key_of_its_own_or_the_caller_s(call: Callable[..., Any], clip: Path) -> None:
    service = Service(*[ok(JOB, 202) for _ in range(3)])
    call(service, "submit", clip)
    call(service, "submit", clip, fresh=True)
    call(service, "submit", clip, idempotency_key="mine")
    first, second, third = (request.headers["idempotency-key"] for request in service.asked)
    assert first != second
    assert third == "mine"
    assert [request.headers.get("cache-control") for request in service.asked] == [None, "no-cache", None]


def test_what_is_ordered_beside_the_file_goes_along(call: Callable[..., Any], clip: Path) -> None:
    service = Service(ok(ANSWER), ok(ANSWER), ok(JOB, 202))
    call(service, "score", clip, surface="ads", fresh=True, idempotency_key="mine")
    call(service, "score", Video.model_validate(VIDEO), surface="ads")
    call(service, "submit_url", "https://media.example.org/a.mp4", surface="ads")
    first, *named = service.asked
    assert dict(first.url.params) == {"filename": "a b.mp4", "surface": "ads"}
    assert (first.headers["cache-control"], first.headers["idempotency-key"]) == ("no-cache", "mine")
    assert [json.loads(request.content)["surface"] for request in named] == ["ads", "ads"]


def test_in_the_end_it_gives_up(call: Callable[..., Any], pauses: list[float]) -> None:
    service = Service(*[httpx.ReadError("broken") for _ in range(3)])
    with pytest.raises(Unreachable, match="ReadError"):
        call(service, "job", JOB["id"], how={"retries": 2})
    assert len(pauses) == 2


def test_a_service_that_was_silent_for_its_whole_time_is_not_asked_again(
    call: Callable[..., Any], clip: Path
) -> None:
    service = Service(httpx.ReadTimeout("slow"))
    with pytest.raises(Unreachable):
        call(service, "score", clip)
    assert service.answers == []


@pytest.mark.parametrize(
    ("status", "code"),
    [(422, "not_a_video"), (404, "job_not_found"), (503, "deadline_exceeded"), (413, "quota_exceeded")],
)
def test_what_lasts_is_refused_at_once(call: Callable[..., Any], clip: Path, status: int, code: str) -> None:
    service = Service(refusal(status, code, X_Request_Id="abc"))
    with pytest.raises(ProblemError) as caught:
        call(service, "score", clip)
    error = caught.value
    assert (error.status, error.code, error.request_id) == (status, code, "abc")
    assert str(error) == f"It is so. ({status} {code}, request abc)"
    assert isinstance(error, ServiceError)


def test_a_proxy_s_refusal_has_a_code_too(call: Callable[..., Any]) -> None:
    with pytest.raises(ProblemError, match=r"The answer is 403 Forbidden\. \(403 http_403\)"):
        call(Service(httpx.Response(403, text="<html>")), "models")


def test_another_service_s_answer_is_none(call: Callable[..., Any]) -> None:
    for answer in (httpx.Response(200, text="<html>"), ok({"jobs": 1}), httpx.Response(302)):
        with pytest.raises(UnexpectedAnswer):
            call(Service(answer), "job", JOB["id"])


def test_what_was_removed_by_an_attempt_that_went_unheard_is_removed(call: Callable[..., Any]) -> None:
    service = Service(httpx.ReadError("broken"), refusal(404, "job_not_found"))
    call(service, "delete_job", JOB["id"])
    with pytest.raises(ProblemError):
        call(Service(refusal(404, "job_not_found")), "delete_job", JOB["id"])


def test_ids_stay_within_their_path(call: Callable[..., Any]) -> None:
    service = Service(ok(JOB))
    call(service, "job", "../../healthz?x=1")
    assert service.asked[0].url.raw_path == b"/v1/jobs/..%2F..%2Fhealthz%3Fx%3D1"


def test_a_list_goes_on_page_after_page(call: Callable[..., Any]) -> None:
    service = Service(ok({"jobs": [JOB, JOB], "next": "abc"}), ok({"jobs": [DONE], "next": None}))
    assert [job.status for job in call(service, "jobs", "queued", "done")] == ["queued", "queued", "done"]
    assert [dict(request.url.params.multi_items()).get("cursor") for request in service.asked] == [
        None,
        "abc",
    ]
    assert service.asked[0].url.params.get_list("status") == ["queued", "done"]


def test_the_other_calls(call: Callable[..., Any]) -> None:
    summary = {"right": 0, "wrong": 1, "unsure": 0, "mine": None, "decision": None}
    service = Service(
        ok(summary), httpx.Response(200, content=b"%PDF"), httpx.Response(200, content=b"PNG"), ok(JOB, 202)
    )
    assert call(service, "say", JOB["id"], "wrong", label="real").wrong == 1
    assert call(service, "report", JOB["id"], "pdf") == b"%PDF"
    assert call(service, "view", JOB["id"], "3-residual") == b"PNG"
    call(service, "submit_url", "https://media.example.org/a.mp4?sig=1", thorough=True)
    assert json.loads(service.asked[0].content) == {"verdict": "wrong", "label": "real", "note": ""}
    assert json.loads(service.asked[3].content)["url"] == "https://media.example.org/a.mp4?sig=1"
    job = f"/v1/jobs/{JOB['id']}"
    assert service.lines == [
        f"POST {job}/feedback",
        f"GET {job}/report",
        f"GET {job}/views/3-residual.png",
        "POST /v1/jobs",
    ]


def test_a_stored_video_is_named(call: Callable[..., Any]) -> None:
    service = Service(ok(ANSWER))
    call(service, "score", Video.model_validate(VIDEO))
    assert json.loads(service.asked[0].content)["video"] == VIDEO["id"]


def test_a_file_that_is_not_there_is_refused_before_anything_is_sent(
    call: Callable[..., Any], tmp_path: Path
) -> None:
    service = Service()
    for name in ("score", "submit", "upload"):
        with pytest.raises(FileUnusable, match=r"nothing\.mp4"):
            call(service, name, tmp_path / "nothing.mp4")


# -- uploads ------------------------------------------------------------------------------------------------


def piece(offset: int) -> httpx.Response:
    return httpx.Response(204, headers={"Upload-Offset": str(offset)})


def created() -> httpx.Response:
    return httpx.Response(201, headers={"Location": f"https://elsewhere.example.org/v1/videos/{VIDEO['id']}"})


def test_an_upload_goes_on_where_it_was(
    call: Callable[..., Any], clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("specsem.client.flows.PIECE_BYTES", 4)
    service, sent = (
        Service(
            created(),
            piece(4),
            httpx.WriteError("broken"),  # after two bytes more
            httpx.Response(200, headers={"Upload-Offset": "6"}),
            refusal(423, "upload_locked"),
            httpx.Response(200, headers={"Upload-Offset": "6"}),
            piece(10),
            ok(VIDEO),
        ),
        [],
    )
    video = call(service, "upload", clip, on_sent=lambda *so_far: sent.append(so_far))
    assert video.id == VIDEO["id"]
    pieces = [request for request in service.asked if request.method == "PATCH"]
    assert [(piece.headers["upload-offset"], piece.content) for piece in pieces] == [
        ("0", b"0123"),
        ("4", b"4567"),
        ("6", b"6789"),
        ("6", b"6789"),
    ]
    assert {request.url.host for request in service.asked} == {"127.0.0.1"}
    assert sent == [(4, 10), (8, 10), (10, 10), (10, 10)]


def test_an_upload_that_got_further_than_we_heard_is_complete(call: Callable[..., Any], clip: Path) -> None:
    service = Service(
        created(),
        httpx.ReadError("broken"),
        httpx.Response(200, headers={"Upload-Offset": "0"}),
        refusal(409, "offset_mismatch"),
        httpx.Response(200, headers={"Upload-Offset": "10"}),
        ok(VIDEO),
    )
    assert call(service, "upload", clip).id == VIDEO["id"]


def test_what_is_no_video_is_refused_after_its_last_piece(call: Callable[..., Any], clip: Path) -> None:
    service = Service(created(), refusal(422, "not_a_video"))
    with pytest.raises(ProblemError) as caught:
        call(service, "upload", clip)
    assert caught.value.code == "not_a_video"


def test_an_upload_gives_up_too(call: Callable[..., Any], clip: Path) -> None:
    look = [httpx.WriteError("broken"), httpx.Response(200, headers={"Upload-Offset": "0"})]
    with pytest.raises(Unreachable, match="WriteError"):
        call(Service(created(), *look, look[0]), "upload", clip, how={"retries": 1})


def test_a_file_that_shrinks_is_no_longer_sent(call: Callable[..., Any], clip: Path) -> None:
    def shrink(_request: httpx.Request) -> httpx.Response:
        clip.write_bytes(b"0")
        return created()

    with pytest.raises(FileUnusable, match="became shorter"):
        call(Service(shrink), "upload", clip)
