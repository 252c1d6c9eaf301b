"""The service on Ray: the engine by itself, and the whole on a small cluster with stand-ins for its model."""

import asyncio
import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import doubles
import httpx
import pytest
from fastapi.testclient import TestClient

from app.main import CannotServe
from app.problems import Problem
from app.settings import Settings
from specsem.errors import ModelError
from tests.integration.serving import below

pytestmark = pytest.mark.ray
# It, and not ray: what Ray reads must be said before.
ray_app = pytest.importorskip("app.ray_app", reason="needs the extra `ray`", exc_type=ModuleNotFoundError)

from app.ray_app import Facts, Model, RayEngine, Refusal, Reply  # noqa: E402

# isort: split
from ray.exceptions import RayActorError  # noqa: E402
from ray.serve.exceptions import BackPressureError  # noqa: E402

FACTS = Facts(doubles.RECORD, "double", 1.0)
WINDOWS = [doubles.window(0.0, 0.5)]


# -- the engine, asking replicas that are made up -----------------------------------------------------------


class Response:
    """As Ray's: awaited for the reply, or cancelled."""

    def __init__(self, reply: Any) -> None:
        self._reply = reply
        self.cancelled = False

    def __await__(self) -> Any:
        return self._answer().__await__()

    async def _answer(self) -> Any:
        if self._reply is None:
            await asyncio.Event().wait()
        if isinstance(self._reply, Exception):
            raise self._reply
        return self._reply

    def cancel(self) -> None:
        self.cancelled = True


class Replicas:
    """As a ``DeploymentHandle``: one reply after the other, the last one again and again."""

    def __init__(self, *replies: Any, facts: Any = FACTS) -> None:
        self._replies = list(replies)
        self.asked: list[Response] = []
        self.facts = SimpleNamespace(remote=lambda: Response(facts))
        self.score_windows = SimpleNamespace(remote=self._ask)

    def _ask(self, _windows: Any, _lane: str, _gates: bool) -> Response:
        reply = self._replies.pop(0) if len(self._replies) > 1 else self._replies[0]
        self.asked.append(Response(reply))
        return self.asked[-1]


def asking(
    settings: Settings, replicas: Replicas, ask: Callable[[RayEngine], Any], monkeypatch: pytest.MonkeyPatch
) -> Any:
    """What becomes of a call to a started engine, pauses left out."""
    monkeypatch.setattr(ray_app, "BUSY_PAUSE_S", 0.0)
    monkeypatch.setattr(ray_app, "LOOK_S", 3600.0)

    async def scenario() -> Any:
        engine = RayEngine(settings, replicas, doubles.load_judge)
        await engine.start()
        try:
            return await ask(engine)
        finally:
            await engine.aclose()

    return asyncio.run(scenario())


def lost() -> RayActorError:
    return RayActorError(error_msg="gone")


