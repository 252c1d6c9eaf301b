"""Jobs with their worker, decoder and model (stand-ins), in this process and without HTTP."""

import asyncio
import hashlib
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import doubles

from app.jobs.service import Jobs, Order
from app.jobs.table import JobRow
from app.jobs.worker import Worker
from app.observability.telemetry import Telemetry
from app.scoring import Scoring
from app.settings import Settings
from app.uploads import Upload


@dataclass
class House:
    """All that is at work."""

    settings: Settings
    jobs: Jobs
    engine: doubles.Engine
    decoder: doubles.Decoder
    telemetry: Telemetry
    working: "asyncio.Task[None] | None" = None

    def upload(self, content: bytes) -> Upload:
        """A file as it arrives."""
        folder = self.settings.data_dir / f"arrived-{secrets.token_hex(4)}"
        folder.mkdir()
        (folder / "media").write_bytes(content)
        sha256 = hashlib.sha256(content).hexdigest()
        return Upload(folder, folder / "media", "a.mp4", len(content), sha256, {})

    async def submit(self, content: bytes, **order: Any) -> JobRow:
        order = {"tenant": "", "thorough": False} | order
        return await self.jobs.submit_upload(self.upload(content), Order(**order))

    async def now(self, job: JobRow) -> JobRow:
        return await self.jobs.find(job.tenant, job.id)

    async def ended(self, job: JobRow) -> JobRow:
        """The job once it is done or failed."""
        await until(lambda: self.now(job), lambda row: row.status in {"done", "failed"})
        return await self.now(job)

    async def started(self, job: JobRow) -> JobRow:
        """The job once its decoder is at it."""
        await asyncio.to_thread(self.decoder.started.wait, 20)
        return await self.now(job)

    async def stop(self) -> None:
        self.jobs.stop()
        if self.working is not None:
            await self.working

    def media(self) -> list[str]:
        """Ids whose media are there."""
        return [path.name for path in (self.settings.data_dir / "jobs").iterdir()]


async def until(look: Any, condition: Callable[[Any], bool], timeout_s: float = 30) -> None:
    ends = time.monotonic() + timeout_s
    while not condition(await look()):
        assert time.monotonic() < ends, "it never came true"
        await asyncio.sleep(0.02)


@asynccontextmanager
async def house(
    data_dir: Path, *, slots: int = 1, telemetry: Telemetry | None = None, **given: Any
) -> AsyncIterator[House]:
    """Jobs with ``slots`` of a worker; 0: none works."""
    settings = Settings(data_dir=data_dir, **{"shutdown_grace_s": 0} | given)
    await asyncio.to_thread(data_dir.mkdir, exist_ok=True)
    engine, decoder = doubles.Engine(settings), doubles.Decoder()
    telemetry = telemetry or Telemetry()
    jobs = Jobs(settings, engine, telemetry, trust_list=settings.trust_list())
    await jobs.open()
    scoring = Scoring(decoder, engine, workers=2, timeout_s=30, telemetry=telemetry)
    await engine.start(telemetry)
    home = House(settings, jobs, engine, decoder, telemetry)
    if slots:
        worker = Worker(jobs, scoring, engine, settings, slots=slots, telemetry=telemetry)
        home.working = asyncio.create_task(worker.run())
    try:
        yield home
    finally:
        await home.stop()
        await engine.aclose()
        await asyncio.to_thread(scoring.close)
        await jobs.aclose()
