"""``specsem scaling``: from tables of probabilities (see `scaling_tables`) to laws, forecasts and a plot.

Shape suffixes: M runs, F figures, B bootstrap draws; else as in `scaling`.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter
from rich.console import Console
from rich.progress import track
from rich.table import Table

from specsem.errors import SpecSemError
from specsem.evaluation.scaling import (
    MIN_SIZES,
    Floats,
    FloorLaw,
    Forecast,
    PowerLaw,
    auc,
    error_entropy,
    fit_floor_law,
    fit_power_law,
    forecast,
    rbp,
)
from specsem.evaluation.scaling_tables import Run, read_runs

__all__ = ["DEFAULT_KS", "Law", "Target", "analyse", "plot", "scaling"]

DEFAULT_KS = (1, 2, 5, 10)
ENTROPIES = ("error_entropy", "self_alignment", "confidence", "cross_entropy")
PLOTTED_REACH = 100.0
"""A forecast further beyond the runs than this factor is told, not drawn."""


# -- analysis -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Target:
    """What a forecast is asked for: ``[OUTCOME/]FIGURE=VALUE``, e.g. ``attribution/rbp_1=0.9``."""

    text: str
    outcome: str | None
    key: str
    value: float
    """As the law has it: -log RBP_k, 1 - AUC."""

    @classmethod
    def parse(cls, text: str) -> "Target":
        """Read one as it is typed.

        Raises:
            SpecSemError: another form, an unknown figure, a value out of its range.
        """
        form = re.fullmatch(r"(?:(.+)/)?(rbp_[1-9]\d*|auc|error_entropy)=([0-9.eE+-]+)", text)
        try:
            value = float(form[3]) if form else math.nan
        except ValueError:
            value = math.nan
        if form is None or not 0 < value < (math.inf if form[2] == "error_entropy" else 1):
            raise SpecSemError(
                f"{text!r} is no target: [OUTCOME/]FIGURE=VALUE with the figure rbp_K or auc (between 0 and "
                "1) or error_entropy (above 0), e.g. rbp_1=0.9."
            )
        return cls(text, form[1], form[2], _natural(form[2], value, back=True))


def _natural(key: str, value: float, *, back: bool = False) -> float:
    """From what the law has (-log RBP_k, 1 - AUC) to the figure, or back."""
    if key.startswith("rbp_"):
        return -math.log(value) if back else math.exp(-value)
    return 1 - value if key == "auc" else value


def _title(key: str) -> str:
    """What a law is of."""
    if key.startswith("rbp_"):
        return f"-log RBP_{key.removeprefix('rbp_')}"
    return {
        "auc": "1 - AUC",
        "error_entropy": "Error-Entropy",
        "self_alignment": "Self-Alignment",
        "confidence": "Confidence",
        "cross_entropy": "Cross-entropy",
    }[key]


@dataclass(frozen=True, slots=True, eq=False)
class Law:
    """One figure over the sizes of one outcome."""

    key: str
    value_M: Floats
    interval_M2: Floats | None
    """95% of each value, by bootstrap; None without draws."""
    power: PowerLaw | None
    notes: tuple[str, ...]
    floor: FloorLaw | None

    @property
    def called_for(self) -> FloorLaw | None:
        """The law with a floor, where the runs call for one."""
        return self.floor if self.floor is not None and self.floor.p_value < 0.05 else None


def analyse(runs: Sequence[Run], ks: Sequence[int], *, draws: int = 1000, seed: int = 0) -> list[Law]:
    """The laws of one outcome's runs. RBP_k with k = K is 1 and left out.

    Raises:
        SpecSemError: fewer than 3 sizes, or tables that don't agree about K.
    """
    outcome, size_M = runs[0].outcome, np.array([run.size for run in runs])
    if len({run.classes for run in runs}) > 1:
        raise SpecSemError(f"The tables of {outcome!r} don't agree about the number of outcomes.")
    if (sizes := len(np.unique(size_M))) < MIN_SIZES:
        raise SpecSemError(f"Laws need runs of {MIN_SIZES} sizes or more; {outcome!r} has {sizes}.")
    classes = runs[0].classes
    ks = sorted({k for k in ks if classes is None or k < classes})
    keys = [*(f"rbp_{k}" for k in ks), *(["auc"] if classes == 2 else []), *ENTROPIES]
    value_MF = np.array([_figures(run, ks, None) for run in runs])
    draws_BMF = _bootstrap(runs, ks, draws, seed) if draws else None
    laws = []
    for f, key in enumerate(keys):
        value_M, draws_BM = value_MF[:, f], None if draws_BMF is None else draws_BMF[:, :, f]
        power, notes = None, []
        left_out = int((~(np.isfinite(value_M) & (value_M > 0))).sum())
        if left_out:
            notes.append(f"{left_out} of {len(runs)} runs left out: {_why_left_out(key)} there")
        try:
            power = fit_power_law(size_M, value_M, draws_BM=draws_BM)
        except SpecSemError:
            notes.append("no law, for fewer than 3 sizes are left")
        if key.startswith("rbp_") and classes and int(key[4:]) * 4 > classes:
            notes.append(f"k isn't small beside {classes} outcomes")
        law = Law(
            key,
            value_M,
            None if draws_BM is None else _intervals(value_M, draws_BM),
            power,
            tuple(notes),
            fit_floor_law(size_M, value_M),
        )
        laws.append(law)
    return laws


def _intervals(value_M: Floats, draws_BM: Floats) -> Floats:
    """Quantiles for 95% of each run's draws: (M, 2); NaN where they are infinite.

    Draws are scaled to have the value for their median: entropies of samples drawn anew are biased.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        scale_M = value_M / np.nanmedian(draws_BM, axis=0)
        scale_M = np.where(np.isfinite(scale_M) & (scale_M > 0), scale_M, 1.0)
        found: Floats = np.nanquantile(draws_BM * scale_M, [0.025, 0.975], axis=0).T
    return found


