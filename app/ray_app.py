"""The service on Ray Serve: processes that take requests and decode, and replicas of the model.

``specsem serve --engine ray`` calls ``run``, and starts a cluster of its own unless it is told of one. Ray's
own tools may deploy ``app.ray_app:from_environment``, as docs/scaling.md has it for Kubernetes.

A request's body arrives once, where it is decoded; what goes on from there is the decoded clip, some 14 MB
of uint8 in Ray's object store. A replica is a ``LocalEngine`` with our batcher: ``serve.batch`` seals batches
on a timer, so that a busy model gets crumbs. No annotation here is postponed (``from __future__``): Ray moves
the application between modules, where their names could not be looked up any more.
"""

import asyncio
import contextlib
import logging
import math
import os
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from app.ray_setup import cluster  # first: Ray reads what it sets when it is imported

# isort: split
import ray
from fastapi import FastAPI
from ray import serve
from ray.exceptions import RayActorError
from ray.serve._private import replica as serve_replica
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, ReplicaUnavailableError

from app.auth import check_exposure
from app.batching import Lane, Liveness, Waiting
from app.engines import Engine, JudgingEngine, LocalEngine
from app.main import check_usable, create_app, open_listener
from app.observability import logs
from app.observability.metrics import Stage
from app.observability.telemetry import Telemetry
from app.problems import Problem
from app.scoring import Decoder
from app.settings import Settings, is_loopback_address
from app.stopping import SETTLE_S
from specsem.errors import ModelError, SpecSemError
from specsem.media import Window
from specsem.registry import ModelRecord

if TYPE_CHECKING:  # torch takes seconds to import
    from specsem.scorer import Judge, WindowScore

__all__ = ["APPLICATION", "Model", "RayEngine", "application", "from_environment", "run"]

logger = logging.getLogger("specsem.app")

APPLICATION = "specsem"
MODEL = "Model"
INGRESS = "Ingress"

BATCHES_A_REPLICA = 3
"""One in the model, one that is copied or comes next, and one on its way."""
LOSSES = 3
"""A clip whose replica is lost so often is given up: it may be why."""
BUSY_PAUSE_S = 0.25
LOOK_S = 1.0
HEALTH_PERIOD_S = 2.0
HEALTH_TIMEOUT_S = 10.0


# -- a replica ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Facts:
    """What a replica says of itself."""

    record: ModelRecord
    device: str
    warm_up_ms: float


@dataclass(frozen=True, slots=True)
class Reply:
    """What a replica says of the windows of one clip."""

    scores: "list[WindowScore]"
    stages: list[tuple[Stage, float]]
    """How long it was in each, in seconds."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A ``Problem`` as it crosses: exceptions of more than one argument can't be unpickled."""

    code: str
    detail: str


_stages: ContextVar[list[tuple[Stage, float]]] = ContextVar("stages of this call")


class _Told(Telemetry):
    """Hears of a replica's stages, which belong to the request in the other process."""

    def stage(
        self, stage: Stage, begun: float, ended: float | None = None, *, lane: Lane = "interactive"
    ) -> None:
        del lane  # the request knows its own
        _stages.get().append((stage, (time.monotonic() if ended is None else ended) - begun))


MakeEngine = Callable[[Settings], Engine]


def _listen_to_this_machine_only() -> None:
    """In a cluster that is on the loopback address, be there only: a replica's own port, for calls of other
    replicas, is on all interfaces whatever the node's address is. No setting changes that."""
    if not is_loopback_address(ray.util.get_node_ip_address()):  # type: ignore[no-untyped-call]
        return
    ours: Any = serve_replica
    add_port = ours.add_port_to_grpc_server

    def add_port_here(server: Any, address: str) -> Any:
        return add_port(server, address.replace("[::]", "127.0.0.1"))

    ours.add_port_to_grpc_server = add_port_here


