"""The service: wiring and lifespan only.

``specsem serve`` calls ``run``. Any ASGI server may use the factory:
``uvicorn --factory app.main:create_app``.
"""

import asyncio
import contextlib
import logging
import math
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Generator, Mapping
from functools import partial
from ipaddress import ip_network
from types import FrameType
from typing import Any, cast

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.staticfiles import StaticFiles
from fastapi.telemetry import TelemetryConfig
from sqlalchemy.exc import OperationalError, SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match, Route
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from app.admission import Admission
from app.audit import Event
from app.auth import Keyring, check_exposure
from app.calibrations import CalibrationStore, Follower
from app.connections import Bounds, Connection
from app.drift import DriftStore, DriftWatch
from app.engines import Engine, LocalEngine
from app.folders import FolderStore
from app.jobs.database import open_database
from app.jobs.service import Jobs
from app.jobs.worker import Worker
from app.keys import KeyStore
from app.middleware import AccessGuard, Lingering, Shield
from app.observability import logs
from app.observability.requests import Observed
from app.observability.telemetry import Telemetry, open_telemetry
from app.problems import Problem, ProblemResponse, from_error, from_status
from app.quotas import Failures
from app.reports.issuing import Reports
from app.resumable import ResumableUploads
from app.room import Room
from app.routes import (
    drift,
    feedback,
    health,
    jobs,
    models,
    pages,
    policies,
    reports,
    resumable,
    score,
    videos,
    webhooks,
)
from app.routes._openapi import operation_id, told_as_problems
from app.scoring import Decoder, Scoring
from app.services import Parts, Works
from app.settings import Settings, is_loopback_name, parse_rate
from app.signing import load_signer
from app.stopping import SETTLE_S, Drain, Draining, leave_within
from app.uploads import FORM_OVERHEAD_BYTES, Inbox
from app.version import built_from
from app.videos import VideoStore
from app.webhooks.dispatcher import Dispatcher
from app.webhooks.service import Webhooks
from specsem import __version__
from specsem.calibration import Calibration
from specsem.errors import ModelError, SpecSemError
from specsem.media import TrustList
from specsem.policy import Policy, require_supported
from specsem.registry import get_model

__all__ = ["check_usable", "create_app", "open_listener", "run", "work"]

logger = logging.getLogger("specsem.app")

ROUTERS = (
    resumable.creation,
    *(routes.router for routes in (score, videos, resumable, jobs, feedback, reports, webhooks)),
    *(routes.router for routes in (models, policies, drift, health, pages)),
)
SWEEP_S = 300.0
LAST_CALL_S = 0.3
AT_ONCE_S = 3.0
"""Asked a second time to stop, the process has so long to hand back its jobs."""
H11_MAX_HEADER_BYTES = 32 * 1024
NO_SPANS_OF_FASTAPI: TelemetryConfig = {
    "tracing": False,
    "metrics": False,
    "logs": False,
    "auto_configure": False,
}
"""Its own would tell paths, queries and messages of exceptions. Ours are in app.observability."""

DESCRIPTION = """Tells AI-generated video from camera video: a calibrated verdict with its time line.

Every error is a problem document (RFC 9457) with a stable `code`. A score is the calibrated probability that
the file is generated, at even odds; the threshold says which false-positive rate on camera video stands
behind it."""


