"""Learning from aggregate observations (method, section 3): worked values, identities, manifests."""

import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from specsem.errors import SpecSemError
from specsem.training.aggregate import (
    GroupWeights,
    Observation,
    aggregate_risk,
    log_probabilities,
    read_observations,
    weights_any,
    weights_count,
    weights_different,
    weights_enumerated,
    weights_for,
    weights_rank,
    weights_same,
    weights_triplet,
)

P = torch.tensor([0.2, 0.5, 0.8], dtype=torch.float64).logit()


def logs(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64).log()


PAIR = logs([0.7, 0.3], [0.6, 0.4])
TRIPLET = logs([0.5, 0.3, 0.2], [0.6, 0.3, 0.1], [0.2, 0.2, 0.6])

BY_KIND: dict[str, tuple[int, Callable[[Tensor], GroupWeights], Callable[[tuple[int, ...]], bool]]] = {
    "same": (2, weights_same, lambda y: y[0] == y[1]),
    "different": (2, weights_different, lambda y: y[0] != y[1]),
    "triplet": (3, weights_triplet, lambda y: y[0] == y[1] != y[2]),
    "rank": (2, weights_rank, lambda y: y[0] > y[1]),
}


def probability(log_p_mK: Tensor, consistent: Callable[[tuple[int, ...]], bool]) -> Tensor:
    """P(z | x) by its definition, in plain products that autograd goes through."""
    m, classes = log_p_mK.shape
    p_mK = log_p_mK.exp()
    products = [
        math.prod((p_mK[i, k] for i, k in enumerate(y)), start=torch.ones(()))
        for y in itertools.product(range(classes), repeat=m)
        if consistent(y)
    ]
    return torch.stack(products).sum()


def check(found: GroupWeights, expected: GroupWeights, tolerance: float = 1e-10) -> None:
    torch.testing.assert_close(found.w_GmK, expected.w_GmK, atol=tolerance, rtol=0)
    torch.testing.assert_close(found.log_p_G, expected.log_p_G, atol=tolerance, rtol=tolerance)


# -- worked values of the method ----------------------------------------------------------------------------


def worked(found: GroupWeights, p: float, *rows: list[float]) -> None:
    assert float(found.log_p_G.exp()) == pytest.approx(p, abs=1e-12)
    torch.testing.assert_close(found.w_GmK, torch.tensor(rows, dtype=torch.float64), atol=5.1e-7, rtol=0)


def worked_binary(found: GroupWeights, p: float, generated: list[float]) -> None:
    worked(found, p, *([1 - w, w] for w in generated))


def test_worked_any() -> None:
    worked_binary(weights_any(P, True), 0.92, [0.217391, 0.543478, 0.869565])
    worked_binary(weights_any(P, False), 0.08, [0, 0, 0])


@pytest.mark.parametrize(
    ("count", "p", "generated"),
    [
        (0, 0.08, [0, 0, 0]),
        (1, 0.42, [0.047619, 0.190476, 0.761905]),
        (2, 0.42, [0.238095, 0.809524, 0.952381]),
        (3, 0.08, [1, 1, 1]),
    ],
)
def test_worked_count(count: int, p: float, generated: list[float]) -> None:
    worked_binary(weights_count(P, count), p, generated)


def test_worked_pairs() -> None:
    worked(weights_same(PAIR), 0.54, [0.777778, 0.222222], [0.777778, 0.222222])
    worked(weights_different(PAIR), 0.46, [0.608696, 0.391304], [0.391304, 0.608696])


def test_worked_triplet() -> None:
    a = [0.75, 0.225, 0.025]
    worked(weights_triplet(TRIPLET), 0.32, a, a, [0.06875, 0.2, 0.73125])


def test_worked_rank() -> None:
    worked(weights_rank(TRIPLET[:2]), 0.36, [0, 0.5, 0.5], [0.833333, 0.166667, 0])