class Model:
    """One replica of the model: an engine as the service has it, in a process of Ray's.

    It is there once it has warmed up. Ray replaces it when ``check_health`` raises.
    """

    def __init__(self, settings: Settings, make_engine: MakeEngine = LocalEngine) -> None:
        logs.configure(settings)
        _listen_to_this_machine_only()
        self._limit_s = settings.request_timeout_s
        self._engine = make_engine(settings)
        self._started: asyncio.Task[None] | None = None

    async def _ready(self) -> None:
        """Loaded and warm: begun by whoever asks first, which is Ray's check before it sends any work."""
        if self._started is None:
            self._started = asyncio.create_task(self._engine.start(_Told()))
        await asyncio.shield(self._started)

    async def facts(self) -> Facts:
        """Which model this is, and where it runs."""
        await self._ready()
        return Facts(self._engine.record, self._engine.device, self._engine.warm_up_ms)

    async def score_windows(self, windows: Sequence[Window], lane: Lane, gates: bool) -> Reply | Refusal:
        """One score a window, in order. A call that is cancelled leaves the batcher's queue."""
        await self._ready()
        stages: list[tuple[Stage, float]] = []
        _stages.set(stages)
        try:
            return Reply(await self._engine.score_windows(windows, lane=lane, gates=gates), stages)
        except Problem as problem:
            return Refusal(problem.code, problem.detail)

    async def check_health(self) -> None:
        """Raises where the model doesn't move on: what ``/healthz`` says of the service in one process."""
        await self._ready()
        state = self._engine.liveness()
        if not state.alive or state.forward_s > self._limit_s:
            raise RuntimeError("the model no longer takes work")
        self._engine.check_ready()  # a lost device


# -- where requests are taken -------------------------------------------------------------------------------


LoadJudge = Callable[[Settings], "Judge"]


def _load_judge(settings: Settings) -> "Judge":
    from specsem.scorer import Judge  # noqa: PLC0415

    return Judge(settings.model, operating_point=settings.operating_point())