def _why_left_out(key: str) -> str:
    if key.startswith("rbp_"):
        return f"RBP_{key[4:]} is 1 or 0"
    return f"{_title(key)} is 0, negative or infinite"


def _figures(run: Run, ks: Sequence[int], weight_N: Floats | None) -> list[float]:
    """The figures of one run, as the laws have them: (F,)."""
    parts = error_entropy(run.rbe_N, run.score_N, weight_N)
    with np.errstate(divide="ignore"):
        figures = (-np.log(rbp(run.rank_N, ks, weight_N)) + 0.0).tolist() if ks else []
    if run.p1_N is not None and run.is1_N is not None:
        figures.append(1 - auc(run.is1_N, run.p1_N, weight_N))
    return [*figures, *(getattr(parts, name) for name in ENTROPIES)]


def _bootstrap(runs: Sequence[Run], ks: Sequence[int], draws: int, seed: int) -> Floats:
    """The figures over samples drawn anew: (B, M, F). A group is drawn for all runs at once."""
    rng = np.random.default_rng(seed)
    names = sorted({name for run in runs if run.group_N is not None for name in np.unique(run.group_N)})
    member = [None if run.group_N is None else np.searchsorted(names, run.group_N) for run in runs]
    found = []
    for _ in track(
        range(draws), f"Bootstrap of {runs[0].outcome}", console=Console(stderr=True), transient=True
    ):
        times = _drawn(rng, len(names)) if names else np.empty(0)
        weights = [
            _drawn(rng, len(run.rank_N)) if rows is None else times[rows]
            for run, rows in zip(runs, member, strict=True)
        ]
        if all(weight.any() for weight in weights):
            found.append([_figures(run, ks, weight) for run, weight in zip(runs, weights, strict=True)])
    return np.array(found)


def _drawn(rng: np.random.Generator, n: int) -> Floats:
    """How often each of n is drawn, in n draws."""
    return np.bincount(rng.integers(0, n, n), minlength=n).astype(np.float64)


# -- report -------------------------------------------------------------------------------------------------


def scaling(
    tables: Sequence[Path],
    out: Path,
    *,
    ks: Sequence[int] = DEFAULT_KS,
    size_name: str = "size",
    targets: Sequence[str] = (),
    draws: int = 1000,
) -> None:
    """Fit, forecast and draw: ``scaling.json`` and ``scaling.svg`` in ``out``, a table on standard output.

    Raises:
        SpecSemError: a table or a target that can't be used.
    """
    wanted = [Target.parse(text) for text in targets]
    asked_ks = [int(target.key[4:]) for target in wanted if target.key.startswith("rbp_")]
    by_outcome: dict[str, list[Run]] = {}
    for run in read_runs(tables):
        by_outcome.setdefault(run.outcome, []).append(run)
    laws = {
        outcome: analyse(runs, [*(ks or DEFAULT_KS), *asked_ks], draws=draws)
        for outcome, runs in by_outcome.items()
    }
    answers = {
        outcome: {
            target.text: _answer(law, target)
            for target in wanted
            for law in found
            if target.outcome in {None, outcome} and law.key == target.key
        }
        for outcome, found in laws.items()
    }
    for target in wanted:
        if not any(target.text in asked for asked in answers.values()):
            raise SpecSemError(f"No outcome here has the figure of the target {target.text!r}.")
    out.mkdir(parents=True, exist_ok=True)
    report = {
        "size_name": size_name,
        "bootstrap_draws": draws,
        "outcomes": {
            outcome: _as_json(by_outcome[outcome], laws[outcome], answers[outcome]) for outcome in laws
        },
    }
    text = json.dumps(_finite(report), indent=1, allow_nan=False) + "\n"
    (out / "scaling.json").write_text(text, encoding="utf-8")
    plot(out / "scaling.svg", by_outcome, laws, answers, size_name)
    _print(laws, answers, size_name, out)