def create_app(
    settings: Settings | None = None, engine: Engine | None = None, decoder: Decoder | None = None
) -> FastAPI:
    """The application. ``engine`` and ``decoder`` are for tests and engines elsewhere; the app closes them.

    Raises:
        ExposureRefused: the address of ``settings`` is open to others and there is no key.
        StoreUnusable: the address is open to others and the database of keys can't be used.
        TracingUnavailable: traces are on, and OpenTelemetry isn't installed.
    """
    settings = settings or Settings()
    check_exposure(settings, settings.host)
    keyring = Keyring(settings)
    telemetry = open_telemetry(settings)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        model = engine or LocalEngine(settings)
        async with _started(
            settings, keyring, model, decoder, app.state.model_failed, telemetry=telemetry
        ) as parts:
            app.state.parts = parts
            yield

    app = _Application(
        title="SpecSem",
        version=__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,  # ours is at /docs, without a CDN
        redoc_url=None,
        telemetry=NO_SPANS_OF_FASTAPI,
        webhooks=webhooks.messages,
        generate_unique_id_function=operation_id,
    )
    app.state.model_failed = _stay_unready
    app.state.drain = Drain()
    for router in ROUTERS:
        app.include_router(router)
    app.mount("/static/charts", StaticFiles(directory=pages.CHARTS), name="charts")
    app.mount("/static", StaticFiles(directory=pages.STATIC), name="static")
    _answer_errors(app)
    # The last one added is the outermost.
    app.add_middleware(Draining, drain=app.state.drain)
    app.add_middleware(
        AccessGuard,
        keyring=keyring,
        failures=Failures(parse_rate(settings.key_failures)),
        allowed_hosts=settings.allowed_hosts,
    )
    app.add_middleware(Lingering)
    app.add_middleware(Shield)
    app.add_middleware(Observed, telemetry=telemetry, access_log=settings.access_log)
    if settings.trusted_proxies:
        app.add_middleware(ProxyHeadersMiddleware, trusted_hosts=settings.trusted_proxies)
    return app


class _Application(FastAPI):
    def openapi(self) -> dict[str, Any]:
        """As it is answered and kept in docs/openapi.json."""
        return told_as_problems(super().openapi())