class RayEngine(JudgingEngine):
    """An ``Engine`` whose forwards run in replicas elsewhere; verdicts are made here, from their scores.

    A replica that is lost costs nothing but time: what was in its flight goes to another one.
    """

    def __init__(self, settings: Settings, replicas: Any, load_judge: LoadJudge = _load_judge) -> None:
        """``replicas`` is a ``DeploymentHandle``."""
        self._settings = settings
        self._replicas = replicas
        self._load_judge = load_judge
        self._judge: Judge | None = None
        self._facts: Facts | None = None
        self._failure: SpecSemError | None = None
        self._running = 0
        self._telemetry = Telemetry()
        self._looking: asyncio.Task[None] | None = None
        self._waiting: dict[Lane, dict[object, float]] = {"interactive": {}, "bulk": {}}
        """Since when each call is under way."""

    @property
    def ready(self) -> bool:
        return self._facts is not None and self._running > 0

    @property
    def record(self) -> ModelRecord:
        return self._started()[0].record

    @property
    def device(self) -> str:
        return self._started()[0].device

    @property
    def warm_up_ms(self) -> float:
        return self._started()[0].warm_up_ms

    async def start(
        self,
        telemetry: Telemetry | None = None,
        *,
        on_loaded: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._telemetry = telemetry or self._telemetry
        try:
            self._judge = await asyncio.to_thread(self._load_judge, self._settings)
            facts: Facts = await self._replicas.facts.remote()  # once the first replica is there
            if facts.record.sha256 != self._judge.record.sha256:
                raise ModelError("The replicas have other weights than the process that takes requests.")
            self._facts = facts
            if on_loaded is not None:
                await on_loaded()
        except Exception as error:
            self._failure = (
                error if isinstance(error, SpecSemError) else ModelError("its replicas don't come up.")
            )
            raise
        self._running = 1
        self._looking = asyncio.create_task(self._look(), name="replicas")

    async def broken(self) -> SpecSemError:
        """Never: a replica that breaks is replaced."""
        never: asyncio.Future[SpecSemError] = asyncio.get_running_loop().create_future()
        return await never

    def check_ready(self) -> None:
        if self._failure is not None:
            raise Problem("not_ready", f"The model can't be used: {self._failure.message}")
        if self._facts is None or self._looking is None:
            raise Problem("not_ready", "The model is still warming up; try again in a moment.")
        if not self._running:
            raise Problem("not_ready", "No replica of the model is there; try again in a moment.")

    async def score_windows(
        self, windows: Sequence[Window], *, lane: Lane = "interactive", gates: bool = False
    ) -> "list[WindowScore]":
        self.check_ready()
        limit_s = self._settings.request_timeout_s if lane == "interactive" else None  # jobs have their own
        call = object()
        self._waiting[lane][call] = time.monotonic()
        try:
            async with asyncio.timeout(limit_s):
                reply = await self._ask_until_answered(windows, lane, gates)
        except TimeoutError:
            raise Problem("deadline_exceeded", "The model was busy for too long.") from None
        finally:
            del self._waiting[lane][call]
        ended = time.monotonic()
        for stage, seconds in reversed(reply.stages):
            self._telemetry.stage(stage, ended - seconds, ended, lane=lane)
            ended -= seconds
        return reply.scores

    async def _ask_until_answered(self, windows: Sequence[Window], lane: Lane, gates: bool) -> Reply:
        """Where a replica was lost, another one is asked; where all are busy, a job waits."""
        losses = 0
        while True:
            try:
                said = await self._ask(windows, lane, gates)
            except BackPressureError:
                if lane == "interactive":
                    raise Problem(
                        "busy", "All replicas of the model are busy; try again in a moment."
                    ) from None
                await asyncio.sleep(BUSY_PAUSE_S)
                continue
            except (RayActorError, ReplicaUnavailableError, DeploymentUnavailableError) as error:
                loss = type(error).__name__
            else:
                if isinstance(said, Reply):
                    return said
                if said.code != "not_ready":
                    raise Problem(said.code, said.detail)
                loss = said.detail  # it was told to stop
            losses += 1
            logger.warning("a replica was lost (%s), %d of %d", loss, losses, LOSSES)
            if losses == LOSSES:
                raise Problem("not_ready", "Replicas of the model were lost, again and again.")
            await asyncio.sleep(BUSY_PAUSE_S)

    async def _ask(self, windows: Sequence[Window], lane: Lane, gates: bool) -> Reply | Refusal:
        response = self._replicas.score_windows.remote(windows, lane, gates)
        try:
            said: Reply | Refusal = await response
        except asyncio.CancelledError:
            response.cancel()  # it leaves the batcher's queue there
            raise
        return said

    def liveness(self) -> Liveness:
        """Of this process: its calls count as waiting. That of a replica is its own matter and Ray's."""
        now = time.monotonic()
        return Liveness(
            lanes={
                lane: Waiting(len(calls), now - min(calls.values(), default=now))
                for lane, calls in self._waiting.items()
            }
        )

    async def aclose(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)

    async def _look(self) -> None:
        """How many replicas there are, looked up again and again."""
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                self._running = await asyncio.to_thread(_running_replicas)
            except Exception as error:  # noqa: BLE001 - the controller is being replaced; what runs, runs on
                logger.warning("the replicas can't be counted (%s)", type(error).__name__)

    def _judging(self) -> "Judge":
        return self._started()[1]  # verdicts are made here: the replicas need not know the calibration

    def _started(self) -> "tuple[Facts, Judge]":
        if self._facts is None or self._judge is None:
            self.check_ready()
            raise Problem("not_ready", "The model is still warming up; try again in a moment.")
        return self._facts, self._judge


def _running_replicas() -> int:
    states = serve.status().applications[APPLICATION].deployments[MODEL].replica_states
    return sum(count for state, count in states.items() if state == "RUNNING")


# -- the two together ---------------------------------------------------------------------------------------


def application(
    settings: Settings,
    *,
    make_engine: MakeEngine = LocalEngine,
    load_judge: LoadJudge = _load_judge,
    make_decoder: Callable[[], Decoder] | None = None,
) -> serve.Application:
    """What ``serve.run`` deploys. The others are for tests: named functions of modules."""

    def build() -> FastAPI:
        logs.configure(settings)
        _listen_to_this_machine_only()
        replicas = serve.get_deployment_handle(MODEL, app_name=APPLICATION)
        return create_app(
            settings, RayEngine(settings, replicas, load_judge), make_decoder() if make_decoder else None
        )

    # Ray's default is 5 at a time, and queues without end.
    batches = BATCHES_A_REPLICA * settings.max_batch_clips
    scaling: dict[str, Any] = {"num_replicas": settings.ray_replicas}
    if settings.ray_max_replicas is not None:
        scaling = {
            "autoscaling_config": {
                "min_replicas": settings.ray_replicas,
                "max_replicas": settings.ray_max_replicas,
                "target_ongoing_requests": settings.max_batch_clips,
            }
        }
    common: dict[str, Any] = {
        "health_check_period_s": HEALTH_PERIOD_S,
        "health_check_timeout_s": HEALTH_TIMEOUT_S,
        "graceful_shutdown_timeout_s": settings.shutdown_grace_s + SETTLE_S,
        "graceful_shutdown_wait_loop_s": 0.2,
        "logging_config": {"enable_access_log": False, "log_level": "WARNING"},
    }
    deployment: Any = serve.deployment  # whose type has a form for each way to call it
    model = deployment(
        Model,
        name=MODEL,
        max_ongoing_requests=batches,
        max_queued_requests=settings.max_queue_clips,
        ray_actor_options={"num_cpus": settings.ray_replica_cpus, "num_gpus": settings.ray_replica_gpus},
        **scaling,
        **common,
    )
    ingress = deployment(
        serve.ingress(build)(),
        name=INGRESS,
        num_replicas=settings.ray_ingresses,
        # Ours count clips and connections, and refuse in our words before Ray does.
        max_ongoing_requests=settings.max_connections,
        max_queued_requests=settings.max_connections,
        ray_actor_options={"num_cpus": 1},
        **common,
    )
    whole: serve.Application = ingress.bind(model.bind(settings, make_engine))
    return whole


def from_environment(_arguments: dict[str, str]) -> serve.Application:
    """For ``import_path`` of Ray Serve's own configuration: settings come from the environment."""
    settings = Settings()
    check_exposure(settings, settings.host)
    return application(settings)


@contextlib.contextmanager
def serving(settings: Settings, **stand_ins: Any) -> Iterator[str]:
    """The service on a cluster, its address while the block runs. ``stand_ins``: see ``application``.

    Raises:
        CannotServe: the port is taken.
        ModelError: no replica came up.
    """
    check_exposure(settings, settings.host)
    # Seen before Ray is started, so that a port that is taken costs no half minute; then it is free again.
    with open_listener(settings.host, settings.port, "--port or SPECSEM_PORT") as listener:
        port = listener.getsockname()[1]
    replicas = settings.ray_max_replicas or settings.ray_replicas
    cpus = math.ceil(settings.ray_ingresses + replicas * settings.ray_replica_cpus)
    quiet = {"enable_access_log": False, "log_level": "WARNING"}
    with cluster(ray, settings.ray_address, cpus=max(cpus, os.cpu_count() or 1)):
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        try:
            serve.start(
                proxy_location="HeadOnly" if settings.ray_ingresses == 1 else "EveryNode",
                http_options={"host": settings.host, "port": port},
                logging_config=quiet,
            )
            try:
                serve.run(
                    application(settings, **stand_ins),
                    name=APPLICATION,
                    route_prefix="/",
                    logging_config=quiet,
                )
            except RuntimeError as error:  # its message is a trace from a replica, which has been logged
                raise ModelError("No replica of the model came up; the log says why.") from error
            host = f"[{settings.host}]" if ":" in settings.host else settings.host
            yield f"http://{host}:{port}"
        finally:
            with contextlib.suppress(Exception):  # a cluster that died beneath us
                serve.shutdown()  # type: ignore[no-untyped-call]


def run(settings: Settings) -> None:
    """Serve on Ray until Ctrl-C or SIGTERM.

    Raises:
        SpecSemError: as ``app.main.run``; ``ModelError``, no replica came up.
    """
    check_usable(settings)
    logs.configure(settings)
    stopped = threading.Event()
    signals: list[int] = []

    def on_signal(number: int, _frame: object) -> None:
        signals.append(number)
        stopped.set()

    with serving(settings) as address:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, on_signal)  # Ray has just put its own there
        print(f"SpecSem is at {address}/  (on Ray; reference at /docs, Ctrl-C stops it)", flush=True)
        stopped.wait()
    raise SystemExit(128 + signals[0])