def test_what_was_in_the_flight_of_a_lost_replica_goes_to_another(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopping = Refusal("not_ready", "The service is stopping.")
    replicas = Replicas(lost(), stopping, Reply(["a score"], [("queue", 0.1), ("forward", 0.2)]))
    scores = asking(settings, replicas, lambda engine: engine.score_windows(WINDOWS), monkeypatch)
    assert scores == ["a score"]
    assert len(replicas.asked) == 3


def test_a_clip_that_costs_replica_after_replica_is_given_up(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    replicas = Replicas(lost())
    with pytest.raises(Problem, match="not_ready"):
        asking(settings, replicas, lambda engine: engine.score_windows(WINDOWS), monkeypatch)
    assert len(replicas.asked) == ray_app.LOSSES


def test_where_all_are_busy_a_request_is_refused_and_a_job_waits(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = BackPressureError(8, 8)
    with pytest.raises(Problem) as refused:
        asking(settings, Replicas(full), lambda engine: engine.score_windows(WINDOWS), monkeypatch)
    assert refused.value.code == "busy"
    assert refused.value.status == 503
    assert "Retry-After" in refused.value.headers
    replicas = Replicas(*[full] * 20, Reply(["a score"], []))
    scores = asking(
        settings, replicas, lambda engine: engine.score_windows(WINDOWS, lane="bulk"), monkeypatch
    )
    assert scores == ["a score"]


def test_a_deadline_and_a_refusal_are_the_request_s(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurried = settings.model_copy(update={"request_timeout_s": 0.05})
    for replicas in (Replicas(None), Replicas(Refusal("deadline_exceeded", "Too busy."))):
        with pytest.raises(Problem) as refused:
            asking(hurried, replicas, lambda engine: engine.score_windows(WINDOWS), monkeypatch)
        assert refused.value.code == "deadline_exceeded"


def test_who_leaves_takes_the_call_along(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    replicas = Replicas(None)

    async def leave(engine: RayEngine) -> None:
        call = asyncio.ensure_future(engine.score_windows(WINDOWS))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert engine.liveness().lanes["interactive"].clips == 1
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        assert engine.liveness().queued == 0

    asking(settings, replicas, leave, monkeypatch)
    assert [response.cancelled for response in replicas.asked] == [True]


def test_it_is_ready_once_a_replica_is_and_all_have_the_same_weights(settings: Settings) -> None:
    async def scenario() -> None:
        engine = RayEngine(settings, Replicas(None), doubles.load_judge)
        assert not engine.ready
        for ask in (engine.check_ready, lambda: engine.record, lambda: engine.plan):
            with pytest.raises(Problem, match="warming up"):
                ask()
        other = Facts(doubles.RECORD.__class__(**{**vars_of(doubles.RECORD), "sha256": "1" * 64}), "cpu", 1.0)
        engine = RayEngine(settings, Replicas(None, facts=other), doubles.load_judge)
        with pytest.raises(ModelError, match="other weights"):
            await engine.start()
        with pytest.raises(Problem, match="other weights"):
            engine.check_ready()

    asyncio.run(scenario())


def vars_of(record: Any) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__dataclass_fields__}


# -- a replica, by itself -----------------------------------------------------------------------------------


def test_a_replica_is_unhealthy_while_a_forward_outlasts_a_request(settings: Settings) -> None:
    hurried = settings.model_copy(update={"request_timeout_s": 0.05})

    async def scenario() -> None:
        model = Model(hurried, doubles.Engine)
        await model.check_health()  # which loads it
        engine: Any = model._engine
        engine.double.gate.clear()
        call = asyncio.ensure_future(model.score_windows(WINDOWS, "bulk", False))
        await asyncio.sleep(0.1)
        with pytest.raises(RuntimeError, match="no longer takes work"):
            await model.check_health()
        engine.double.gate.set()
        reply = await call
        assert isinstance(reply, Reply)
        assert [stage for stage, _ in reply.stages] == ["queue", "forward"]
        await model.check_health()
        await engine.aclose()
        assert await model.score_windows(WINDOWS, "bulk", False) == Refusal(
            "not_ready", "The service is stopping."
        )

    asyncio.run(scenario())


# -- what is deployed ---------------------------------------------------------------------------------------


def test_queues_have_an_end_and_replicas_their_bounds(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray's defaults are 5 requests at a time and queues without end."""
    made: dict[str, dict[str, Any]] = {}

    def deployment(_class: type, **options: Any) -> Any:
        made[options["name"]] = options
        return SimpleNamespace(bind=lambda *_args: None)

    monkeypatch.setattr(ray_app.serve, "deployment", deployment)
    asked = {"ray_replicas": 2, "ray_max_replicas": 6, "ray_replica_gpus": 0.25, "max_batch_clips": 4}
    ray_app.application(settings.model_copy(update=asked))
    model, ingress = made["Model"], made["Ingress"]
    assert model["max_ongoing_requests"] == 12
    assert model["max_queued_requests"] == settings.max_queue_clips
    assert model["ray_actor_options"] == {"num_cpus": 1.0, "num_gpus": 0.25}
    assert model["autoscaling_config"] == {"min_replicas": 2, "max_replicas": 6, "target_ongoing_requests": 4}
    assert ingress["max_ongoing_requests"] == ingress["max_queued_requests"] == settings.max_connections
    ray_app.application(settings)
    assert made["Model"]["num_replicas"] == 1


def test_a_port_where_a_cluster_was_left_behind_is_refused(settings: Settings) -> None:
    """Ray's proxies let others listen beside them: an old one would get half of the requests."""
    with socket.socket() as left_behind:
        left_behind.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        left_behind.bind(("127.0.0.1", 0))
        left_behind.listen()
        taken = settings.model_copy(update={"port": left_behind.getsockname()[1]})
        with pytest.raises(CannotServe, match="port"), ray_app.serving(taken):
            pass


# -- the whole, on a cluster --------------------------------------------------------------------------------


def processes() -> dict[int, str]:
    """Pid -> command line of all that was started below this process."""
    return {pid: line.replace(b"\0", b" ").decode() for pid, line in below(os.getpid()).items()}


def replicas() -> list[int]:
    return [
        pid for pid, command in processes().items() if command.startswith("ray::ServeReplica:specsem:Model")
    ]


def listening(pids: Sequence[int]) -> list[str]:
    """Addresses, as /proc/net has them, where these processes listen."""
    inodes: set[str] = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            inodes |= {str(fd.readlink()) for fd in Path(f"/proc/{pid}/fd").iterdir()}
    rows = [
        line.split()
        for name in ("tcp", "tcp6")
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]
    ]
    return [row[1] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in inodes]


@pytest.fixture(scope="module")
def service(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Two replicas of a model that plods, and who asks them."""
    settings = Settings(data_dir=tmp_path_factory.mktemp("ray"), port=0, ray_replicas=2, max_batch_clips=2)
    stand_ins = {
        "make_engine": doubles.Plodding,
        "load_judge": doubles.load_judge,
        "make_decoder": doubles.Decoder,
    }
    with ray_app.serving(settings, **stand_ins) as url:
        doubles.until(lambda: httpx.get(f"{url}/readyz").status_code == 200)
        yield url


def score(url: str, content: str) -> httpx.Response:
    return httpx.post(f"{url}/v1/score", files={"file": ("a.mp4", content.encode())}, timeout=60)


def test_it_answers_as_one_process_does(service: str, client: TestClient) -> None:
    for content in ("SCORE:0.95", "SCORE:0.03 FLIP:0.97", "BAD:undecodable", "BAD:too_short"):
        here = client.post("/v1/score", files={"file": ("a.mp4", content.encode())})
        there = score(service, content)
        assert there.status_code == here.status_code
        answers = [answer.json() for answer in (here, there)]
        for answer in answers:
            answer.pop("timing_ms", None)
        assert answers[0] == answers[1]


def test_it_listens_for_this_machine_only_and_its_workers_wait_for_nobody(service: str) -> None:
    everywhere = listening(list(processes()))
    port = int(service.rpartition(":")[2])
    assert f"0100007F:{port:04X}" in everywhere
    assert len(everywhere) > 5, "Ray itself listens, too"
    loopback = ("0100007F:", "0000000000000000FFFF00000100007F:")
    assert [address for address in everywhere if not address.startswith(loopback)] == []
    own = os.getpriority(os.PRIO_PROCESS, 0)
    assert {os.getpriority(os.PRIO_PROCESS, pid) for pid in replicas()} == {own}


def test_who_has_no_token_is_not_let_in(service: str) -> None:
    import grpc
    import ray

    address = ray.get_runtime_context().gcs_address
    with grpc.insecure_channel(address) as channel:
        call = channel.unary_unary("/ray.rpc.NodeInfoGcsService/GetAllNodeInfo")
        with pytest.raises(grpc.RpcError) as refused:
            call(b"", timeout=20)
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED  # type: ignore[attr-defined]


def test_a_replica_that_is_killed_under_load_costs_no_request(service: str) -> None:
    before = replicas()
    assert len(before) == 2
    killed = threading.Event()

    def ask(number: int) -> int:
        if number == 24:
            os.kill(before[0], signal.SIGKILL)
            killed.set()
        return score(service, f"SCORE:0.{number:02}").status_code

    with ThreadPoolExecutor(8) as clients:
        answers = list(clients.map(ask, range(10, 90)))
    assert killed.is_set()
    assert answers == [200] * 80
    doubles.until(lambda: len([pid for pid in replicas() if pid != before[0]]) == 2)