def _answer_errors(app: FastAPI) -> None:
    """Every error as a problem document."""
    app.add_exception_handler(Problem, _on_problem)
    app.add_exception_handler(SpecSemError, _on_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(ClientDisconnect, _on_disconnect)
    app.add_exception_handler(OperationalError, _on_database_away)


@contextlib.asynccontextmanager
async def _started(
    settings: Settings,
    keyring: Keyring,
    engine: Engine,
    decoder: Decoder | None,
    model_failed: Callable[[SpecSemError], None],
    *,
    telemetry: Telemetry,
) -> AsyncIterator[Parts]:
    """The parts of the service, running."""
    inbox = Inbox(settings.data_dir / "uploads")
    await asyncio.to_thread(inbox.open)
    try:
        async with (
            _working(settings, engine, decoder, model_failed, telemetry, slots=settings.job_slots) as works,
            keyring.opened(KeyStore(works.jobs.database)),
            _reporting(works) as issuing,
        ):
            room = works.jobs.room
            stored = VideoStore(settings.data_dir / "videos", ttl_s=settings.upload_ttl_s, room=room)
            partial = ResumableUploads(
                settings.data_dir / "resumable",
                ttl_s=settings.resumable_ttl_s,
                room=room,
                max_per_tenant=settings.max_partial_uploads,
            )
            await stored.open()
            await partial.open()
            admission = _admission(settings, room)
            telemetry.metrics.watch_intake(admission, stored, partial)
            sweeping = asyncio.create_task(_sweep(stored, partial))
            try:
                yield Parts(
                    settings=settings,
                    engine=engine,
                    scoring=works.scoring,
                    jobs=works.jobs,
                    webhooks=works.webhooks,
                    calibrations=works.calibrations,
                    drift=works.drift,
                    telemetry=telemetry,
                    admission=admission,
                    inbox=inbox,
                    videos=stored,
                    resumable=partial,
                    keyring=keyring,
                    reports=issuing,
                )
            finally:
                sweeping.cancel()
                await asyncio.gather(sweeping, return_exceptions=True)
    finally:
        await asyncio.to_thread(inbox.close)


@contextlib.asynccontextmanager
async def _reporting(works: Works) -> AsyncIterator[Reports]:
    """What issues reports, with the key that signs them."""
    signer = await asyncio.to_thread(load_signer, works.settings)
    commit = works.settings.commit or await asyncio.to_thread(built_from)
    issuing = Reports(works.jobs, signer, commit)
    await issuing.open()
    try:
        yield issuing
    finally:
        await issuing.aclose()


def _admission(settings: Settings, room: Room) -> Admission:
    return Admission(
        max_clips=settings.max_queue_clips,
        # The largest video that is accepted is let in once nothing else arrives, whatever the limits say.
        max_bytes=max(settings.max_queue_bytes, settings.max_upload_bytes + FORM_OVERHEAD_BYTES),
        room=room,
    )


@contextlib.asynccontextmanager
async def _working(
    settings: Settings,
    engine: Engine,
    decoder: Decoder | None,
    model_failed: Callable[[SpecSemError], None],
    telemetry: Telemetry,
    *,
    slots: int,
) -> AsyncIterator[Works]:
    """What scores, and ``slots`` jobs at a time. The model loads meanwhile: ``/healthz`` answers at once."""
    trust_list = await asyncio.to_thread(settings.trust_list)
    jobs = Jobs(settings, engine, telemetry, trust_list=trust_list)
    await jobs.open()
    if decoder is None:
        decoder = await asyncio.to_thread(_decoder_pool, settings, telemetry, trust_list)
    watch = DriftWatch(
        settings, DriftStore(jobs.database), engine, operating_point=jobs.decider.active.operating_point
    )
    scoring = Scoring(
        decoder,
        engine,
        workers=settings.decode_workers,
        timeout_s=settings.request_timeout_s,
        telemetry=telemetry,
        on_answer=watch.count,
    )
    telemetry.metrics.build(__version__, settings.commit or await asyncio.to_thread(built_from))
    hooks = Webhooks(settings, jobs.database)
    works = Works(
        settings=settings,
        engine=engine,
        scoring=scoring,
        jobs=jobs,
        webhooks=hooks,
        calibrations=CalibrationStore(jobs.database),
        drift=watch,
        telemetry=telemetry,
    )
    telemetry.metrics.watch(works)
    background = [
        asyncio.create_task(watch.run()),
        asyncio.create_task(_start(works, model_failed)),
        asyncio.create_task(jobs.keep_house()),
        asyncio.create_task(hooks.keep_house()),
    ]
    dispatcher = Dispatcher(hooks, settings, telemetry)
    sending = asyncio.create_task(dispatcher.run()) if settings.webhook_slots else None
    worker = Worker(jobs, scoring, engine, settings, slots=slots, telemetry=telemetry)
    working = asyncio.create_task(worker.run()) if slots else None
    try:
        yield works
    finally:
        jobs.stop()
        if working is not None:
            await asyncio.gather(working, return_exceptions=True)
        dispatcher.stop()  # now: what jobs just told may still get out
        if sending is not None:
            await asyncio.gather(sending, return_exceptions=True)
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
        await engine.aclose()
        await asyncio.to_thread(scoring.close)
        await watch.aclose()
        await hooks.aclose()
        await jobs.aclose()
        await asyncio.to_thread(telemetry.close)


def _decoder_pool(settings: Settings, telemetry: Telemetry, trust_list: TrustList | None) -> Decoder:
    from specsem.media import DecoderPool  # noqa: PLC0415 - starts processes: not for a test with its own

    return DecoderPool(
        workers=settings.decode_workers,
        limits=settings.limits,
        on_death=telemetry.metrics.decoder_death,
        trust_list=trust_list,
    )


async def _start(works: Works, model_failed: Callable[[SpecSemError], None]) -> None:
    engine, telemetry = works.engine, works.telemetry
    follower = Follower(works.calibrations, engine, works.jobs.decider.policies)
    try:
        await engine.start(telemetry, on_loaded=follower.look)
        works.jobs.decider.require_supported()
    except SpecSemError as error:
        model_failed(error)
    except Exception:
        logger.exception("the model could not be loaded")
        model_failed(ModelError("The model could not be loaded; the log says more."))
    else:
        telemetry.metrics.model(engine)
        logger.info("ready: %s on %s", engine.record.name, engine.device)
        await _note_start(works)
        following = asyncio.create_task(follower.run())
        try:
            model_failed(await engine.broken())
        finally:
            following.cancel()


async def _note_start(works: Works) -> None:
    """Write down what the verdicts of this process stand on."""
    record, decider = works.engine.record, works.jobs.decider
    details = {
        "version": __version__,
        "model": {"name": record.name, "version": record.version, "sha256": record.sha256},
        "calibration": works.engine.calibration.version,
        "policy": _named(decider.active),
        "shadow": None if decider.shadow is None else _named(decider.shadow),
        "threshold": works.engine.policies[decider.active.operating_point].model_dump(),
    }
    try:
        await works.jobs.note(Event("service_started", details=details))
    except SQLAlchemyError:
        logger.exception("the start is not in the audit trail")


def _named(policy: Policy) -> dict[str, Any]:
    return {"name": policy.name, "version": policy.version, "sha256": policy.sha256}


def _stay_unready(error: SpecSemError) -> None:
    """Under a server that isn't ours there is no way to end it: ``/readyz`` says why it is of no use."""
    logger.error("the model can't be used: %s", error.message)


async def _sweep(*stores: FolderStore[Any]) -> None:
    while True:
        await asyncio.sleep(SWEEP_S)
        for store in stores:
            try:
                await store.sweep()
            except OSError:
                logger.exception("%s could not be swept", store.root.name)


# Starlette types handlers by Exception; each is registered for the class that it names here.


async def _on_problem(_request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)  # noqa: S101
    return ProblemResponse(error)


async def _on_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, SpecSemError)  # noqa: S101
    problem = from_error(error)
    if problem.status >= 500:
        raise error  # Shield logs it and answers
    return ProblemResponse(problem)


