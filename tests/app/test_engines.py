"""The local engine: ready after its warm-up, and honest where the model can't be used."""

import asyncio
from pathlib import Path

import doubles
import pytest

from app.engines import LocalEngine
from app.problems import Problem
from app.settings import Settings
from specsem.errors import DeviceLost, UnknownModel
from specsem.media import Clip, Coverage


def test_clips_share_a_forward_and_each_gets_its_own_scores(settings: Settings) -> None:
    async def scenario() -> None:
        engine = doubles.Engine(settings)
        with pytest.raises(Problem, match="warming up"):
            engine.check_ready()
        assert engine.liveness().alive
        await engine.start()
        assert engine.ready
        engine.double.gate.clear()
        scores = [0.1, 0.2, 0.3]
        clips = [Clip(doubles.INFO, [doubles.window(0, s)] * 2, Coverage(1, 1, 1)) for s in scores]
        answers = [asyncio.ensure_future(engine.score(clip)) for clip in clips]
        await asyncio.sleep(0.05)
        engine.double.gate.set()
        assert [round(answer.score, 3) for answer in await asyncio.gather(*answers)] == scores
        assert engine.double.batches == [6]
        await engine.aclose()

    asyncio.run(scenario())


def test_a_poisoned_clip_fails_alone(settings: Settings) -> None:
    async def scenario() -> None:
        engine = doubles.Engine(settings)
        await engine.start()
        engine.double.fail_on = 0.25
        engine.double.gate.clear()
        clips = [Clip(doubles.INFO, [doubles.window(0, s)], Coverage(1, 1, 1)) for s in (0.5, 0.25, 0.75)]
        answers = [asyncio.ensure_future(engine.score(clip)) for clip in clips]
        await asyncio.sleep(0.05)
        engine.double.gate.set()
        found = await asyncio.gather(*answers, return_exceptions=True)
        assert [isinstance(answer, Exception) for answer in found] == [False, True, False]
        await engine.aclose()

    asyncio.run(scenario())


def test_a_lost_device_makes_it_unready(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(_windows: object, **_how: bool) -> None:
        raise DeviceLost("The accelerator failed.")

    async def scenario() -> None:
        engine = doubles.Engine(settings)
        await engine.start()
        monkeypatch.setattr(engine.double, "score_windows", lost)
        broken = asyncio.ensure_future(engine.broken())
        with pytest.raises(Problem, match="stopping"):
            await engine.score(Clip(doubles.INFO, [doubles.window(0, 0.5)], Coverage(1, 1, 1)))
        assert isinstance(await broken, DeviceLost)
        with pytest.raises(Problem, match="accelerator"):
            engine.check_ready()
        await engine.aclose()

    asyncio.run(scenario())


def test_a_model_that_can_t_be_used_is_said_so(tmp_path: Path) -> None:
    async def scenario() -> None:
        engine = LocalEngine(Settings(data_dir=tmp_path, model="no-such-model"))
        with pytest.raises(UnknownModel):
            await engine.start()
        with pytest.raises(Problem, match="no-such-model"):
            engine.check_ready()
        await engine.aclose()

    asyncio.run(scenario())