# -- identities ---------------------------------------------------------------------------------------------

logits = st.lists(st.floats(-40, 40), min_size=1, max_size=8)


@given(logits, st.data())
@settings(deadline=None)
def test_binary_kinds_are_the_enumeration(values: list[float], data: st.DataObject) -> None:
    logit_m = torch.tensor(values, dtype=torch.float64)
    log_p_mK = log_probabilities(logit_m)
    count = data.draw(st.integers(0, len(values)))
    check(weights_count(logit_m, count), weights_enumerated(log_p_mK, lambda y: sum(y) == count))
    for seen in (True, False):
        check(weights_any(logit_m, seen), weights_enumerated(log_p_mK, lambda y, z=seen: any(y) == z))


@given(st.sampled_from(sorted(BY_KIND)), st.integers(2, 5), st.data())
@settings(deadline=None)
def test_pairs_and_triplets_are_the_enumeration(kind: str, classes: int, data: st.DataObject) -> None:
    size, weights, consistent = BY_KIND[kind]
    row = st.lists(st.floats(-40, 40), min_size=classes, max_size=classes)
    values = data.draw(st.lists(row, min_size=size, max_size=size))
    log_p_mK = torch.tensor(values, dtype=torch.float64)
    check(weights(log_p_mK), weights_enumerated(log_p_mK, consistent))