async def _on_invalid(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101
    found = [
        {"where": "/".join(map(str, entry["loc"])), "message": str(entry["msg"])} for entry in error.errors()
    ]
    detail = "; ".join(f"{entry['where']}: {entry['message']}" for entry in found[:3])
    return ProblemResponse(Problem("invalid_request", detail, errors=found))


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101
    headers: Mapping[str, str] | None = error.headers
    if error.status_code == 405 and (methods := _methods(request)):
        headers = {"Allow": ", ".join(sorted(methods))}
    return ProblemResponse(from_status(error.status_code, str(error.detail), headers))


def _methods(request: Request) -> set[str]:
    """All that this address answers; the framework names those of one route only."""
    routes = [route for router in ROUTERS for route in router.routes if isinstance(route, Route)]
    hit = [route for route in routes if route.matches(request.scope)[0] is not Match.NONE]
    return {method for route in hit for method in route.methods or ()}


async def _on_database_away(_request: Request, error: Exception) -> Response:
    logger.error("the database of jobs is away: %s", error)
    return ProblemResponse(Problem("not_ready", "The database of jobs can't be reached; try again later."))


async def _on_disconnect(_request: Request, _error: Exception) -> Response:
    # Nobody reads it; it says in the log why there was no answer.
    return Response(status_code=499)


class CannotServe(SpecSemError):
    """The service can't start here: its port is taken."""

    code = "cannot_serve"


class _Server(uvicorn.Server):
    """uvicorn's server, which says in one line where it listens, and stops as ``app.stopping`` says."""

    def __init__(self, config: uvicorn.Config, app: FastAPI, grace_s: int) -> None:
        super().__init__(config)
        self._state = app.state
        self._grace_s = grace_s
        self._loop: asyncio.AbstractEventLoop | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        again = self.should_exit
        super().handle_exit(sig, frame)
        self.stop(AT_ONCE_S if again else self._grace_s + SETTLE_S, status=128 + sig)
        if again and self._loop is not None:
            self.force_exit = True
            self._loop.call_soon_threadsafe(self._hurry)

    def _hurry(self) -> None:
        self._state.drain.hurry()
        self._state.parts.jobs.hurry()

    def stop(self, within_s: float, status: int) -> None:
        """Stop, and be gone within so many seconds in any case."""
        self.should_exit = True
        leave_within(within_s, status)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        ends = time.monotonic() + self._grace_s
        self._state.drain.stop()
        self._state.parts.jobs.stop()  # now: event streams end by it, and are waited for
        # It still listens: who comes meanwhile is told, and a poll of a job is answered.
        await self._state.drain.wait(self._grace_s)
        for listener in self.servers:
            listener.close()
        if not self.force_exit:  # who got in at the last moment hasn't been heard yet
            await asyncio.sleep(LAST_CALL_S)
        left_s = 0.0 if self.force_exit else max(0.0, ends - time.monotonic())
        self.config.timeout_graceful_shutdown = math.ceil(left_s)
        await super().shutdown(sockets=sockets)
        if self.force_exit:  # uvicorn leaves it at that
            for task in self.server_state.tasks:
                task.cancel()
            await self.lifespan.shutdown()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        if self.started:
            self._loop = asyncio.get_running_loop()
            assert sockets  # noqa: S101 - run gives one
            bound = sockets[0].getsockname()
            host = f"[{bound[0]}]" if ":" in bound[0] else bound[0]
            print(
                f"SpecSem is at http://{host}:{bound[1]}/  (reference at /docs, Ctrl-C stops it)", flush=True
            )


def run(settings: Settings, engine: Engine | None = None, decoder: Decoder | None = None) -> None:
    """Serve until Ctrl-C or SIGTERM; work in flight gets ``shutdown_grace_s`` seconds to finish.

    Raises:
        ExposureRefused: the address is open to others and there is no key.
        ModelError: the model can't be used.
        UnknownPolicy, PolicyRefused: the policy isn't there, or asks for more than the model can keep.
        CannotServe: the port is taken.
        DataDirUnusable: the data folder can't be written.
        StoreUnusable: the database of jobs can't be used.
        TrustListUnusable: the trust list can't be read.
        TracingUnavailable: traces are on, and OpenTelemetry isn't installed.
    """
    app = create_app(settings, engine, decoder)
    check_usable(settings, engine)
    logs.configure(settings)
    listener = open_listener(settings.host, settings.port, "--port or SPECSEM_PORT")
    server = _Server(_server_config(app, settings), app, settings.shutdown_grace_s)
    failures: list[SpecSemError] = []

    def stop_and_say(error: SpecSemError) -> None:
        failures.append(error)
        server.stop(settings.shutdown_grace_s + SETTLE_S, status=1)

    app.state.model_failed = stop_and_say
    with listener, contextlib.suppress(KeyboardInterrupt):  # uvicorn raises the signal again when it is done
        server.run(sockets=[listener])
    if failures:
        raise failures[0]


def work(
    settings: Settings, slots: int | None = None, engine: Engine | None = None, decoder: Decoder | None = None
) -> None:
    """Work on the jobs of the service's database until Ctrl-C or SIGTERM; what isn't done is handed back.

    ``slots`` jobs at a time; None: as many as decode at once.

    Raises:
        ExposureRefused: the address of its port is open to others and there is no key.
        ModelError: the model can't be used.
        UnknownPolicy, PolicyRefused: the policy isn't there, or asks for more than the model can keep.
        DataDirUnusable: the data folder can't be written.
        StoreUnusable: the database of jobs can't be used.
        TrustListUnusable: the trust list can't be read.
        TracingUnavailable: traces are on, and OpenTelemetry isn't installed.
    """
    settings = settings.model_copy(update={"decode_workers": slots or settings.decode_workers})
    if settings.worker_port is not None:
        check_exposure(settings, settings.worker_host)
    telemetry = open_telemetry(settings)
    check_usable(settings, engine)
    logs.configure(settings)
    asyncio.run(_work(settings, engine or LocalEngine(settings), decoder, telemetry))


async def _work(settings: Settings, engine: Engine, decoder: Decoder | None, telemetry: Telemetry) -> None:
    stopping = asyncio.Event()
    failures: list[SpecSemError] = []
    patience_s = settings.shutdown_grace_s + SETTLE_S

    def stop_and_say(error: SpecSemError) -> None:
        failures.append(error)
        stopping.set()
        leave_within(patience_s, status=1)

    async with (
        _working(settings, engine, decoder, stop_and_say, telemetry, slots=settings.decode_workers) as works,
        _answering(works),
    ):

        def on_signal(number: int) -> None:
            again = stopping.is_set()
            if again:
                works.jobs.hurry()
            stopping.set()
            leave_within(AT_ONCE_S if again else patience_s, status=128 + number)

        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, on_signal, number)
        print(f"SpecSem works on jobs, {settings.decode_workers} at a time  (Ctrl-C stops it)", flush=True)
        await stopping.wait()
        works.jobs.stop()
    if failures:
        raise failures[0]


