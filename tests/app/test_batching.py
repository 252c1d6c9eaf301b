"""The batcher: pulls, drops who left, survives what fails."""

import asyncio
import threading
from collections.abc import Sequence

import pytest

from app.batching import Batcher
from app.problems import Problem
from specsem.errors import DeviceLost


class Model:
    """Doubles numbers; holds at a gate; fails on a negative one."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, items: Sequence[int]) -> list[int]:
        self.batches.append(list(items))
        self.gate.wait(10)
        if any(item < 0 for item in items):
            raise ValueError("negative")
        return [2 * item for item in items]


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0.002)


def test_batches_form_while_the_model_is_busy() -> None:
    async def scenario() -> None:
        model = Model()
        batcher: Batcher[int, int] = Batcher(model, max_batch=3)
        batcher.start()
        model.gate.clear()
        answers = [asyncio.ensure_future(batcher.submit(1))]
        await settle()
        answers += [asyncio.ensure_future(batcher.submit(item)) for item in (2, 3, 4, 5)]
        await settle()
        assert batcher.liveness().queued == 4
        assert batcher.liveness().oldest_wait_s > 0
        model.gate.set()
        assert await asyncio.gather(*answers) == [2, 4, 6, 8, 10]
        assert model.batches == [[1], [2, 3, 4], [5]]
        await batcher.aclose()

    asyncio.run(scenario())


def test_who_left_is_dropped_before_the_forward() -> None:
    async def scenario() -> None:
        model = Model()
        batcher: Batcher[int, int] = Batcher(model, max_batch=8)
        batcher.start()
        model.gate.clear()
        first = asyncio.ensure_future(batcher.submit(1))
        await settle()
        left, stays = (asyncio.ensure_future(batcher.submit(item)) for item in (2, 3))
        await settle()
        left.cancel()
        model.gate.set()
        assert (await first, await stays) == (2, 6)
        assert model.batches == [[1], [3]]
        await batcher.aclose()

    asyncio.run(scenario())


def test_a_failing_batch_is_run_again_one_by_one() -> None:
    async def scenario() -> None:
        model = Model()
        batcher: Batcher[int, int] = Batcher(model, max_batch=8)
        batcher.start()
        model.gate.clear()
        first = asyncio.ensure_future(batcher.submit(0))
        await settle()
        answers = [asyncio.ensure_future(batcher.submit(item)) for item in (1, -1, 2)]
        await settle()
        model.gate.set()
        await first
        found = await asyncio.gather(*answers, return_exceptions=True)
        assert (found[0], found[2]) == (2, 4)
        assert isinstance(found[1], ValueError)
        assert await batcher.submit(7) == 14
        assert batcher.liveness().alive
        await batcher.aclose()

    asyncio.run(scenario())


def test_a_wrong_number_of_results_fails_its_callers_only() -> None:
    async def scenario() -> None:
        results: list[list[int]] = [[], [5]]
        batcher: Batcher[int, int] = Batcher(lambda _items: results.pop(0), max_batch=1)
        batcher.start()
        with pytest.raises(RuntimeError, match="0 results"):
            await batcher.submit(1)
        assert await batcher.submit(1) == 5
        await batcher.aclose()

    asyncio.run(scenario())


def test_the_loop_survives_a_defect_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        batcher: Batcher[int, int] = Batcher(Model(), max_batch=1)
        take = batcher._take
        calls = iter([True])

        def stumbles() -> object:
            if next(calls, False):
                raise RuntimeError("a defect")
            return take()

        monkeypatch.setattr(batcher, "_take", stumbles)
        batcher.start()
        assert await batcher.submit(4) == 8
        assert batcher.liveness().alive
        await batcher.aclose()

    asyncio.run(scenario())


def test_bulk_waits_for_the_interactive_but_does_not_starve() -> None:
    async def scenario() -> None:
        model = Model()
        batcher: Batcher[int, int] = Batcher(model, max_batch=4)
        batcher.start()
        model.gate.clear()
        answers = [asyncio.ensure_future(batcher.submit(0))]
        await settle()
        answers += [asyncio.ensure_future(batcher.submit(item, lane="bulk")) for item in (100, 101, 102, 103)]
        await settle()
        answers += [asyncio.ensure_future(batcher.submit(item)) for item in (1, 2, 3, 4, 5, 6)]
        await settle()
        model.gate.set()
        await asyncio.gather(*answers)
        # One place in four is of bulk while both wait; the first forward took an interactive one already.
        assert model.batches == [[0], [1, 2, 100, 3], [4, 5, 101, 6], [102, 103]]
        await batcher.aclose()

    asyncio.run(scenario())


def test_a_batch_has_one_shape() -> None:
    async def scenario() -> None:
        model = Model()
        batcher: Batcher[int, int] = Batcher(model, max_batch=8, shape=lambda item: item > 10)
        answers = [asyncio.ensure_future(batcher.submit(item)) for item in (1, 2, 11, 12, 3)]
        await settle()
        batcher.start()
        assert await asyncio.gather(*answers) == [2, 4, 22, 24, 6]
        assert model.batches == [[1, 2], [11, 12], [3]]
        await batcher.aclose()

    asyncio.run(scenario())


def test_what_is_past_its_deadline_is_not_begun() -> None:
    async def scenario() -> None:
        model = Model()
        batcher: Batcher[int, int] = Batcher(model, max_batch=8)
        batcher.start()
        model.gate.clear()
        first = asyncio.ensure_future(batcher.submit(1))
        await settle()
        late = asyncio.ensure_future(batcher.submit(2, deadline_s=0.001))
        timely = asyncio.ensure_future(batcher.submit(3, deadline_s=60.0))
        await settle()
        model.gate.set()
        assert (await first, await timely) == (2, 6)
        with pytest.raises(Problem) as refused:
            await late
        assert refused.value.code == "deadline_exceeded"
        assert model.batches == [[1], [3]]
        await batcher.aclose()

    asyncio.run(scenario())


def test_two_batches_run_at_a_time_where_the_device_can() -> None:
    async def scenario() -> None:
        model = Model()
        batcher: Batcher[int, int] = Batcher(model, max_batch=1, in_flight=2)
        batcher.start()
        model.gate.clear()
        answers = [asyncio.ensure_future(batcher.submit(item)) for item in (1, 2, 3)]
        await settle()
        assert sorted(model.batches) == [[1], [2]]
        assert batcher.liveness().queued == 1
        model.gate.set()
        assert await asyncio.gather(*answers) == [2, 4, 6]
        await batcher.aclose()

    asyncio.run(scenario())


def test_a_lost_device_ends_it_and_is_said_once() -> None:
    async def scenario() -> None:
        gate = threading.Event()

        def run(_items: Sequence[int]) -> Sequence[int]:
            gate.wait(10)
            raise DeviceLost("The accelerator failed.")

        batcher: Batcher[int, int] = Batcher(run, max_batch=2)
        batcher.start()
        lost = asyncio.ensure_future(batcher.device_lost())
        answers = [asyncio.ensure_future(batcher.submit(item)) for item in (1, 2, 3)]
        await settle()
        assert not lost.done()
        gate.set()
        found = await asyncio.gather(*answers, return_exceptions=True)
        assert [type(answer) for answer in found] == [Problem] * 3
        assert (await lost).code == "device_lost"
        with pytest.raises(Problem, match="stopping"):
            await batcher.submit(4)
        await batcher.aclose()

    asyncio.run(scenario())


def test_closing_while_a_failed_batch_is_run_one_by_one_leaves_nobody_waiting() -> None:
    async def scenario() -> None:
        alone, gate = threading.Event(), threading.Event()

        def run(items: Sequence[int]) -> Sequence[int]:
            if len(items) > 1:
                raise ValueError
            alone.set()
            gate.wait(10)
            return items

        batcher: Batcher[int, int] = Batcher(run, max_batch=8)
        answers = [asyncio.ensure_future(batcher.submit(item)) for item in (1, 2, 3)]
        await settle()
        batcher.start()
        assert await asyncio.to_thread(alone.wait, 5)
        closing = asyncio.ensure_future(batcher.aclose())
        await settle()
        gate.set()
        await closing
        found = await asyncio.wait_for(asyncio.gather(*answers, return_exceptions=True), 5)
        assert [type(answer) for answer in found] == [Problem] * 3

    asyncio.run(scenario())


def test_the_age_of_a_forward_is_known_and_who_leaves_frees_its_item() -> None:
    async def scenario() -> None:
        model = Model()
        batcher: Batcher[int, int] = Batcher(model, max_batch=1)
        batcher.start()
        assert batcher.liveness().forward_s == 0
        model.gate.clear()
        running, left = (asyncio.ensure_future(batcher.submit(item)) for item in (1, 2))
        await settle()
        assert batcher.liveness().forward_s > 0
        assert batcher.liveness().queued == 1
        left.cancel()
        await settle()
        assert batcher.liveness().queued == 0
        model.gate.set()
        assert await running == 2
        await settle()
        assert batcher.liveness().forward_s == 0
        await batcher.aclose()

    asyncio.run(scenario())


def test_closing_tells_those_who_wait() -> None:
    async def scenario() -> None:
        model = Model()
        batcher: Batcher[int, int] = Batcher(model, max_batch=1)
        batcher.start()
        model.gate.clear()
        running, waiting = (asyncio.ensure_future(batcher.submit(item)) for item in (1, 2))
        await settle()
        closing = asyncio.ensure_future(batcher.aclose())
        await settle()
        model.gate.set()
        await closing
        for answer in (running, waiting):
            with pytest.raises(Problem, match="stopping"):
                await answer
        with pytest.raises(Problem, match="stopping"):
            await batcher.submit(3)

    asyncio.run(scenario())
