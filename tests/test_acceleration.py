"""The way a forward runs: tried at the warm-up, kept where it works and pays. Backends here are made up."""

import logging

import pytest
import torch
from torch import Tensor

from specsem.acceleration import PLAIN, FastestForward, Forward, Pixels, backends_for


class Machine:
    """A clock that forwards move on."""

    def __init__(self) -> None:
        self.now = 0.0
        self.batches: list[tuple[str, int]] = []

    def clock(self) -> float:
        return self.now

    def forward(self, name: str, seconds: float, off_by: float = 0.0) -> Forward:
        def run(crops: Tensor, frames: Tensor, boxes: Tensor) -> Tensor:
            self.now += seconds
            self.batches.append((name, len(frames)))
            said_B = crops.float().mean(dim=(1, 2, 3, 4, 5)) + boxes.sum(dim=(1, 2)) + off_by
            return torch.stack([said_B, torch.ones_like(said_B)], dim=1)

        return run


@pytest.fixture
def machine() -> Machine:
    return Machine()


def pixels(windows: int) -> Pixels:
    generator = torch.Generator().manual_seed(3)
    crops = torch.randint(0, 256, (windows, 2, 1, 4, 4, 3), generator=generator, dtype=torch.uint8)
    return crops, torch.zeros(windows, 2, 4, 4, 3, dtype=torch.uint8), torch.rand(windows, 1, 4)


def test_the_fastest_way_is_taken_for_each_size_and_batches_are_padded_to_it(machine: Machine) -> None:
    plain = machine.forward("plain", 1.0)

    def better_when_small(_plain: Forward, given: Pixels) -> Forward:
        return machine.forward("graph", 0.5 if len(given[1]) < 8 else 0.96)

    def middling(_plain: Forward, _given: Pixels) -> Forward:
        return machine.forward("compiled", 0.8)

    fastest = FastestForward(
        plain, {"graph": better_when_small, "compiled": middling}, sizes=[8, 4], clock=machine.clock
    )
    fastest.warm_up(pixels(1))
    assert fastest.ways == {4: "graph", 8: "compiled"}
    given = pixels(3)
    machine.batches.clear()
    torch.testing.assert_close(fastest(*given), plain(*given))
    assert machine.batches[0] == ("graph", 4)
    fastest(*pixels(5))
    assert machine.batches[-1] == ("compiled", 8)
    fastest(*pixels(9))
    assert machine.batches[-1] == ("plain", 9)


def test_what_hardly_pays_is_not_taken(machine: Machine) -> None:
    fastest = FastestForward(
        machine.forward("plain", 1.0),
        {"graph": lambda *_: machine.forward("graph", 0.97)},
        sizes=[4],
        clock=machine.clock,
    )
    fastest.warm_up(pixels(1))
    assert fastest.ways == {4: PLAIN}
    fastest(*pixels(2))
    assert machine.batches[-1] == ("plain", 2)


@pytest.mark.parametrize("off_by", [0.5, float("nan")])
def test_what_says_something_else_is_not_used(
    machine: Machine, off_by: float, caplog: pytest.LogCaptureFixture
) -> None:
    fastest = FastestForward(
        machine.forward("plain", 1.0),
        {"graph": lambda *_: machine.forward("graph", 0.1, off_by)},
        sizes=[1, 4],
        clock=machine.clock,
    )
    with caplog.at_level(logging.WARNING):
        fastest.warm_up(pixels(1))
    assert fastest.ways == {1: PLAIN, 4: PLAIN}
    assert len(caplog.records) == 1  # said once, not tried again


def test_a_backend_that_fails_is_switched_off(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    tried = []

    def no_compiler(_plain: Forward, given: Pixels) -> Forward:
        tried.append(len(given[1]))
        raise RuntimeError("no compiler\nlong trace")

    fastest = FastestForward(
        machine.forward("plain", 1.0),
        {"compiled": no_compiler, "graph": lambda *_: machine.forward("graph", 0.5)},
        sizes=[1, 4],
        clock=machine.clock,
    )
    with caplog.at_level(logging.WARNING):
        fastest.warm_up(pixels(1))
    assert tried == [1]
    assert fastest.ways == {1: "graph", 4: "graph"}
    assert "no compiler" in caplog.text
    assert "long trace" not in caplog.text


def test_one_that_fails_later_is_switched_off_then_and_the_batch_is_still_scored(machine: Machine) -> None:
    graph = machine.forward("graph", 0.5)
    broken = []

    def run(*given: Tensor) -> Tensor:
        if broken:
            raise broken[0]
        return graph(*given)

    plain = machine.forward("plain", 1.0)
    fastest = FastestForward(plain, {"graph": lambda *_: run}, sizes=[4], clock=machine.clock)
    fastest.warm_up(pixels(1))
    assert fastest.ways == {4: "graph"}
    broken.append(torch.OutOfMemoryError())
    with pytest.raises(torch.OutOfMemoryError):  # the scorer halves the batch
        fastest(*pixels(4))
    broken[0] = RuntimeError("lost")
    given = pixels(4)
    torch.testing.assert_close(fastest(*given), plain(*given))
    assert fastest.ways == {4: PLAIN}


def test_the_warm_up_ends_where_memory_does(machine: Machine) -> None:
    plain = machine.forward("plain", 1.0)

    def small(*given: Tensor) -> Tensor:
        if len(given[1]) > 2:
            raise torch.OutOfMemoryError
        return plain(*given)

    fastest = FastestForward(
        small, {"graph": lambda *_: machine.forward("graph", 0.5)}, sizes=[1, 2, 4], clock=machine.clock
    )
    fastest.warm_up(pixels(1))
    assert fastest.ways == {1: "graph", 2: "graph"}


def test_a_cpu_has_no_choice_unless_all_may_be_tried() -> None:
    cpu = torch.device("cpu")
    assert backends_for(cpu, "auto") == {}
    assert backends_for(cpu, "off") == {}
    assert list(backends_for(cpu, "full")) == ["compiled"]