class _Beside(uvicorn.Server):
    """A server beside other work, whose process has its own way with signals."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


@contextlib.asynccontextmanager
async def _answering(works: Works) -> AsyncIterator[None]:
    """Answer what machines ask of a worker, on a port of its own, if there is to be one."""
    settings = works.settings
    if settings.worker_port is None:
        yield
        return
    app = FastAPI(openapi_url=None, telemetry=NO_SPANS_OF_FASTAPI)
    app.state.parts = works
    app.include_router(health.router)
    _answer_errors(app)
    open_to_this_machine = is_loopback_name(settings.worker_host)
    keyring = Keyring(
        settings.model_copy(update={"api_keys": [], "api_keys_file": None})
        if open_to_this_machine
        else settings
    )
    app.add_middleware(
        AccessGuard,
        keyring=keyring,
        failures=Failures(parse_rate(settings.key_failures)),
        allowed_hosts=(),
    )
    app.add_middleware(Shield)
    app.add_middleware(Observed, telemetry=works.telemetry, access_log=settings.access_log)
    async with contextlib.AsyncExitStack() as stack:
        if not open_to_this_machine:
            await stack.enter_async_context(keyring.opened(KeyStore(works.jobs.database)))
        listener = stack.enter_context(
            open_listener(settings.worker_host, settings.worker_port, "SPECSEM_WORKER_PORT")
        )
        server = _Beside(_server_config(app, settings))
        serving = asyncio.create_task(server.serve([listener]))
        logger.info("metrics and probes are at http://%s:%d/", *listener.getsockname()[:2])
        try:
            yield
        finally:
            server.should_exit = True
            await asyncio.gather(serving, return_exceptions=True)


def check_usable(settings: Settings, engine: Engine | None = None) -> None:
    """Say now, in a sentence, what would otherwise be a trace from the middle of a start.

    Raises:
        DataDirUnusable, TrustListUnusable, StoreUnusable, ModelError: see ``run``.
    """
    settings.make_data_dir()
    settings.trust_list()
    book = settings.policies()
    wanted = [book.policy(name) for name in (settings.policy, settings.policy_shadow) if name]
    open_database(settings.database_address, settings.data_dir).dispose()
    if engine is None:
        record = get_model(settings.model)
        record.verified_weights()  # not by a service that never gets ready
        points = Calibration.load(record.folder).policies
        for policy in wanted:
            require_supported(policy, points)


def _bounds(settings: Settings) -> Bounds:
    return Bounds(
        connections=settings.max_connections,
        per_address=settings.max_connections_per_address,
        proxies=tuple(map(ip_network, settings.trusted_proxies)),
        head_timeout_s=settings.head_timeout_s,
    )


def _server_config(app: FastAPI, settings: Settings) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=cast("type[Connection]", partial(Connection, bounds=_bounds(settings))),
        ws="none",
        h11_max_incomplete_event_size=H11_MAX_HEADER_BYTES,
        timeout_graceful_shutdown=settings.shutdown_grace_s,
        proxy_headers=False,
        server_header=False,
        access_log=False,  # ours is in app.observability
        log_config=None,
    )


def open_listener(host: str, port: int, setting: str) -> socket.socket:
    """The bound socket. Bound here, so that a port that is taken is said in a sentence.

    Raises:
        CannotServe: it is; ``setting`` is where another is chosen.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=2048)
        # Connections inherit it. asyncio sets it only on sockets that name their protocol, which these don't;
        # without it, an answer's body waits some 40 ms for the client to acknowledge the head.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise CannotServe(
            f"Can't listen on {host}, port {port}: {reason}. "
            f"Choose another with {setting} (0 takes a free one)."
        ) from error