def _answer(law: Law, target: Target) -> Forecast:
    if law.power is None:
        return Forecast(target.value, None, None, None, None, reason="; ".join(law.notes))
    return forecast(law.power, target.value)


def _as_json(runs: Sequence[Run], laws: Sequence[Law], answers: Mapping[str, Forecast]) -> dict[str, Any]:
    floors = {law.key: law.called_for for law in laws}
    return {
        "classes": runs[0].classes,
        "runs": [
            {"run": run.run, "size": run.size, "samples": len(run.rank_N)}
            | {law.key: _natural(law.key, float(law.value_M[m])) for law in laws}
            for m, run in enumerate(runs)
        ],
        "laws": {
            law.key: {
                "of": _title(law.key),
                "values": law.value_M.tolist(),
                "intervals": None if law.interval_M2 is None else law.interval_M2.tolist(),
                "power_law": law.power and asdict(law.power),
                "floor_law": law.floor and asdict(law.floor),
                "notes": law.notes,
            }
            for law in laws
        },
        "forecasts": {
            text: asdict(answer) | _with_floor(floors[Target.parse(text).key], answer.target)
            for text, answer in answers.items()
        },
    }


def _with_floor(law: FloorLaw | None, target: float) -> dict[str, Any]:
    """``size_with_floor`` is null where the values level off above the target, or don't level off."""
    return {"levels_off": law is not None, "size_with_floor": law and law.size_for(target)}