def cases() -> list[tuple[Tensor, GroupWeights, Callable[[tuple[int, ...]], bool]]]:
    """Log-probabilities that carry gradient, their weights, and what was seen."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for size, weights, consistent in BY_KIND.values():
        log_p_mK = torch.randn(size, 3, dtype=torch.float64, generator=generator).log_softmax(-1)
        found.append((log_p_mK, weights(log_p_mK), consistent))
    logit_m = torch.randn(5, dtype=torch.float64, generator=generator) * 2
    log_p_mK = log_probabilities(logit_m)
    found += [
        (log_p_mK, weights_any(logit_m), any),
        (log_p_mK, weights_any(logit_m, False), lambda y: not any(y)),
        (log_p_mK, weights_count(logit_m, 2), lambda y: sum(y) == 2),
        (
            log_p_mK,
            weights_enumerated(log_p_mK, lambda y: y[0] + y[2] >= y[1]),
            lambda y: y[0] + y[2] >= y[1],
        ),
    ]
    return found


@pytest.mark.parametrize("case", cases())
def test_with_cross_entropy_the_gradient_is_that_of_the_likelihood(case: Any) -> None:
    log_p_mK, weights, consistent = case
    leaf_mK = log_p_mK.clone().requires_grad_()
    risk = aggregate_risk(-leaf_mK.log_softmax(-1), weights.w_GmK)
    (of_risk,) = torch.autograd.grad(risk, leaf_mK)
    p = probability(leaf_mK.log_softmax(-1), consistent)
    (of_likelihood,) = torch.autograd.grad(-p.log(), leaf_mK)
    torch.testing.assert_close(of_risk * len(log_p_mK), of_likelihood, atol=1e-12, rtol=0)
    assert float(weights.log_p_G) == pytest.approx(float(p.detach().log()), abs=1e-12)


@given(logits)
@settings(deadline=None, max_examples=40)
def test_over_all_observations_the_weights_average_to_the_posterior_of_labels(values: list[float]) -> None:
    """sum_z P(z | x) w_ik(z) = p_ik: what makes the risk of any loss unbiased."""
    logit_m = torch.tensor(values, dtype=torch.float64)
    counts = [weights_count(logit_m, count) for count in range(len(values) + 1)]
    seen = [weights_any(logit_m, value) for value in (True, False)]
    for all_z in (counts, seen):
        assert sum(float(z.log_p_G.exp()) for z in all_z) == pytest.approx(1)
        mean_mK = torch.stack([z.log_p_G.exp() * z.w_GmK for z in all_z]).sum(0)
        torch.testing.assert_close(mean_mK, log_probabilities(logit_m).exp(), atol=1e-10, rtol=0)


def test_the_risk_of_any_loss_is_unbiased_over_counts() -> None:
    loss_mK = torch.tensor([[0.3, 7.0], [-2.0, 0.0], [1e3, 0.5]], dtype=torch.float64)
    risk = sum(
        weights.log_p_G.exp() * aggregate_risk(loss_mK, weights.w_GmK)
        for weights in (weights_count(P, count) for count in range(4))
    )
    supervised = (log_probabilities(P).exp() * loss_mK).sum() / 3
    assert float(risk) == pytest.approx(float(supervised), rel=1e-12)


def test_weights_and_likelihood_carry_no_gradient() -> None:
    logit_m = P.clone().requires_grad_()
    log_p_mK = log_probabilities(logit_m)
    for found in (weights_any(logit_m), weights_count(logit_m, 1), weights_same(log_p_mK[:2])):
        assert not found.w_GmK.requires_grad
        assert not found.log_p_G.requires_grad
    w_mK = torch.full((3, 2), 0.5, requires_grad=True)
    assert aggregate_risk(-log_p_mK, w_mK).requires_grad
    assert torch.autograd.grad(aggregate_risk(-log_p_mK, w_mK), w_mK, allow_unused=True) == (None,)


# -- long and extreme groups --------------------------------------------------------------------------------

M = 4096


def poisson_binomial(logit_m: Tensor) -> Tensor:
    """log PB(0..m; p) by adding one instance at a time in log space: O(m^2) time, relatively exact."""
    l_m = logit_m.double().numpy()
    log_p_m, log_q_m = -np.logaddexp(0, -l_m), -np.logaddexp(0, l_m)
    log_pb = np.full(len(l_m) + 1, -np.inf)
    log_pb[0] = 0
    for j, (log_p, log_q) in enumerate(zip(log_p_m, log_q_m, strict=True), start=1):
        log_pb[1 : j + 1] = np.logaddexp(log_pb[1 : j + 1] + log_q, log_pb[:j] + log_p)
        log_pb[0] += log_q
    return torch.from_numpy(log_pb)


def long_group(name: str) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    noise_m = torch.randn(M, generator=generator, dtype=torch.float64)
    return {
        "noise": noise_m * 3,
        "certain": torch.where(noise_m > 0, 40.0, -40.0).double(),
        "nobody": torch.full((M,), -40.0, dtype=torch.float64),
        "uncertain": torch.zeros(M, dtype=torch.float64),
    }[name]


@pytest.mark.parametrize("name", ["noise", "certain", "nobody", "uncertain"])
def test_a_long_group_is_exact_at_every_kind_of_count(name: str) -> None:
    logit_m = long_group(name)
    likely = int((logit_m > 0).sum())
    counts = torch.tensor(sorted({0, 1, 2, likely, likely + 1, 1000, M // 2, M - 1, M}))
    log_pb = poisson_binomial(logit_m)
    left_out = int(logit_m.abs().argmin())
    log_pb_without = poisson_binomial(torch.cat([logit_m[:left_out], logit_m[left_out + 1 :]]))

    found = weights_count(logit_m.expand(len(counts), M), counts)
    torch.testing.assert_close(found.log_p_G, log_pb[counts], atol=1e-9, rtol=1e-12)
    generated_Gm = found.w_GmK[..., 1]
    torch.testing.assert_close(generated_Gm.sum(-1), counts.double(), atol=1e-9, rtol=0)
    for row, count in enumerate(counts.tolist()):
        if count:
            log_w = (
                log_pb_without[count - 1] - log_pb[count] + torch.nn.functional.logsigmoid(logit_m[left_out])
            )
            assert float(generated_Gm[row, left_out]) == pytest.approx(float(log_w.exp()), abs=1e-9)


def test_any_of_a_long_group_does_not_underflow() -> None:
    found = weights_any(torch.full((M,), -40.0))
    assert float(found.log_p_G) == pytest.approx(math.log(M) - 40, abs=1e-12)
    torch.testing.assert_close(
        found.w_GmK[:, 1], torch.full((M,), 1 / M, dtype=torch.float64), rtol=1e-9, atol=0
    )
    hopeless = weights_any(torch.tensor([-2000.0, -1999.0]))  # exp of these is 0 even in float64
    assert float(hopeless.log_p_G) == pytest.approx(-1999 + math.log1p(math.exp(-1)))
    assert float(hopeless.w_GmK[1, 1]) == pytest.approx(1 / (1 + math.exp(-1)))
    sure = weights_any(torch.full((M,), 40.0))
    assert float(sure.log_p_G) == 0
    torch.testing.assert_close(sure.w_GmK[:, 1], torch.ones(M, dtype=torch.float64))


@given(st.floats(-1e-4, 1e-4).map(lambda x: x - 14), st.integers(1, 5))
@settings(deadline=None)
def test_any_is_smooth_where_it_changes_its_formula(logit: float, size: int) -> None:
    found = weights_any(torch.full((size,), logit, dtype=torch.float64))
    exact = -math.expm1(-size * math.log1p(math.exp(logit)))
    assert float(found.log_p_G) == pytest.approx(math.log(exact), abs=1e-12)


def test_memory_grows_with_the_group_and_not_with_its_square() -> None:
    size = 131_072  # the square would be 137 GB
    logit_m = torch.linspace(-30, 30, size)
    found = weights_count(logit_m, 70_000)
    assert float(found.w_GmK[:, 1].sum()) == pytest.approx(70_000, abs=1e-6)
    assert bool((found.w_GmK[:, 1].diff() >= -1e-12).all())
    assert math.isfinite(float(found.log_p_G))


def test_groups_of_a_batch_do_not_touch_each_other() -> None:
    generator = torch.Generator().manual_seed(2)
    logit_Gm = torch.randn(2, 3, 200, generator=generator) * torch.tensor([0.1, 3.0, 30.0])[:, None]
    count_G = torch.tensor([[0, 90, 100], [200, 3, 199]])
    batch = weights_count(logit_Gm, count_G)
    assert batch.w_GmK.shape == (2, 3, 200, 2)
    for place in itertools.product(range(2), range(3)):
        alone = weights_count(logit_Gm[place], int(count_G[place]))
        check(GroupWeights(batch.w_GmK[place], batch.log_p_G[place]), alone, 1e-12)


def test_padding_changes_nothing() -> None:
    logit_Gm = torch.tensor([[0.5, -1.0, 2.0, math.nan, 7.0], [0.1, 0.2, 0.3, 0.4, 0.5]])
    mask_Gm = torch.tensor([[True, True, True, False, False], [True] * 5])
    for padded, alone in (
        (weights_count(logit_Gm, torch.tensor([3, 2]), mask_Gm), weights_count(logit_Gm[0, :3], 3)),
        (weights_count(logit_Gm, 2, mask_Gm), weights_count(logit_Gm[0, :3], 2)),
        (weights_any(logit_Gm, True, mask_Gm), weights_any(logit_Gm[0, :3])),
        (weights_any(logit_Gm, torch.tensor([False, True]), mask_Gm), weights_any(logit_Gm[0, :3], False)),
    ):
        check(GroupWeights(padded.w_GmK[0, :3], padded.log_p_G[0]), alone, 1e-12)
        assert not padded.w_GmK[0, 3:].any()
    loss_GmK = torch.rand(2, 5, 2)
    padded = weights_count(logit_Gm, 2, mask_Gm)
    risk = aggregate_risk(torch.where(mask_Gm[..., None], loss_GmK, math.nan), padded.w_GmK)
    each = [aggregate_risk(loss_GmK[g, :m], padded.w_GmK[g, :m]) for g, m in ((0, 3), (1, 5))]
    assert float(risk) == pytest.approx(float(sum(each)) / 2)


# -- what is refused, and what is defined -------------------------------------------------------------------


@pytest.mark.parametrize("count", [-1, 4, torch.tensor(4), 1.0, True, torch.tensor([1, 2])])
def test_counts_that_cannot_be_are_refused(count: Any) -> None:
    with pytest.raises(ValueError, match=r"count|fit"):
        weights_count(P, count)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 2e6])
def test_logits_that_no_network_gives_are_refused(value: float) -> None:
    for weights in (weights_any, lambda x: weights_count(x, 1)):
        with pytest.raises(ValueError, match="finite"):
            weights(torch.tensor([0.0, value]))


def test_groups_of_nobody_are_refused() -> None:
    for weights in (weights_any, lambda x, _, mask=None: weights_count(x, 0, mask)):
        with pytest.raises(ValueError, match="no instance"):
            weights(torch.zeros(0), True)
        with pytest.raises(ValueError, match="no instance"):
            weights(torch.zeros(1, 2), True, torch.zeros(1, 2, dtype=torch.bool))


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="mask"):
        weights_any(torch.zeros(3), True, torch.ones(2, dtype=torch.bool))
    for weights in (weights_same, weights_different, weights_rank):
        with pytest.raises(ValueError, match="expected"):
            weights(TRIPLET)
    with pytest.raises(ValueError, match="expected"):
        weights_triplet(PAIR)
    with pytest.raises(ValueError, match="expected"):
        weights_same(torch.zeros(2, 1))
    with pytest.raises(ValueError, match="must match"):
        aggregate_risk(torch.zeros(3, 2), torch.zeros(1, 3, 2))


def test_rows_without_a_possible_class_are_refused() -> None:
    for value in (math.nan, math.inf, -math.inf):
        with pytest.raises(ValueError, match="instance"):
            weights_same(torch.full((2, 3), value))


def test_enumeration_refuses_the_impossible_and_the_endless() -> None:
    with pytest.raises(ValueError, match="impossible"):
        weights_enumerated(PAIR, lambda y: sum(y) == 3)
    with pytest.raises(ValueError, match="2\\^17"):
        weights_enumerated(torch.zeros(17, 2), any)
    assert weights_enumerated(torch.zeros(16, 2), any).w_GmK.shape == (16, 2)


def test_what_the_model_gives_no_chance_teaches_nothing() -> None:
    certain = logs([1.0, 0.0], [0.0, 1.0])
    for found in (weights_same(certain), weights_enumerated(certain, lambda y: y[0] == y[1])):
        assert float(found.log_p_G) == -math.inf
        assert not found.w_GmK.any()
    # The loss is infinite there, and the risk still 0; the possible group beside it counts as ever.
    batch = torch.stack([certain, PAIR])
    found = weights_same(batch)
    assert float(aggregate_risk(-batch, found.w_GmK)) == pytest.approx(
        float(aggregate_risk(-PAIR, weights_same(PAIR).w_GmK)) / 2
    )


def test_near_certainty_does_not_cancel() -> None:
    """1 - S in plain floating point would be 0 here."""
    log_p_2K = log_probabilities(torch.tensor([50.0, 50.0], dtype=torch.float64))
    found = weights_different(log_p_2K)
    assert float(found.log_p_G) == pytest.approx(math.log(2) - 50, abs=1e-12)
    torch.testing.assert_close(found.w_GmK, torch.full((2, 2), 0.5, dtype=torch.float64))


# -- manifests ----------------------------------------------------------------------------------------------


def manifest(folder: Path, *lines: Any) -> Path:
    path = folder / "m.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines) + "\n")
    return path


def group(size: int, **observation: Any) -> dict[str, Any]:
    return {"group": [f"{i}.mp4" for i in range(size)], "observation": observation}


def test_observations_are_read_and_single_labels_left_to_others(tmp_path: Path) -> None:
    path = manifest(
        tmp_path,
        {"path": "a.mp4", "label": "real", "source": "camera"},
        group(1, kind="any"),
        group(2, kind="any", value=False),
        "",
        group(3, kind="count", value=2) | {"split": "val", "note": "queue 7"},
        group(3, kind="triplet"),
        *(group(2, kind=kind) for kind in ("same", "different", "rank")),
    )
    found = read_observations(path)
    kinds = [(o.kind, o.value) for o in found]
    assert kinds[:4] == [("any", 1), ("any", 0), ("count", 2), ("triplet", None)]
    assert kinds[4:] == [("same", None), ("different", None), ("rank", None)]
    assert found[2].paths == tuple(tmp_path / f"{i}.mp4" for i in range(3))
    assert found[2].facts["note"] == "queue 7"
    assert read_observations(path, path, split="val") == [found[2]] * 2


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "Expecting"),
        ("[1]", "object"),
        ({"group": ["a.mp4"]}, "observation"),
        ({"group": "a.mp4", "observation": {"kind": "any"}}, "list of paths"),
        ({"group": [], "observation": {"kind": "any"}}, "each once"),
        ({"group": ["a.mp4", 3], "observation": {"kind": "any"}}, "list of paths"),
        ({"group": ["a.mp4", "a.mp4"], "observation": {"kind": "any"}}, "each once"),
        (group(2, kind="most"), "one of any, count"),
        (group(2, kind=["any"]), "one of any, count"),
        (group(2), "one of any, count"),
        (group(2, kind="any", vaule=False), "no field vaule"),
        (group(2, kind="any", value=1), "true or false"),
        (group(2, kind="count"), "0..2"),
        (group(2, kind="count", value=3), "0..2"),
        (group(2, kind="count", value=-1), "0..2"),
        (group(2, kind="count", value=1.0), "integer"),
        (group(2, kind="count", value=True), "integer"),
        (group(3, kind="same"), "group of 2, not of 3"),
        (group(2, kind="triplet"), "group of 3, not of 2"),
        (group(2, kind="rank", value=1), "no value"),
    ],
)
def test_a_line_that_cannot_be_is_named(tmp_path: Path, line: Any, says: str) -> None:
    with pytest.raises(SpecSemError) as caught:
        read_observations(manifest(tmp_path, group(1, kind="any"), line))
    assert caught.value.message.startswith("m.jsonl, line 2: ")
    assert says in caught.value.message
    assert str(tmp_path) not in caught.value.message


@pytest.mark.parametrize(
    ("kind", "value", "consistent"),
    [
        ("any", 1, any),
        ("any", 0, lambda y: not any(y)),
        ("count", 0, lambda y: sum(y) == 0),
        ("count", 1, lambda y: sum(y) == 1),
        *((kind, None, consistent) for kind, (_, _, consistent) in BY_KIND.items()),
    ],
)
def test_the_weights_of_an_observation_are_those_of_its_kind(kind: Any, value: Any, consistent: Any) -> None:
    size = 3 if kind == "triplet" else 2
    observation = Observation(tuple(Path(f"{i}.mp4") for i in range(size)), kind, value)
    logit_m = torch.tensor([1.5, -0.5, 2.0])[:size]
    found = weights_for(observation, logit_m)
    check(found, weights_enumerated(log_probabilities(logit_m.double()), consistent))
    with pytest.raises(ValueError, match="for a group of"):
        weights_for(observation, torch.zeros(size + 1))


def test_an_observation_made_by_hand_is_checked_too() -> None:
    for kind, value in (
        ("any", None),
        ("any", 2),
        ("count", None),
        ("count", 2),
        ("rank", None),
        ("no", None),
    ):
        with pytest.raises(ValueError, match=r"value|group|kind"):
            Observation((Path("a.mp4"),), kind, value)  # type: ignore[arg-type]