def _finite(value: Any) -> Any:
    """JSON has no infinity and no NaN: null."""
    if isinstance(value, dict):
        return {key: _finite(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _print(
    laws: Mapping[str, Sequence[Law]],
    answers: Mapping[str, Mapping[str, Forecast]],
    size_name: str,
    out: Path,
) -> None:
    console = Console(highlight=False, markup=False, emoji=False)
    for outcome, found in laws.items():
        table = Table(title=f"{outcome}: value = c * ({size_name}) ** -alpha", box=None, title_justify="left")
        for heading in ("of", "alpha", "95% by runs", "95% by samples", "R²", "runs"):
            table.add_column(heading, justify="left" if heading == "of" else "right", no_wrap=True)
        notes = []
        for law in found:
            table.add_row(_title(law.key), *_cells(law))
            notes += [f"{_title(law.key)}: {note}" for note in law.notes]
            if floor := law.called_for:
                notes.append(f"{_title(law.key)}: levels off at {floor.floor:.3g} (p = {floor.p_value:.2g})")
        console.print(table)
        for note in notes:
            console.print(f"  {note}", style="dim", soft_wrap=True)
        by_key = {law.key: law for law in found}
        for text, answer in answers[outcome].items():
            floor = by_key[Target.parse(text).key].called_for
            console.print(f"  Forecast: {_in_words(text, answer, floor, size_name)}", soft_wrap=True)
        console.print()
    console.print(f"Written: {out / 'scaling.json'} and scaling.svg", soft_wrap=True)


def _cells(law: Law) -> list[str]:
    if (power := law.power) is None:
        return ["-", "-", "-", "-", "0"]
    by_runs, by_samples = (
        f"{i[0]:.3f} to {i[1]:.3f}" if i else "-"
        for i in (power.alpha_interval, power.alpha_interval_samples)
    )
    return [f"{power.alpha:.3f}", by_runs, by_samples, f"{power.r_squared:.3f}", str(power.runs)]


def _in_words(text: str, answer: Forecast, floor: FloorLaw | None, size_name: str) -> str:
    """A forecast as a sentence or three."""
    figure = text.rpartition("/")[2].replace("=", " = ")
    if answer.size is None or answer.interval is None or answer.more is None or answer.extrapolation is None:
        return f"no forecast for {figure}: {answer.reason}."
    low, high = (_count(end) for end in answer.interval)
    words = f"{figure} at about {_count(answer.size)} {size_name} (95%: {low} to {high})"
    if answer.extrapolation > 1:
        words += f", {_count(answer.more)} more than the largest run, {_count(answer.extrapolation)} times"
        words += " its size: an extrapolation."
    elif answer.extrapolation < 1:
        words += f", {answer.extrapolation:.2g} times the smallest run's: an extrapolation."
    else:
        words += ", within the sizes that were run."
    if floor is not None:
        size = floor.size_for(answer.target)
        meets = "never meets it" if size is None else f"meets it at {_count(size)}"
        words += f" The values level off; a law with a floor fits better and {meets}."
    return words


def _count(size: float) -> str:
    """Three digits are more than a forecast knows."""
    if not 1 <= size < 1e12:
        return f"{size:.2g}"
    return f"{float(f'{size:.3g}'):,.15g}"


# -- plot ---------------------------------------------------------------------------------------------------


def plot(
    path: Path,
    by_outcome: Mapping[str, Sequence[Run]],
    laws: Mapping[str, Sequence[Law]],
    answers: Mapping[str, Mapping[str, Forecast]],
    size_name: str,
) -> None:
    """Values with their intervals, lines with their bands, forecasts as crosses; log-log; a row an outcome.

    The format goes by the ending of ``path``. Left is what the runs get wrong, right cross-entropy in parts.
    """
    figure = Figure(figsize=(12, 4.5 * len(laws)), layout="constrained")
    axes = figure.subplots(len(laws), 2, squeeze=False, sharex="row")
    for (outcome, found), (left, right) in zip(laws.items(), axes, strict=True):
        size_M = np.array([run.size for run in by_outcome[outcome]])
        wanted = {Target.parse(text).key: answer for text, answer in answers[outcome].items()}
        for number, law in enumerate(law for law in found if law.key not in ENTROPIES):
            _draw(left, size_M, law, f"C{number}", wanted.get(law.key))
        for number, law in enumerate(law for law in found if law.key in ENTROPIES):
            _draw(right, size_M, law, f"C{number}", wanted.get(law.key))
        left.set_title(f"{outcome}: what is missed")
        right.set_title(f"{outcome}: cross-entropy and its parts")
        for ax in (left, right):
            ax.set(xscale="log", yscale="log", xlabel=size_name)
            low, high = ax.get_xlim()
            ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 1000 else (1,)))
            ax.xaxis.set_major_formatter(EngFormatter(sep=""))
            ax.xaxis.set_minor_formatter(NullFormatter())
            ax.grid(which="both", alpha=0.2)
            ax.legend(fontsize="small")
        right.set_ylabel("nats")
    with rc_context({"svg.hashsalt": "specsem"}):  # the same runs give the same file
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def _draw(ax: Axes, size_M: Floats, law: Law, colour: str, answer: Forecast | None) -> None:
    shown = np.isfinite(law.value_M) & (law.value_M > 0)
    size, value = size_M[shown], law.value_M[shown]
    label = _title(law.key)
    if law.power:
        low, high = law.power.alpha_interval
        label += f": α {law.power.alpha:.2f} ({low:.2f}..{high:.2f}), R² {law.power.r_squared:.2f}"
    elif not shown.any():
        return
    ends = np.zeros((2, len(value)))
    if law.interval_M2 is not None:
        low_M, high_M = law.interval_M2[shown].T
        ends = np.clip(np.nan_to_num([value - low_M, high_M - value], posinf=0), 0, None)
    ax.errorbar(size, value, ends, fmt="o", ms=4, capsize=2, color=colour, label=label)
    if law.power is None:
        return
    grid = np.geomspace(*law.power.size_range, 100)
    ax.plot(grid, law.power.predict(grid), color=colour)
    ax.fill_between(grid, *law.power.band(grid), color=colour, alpha=0.12, lw=0)
    if answer is None or answer.size is None or answer.interval is None or answer.extrapolation is None:
        return
    if 1 / PLOTTED_REACH <= answer.extrapolation <= PLOTTED_REACH:
        if answer.extrapolation != 1:
            beyond = np.geomspace(law.power.size_range[answer.extrapolation > 1], answer.size, 50)
            ax.plot(beyond, law.power.predict(beyond), "--", color=colour)
        spread = [
            [answer.size - answer.interval[0]],
            [min(answer.interval[1], 1e3 * answer.size) - answer.size],
        ]
        ax.errorbar([answer.size], [answer.target], xerr=spread, fmt="X", ms=8, capsize=4, color=colour)
