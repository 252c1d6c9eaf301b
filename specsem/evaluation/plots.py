"""The report's figures as SVG for a page: no window, no fonts inside, colours that follow the page's.

Each function takes rows of report.json and gives one ``<svg>`` element. Its text is text, its colours are the
custom properties of the page (``--ink``, ``--c0`` ...), so that dark and light are one figure.
"""

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import norm

__all__ = ["bars", "conditions", "det", "reliability", "risk_coverage", "roc"]

# What matplotlib writes, and what the page puts in its place.
_INK, _SOFT, _LINE, _PANEL = "#010101", "#020202", "#030303", "#070707"
_SERIES = ("#040404", "#050505", "#060606")
_PAGE = {_INK: "var(--ink)", _SOFT: "var(--ink-soft)", _LINE: "var(--line)", _PANEL: "var(--panel)"} | {
    colour: f"var(--c{number})" for number, colour in enumerate(_SERIES)
}
_DASHES = ("-", "--", "-.")
_MARKS = ("o", "s", "^")
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "specsem",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _SOFT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": _SOFT,
    "ytick.color": _SOFT,
    "grid.color": _LINE,
    "axes.grid": True,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.8,
}
_WIDTH = 4.4
"""Inches: about the width of a phone, so that text keeps its size there."""

Rows = Sequence[Mapping[str, Any]]


def roc(curves: Mapping[str, Rows], aucs: Mapping[str, float]) -> str:
    """True-positive over false-positive rate, a line a condition."""
    with _axes("roc") as (ax, svg):
        for style, (name, rows) in zip(_styles(), curves.items(), strict=False):
            x, y = _columns(rows, "fpr", "tpr")
            ax.plot(x, y, drawstyle="steps-post", label=f"{name}, AUC {aucs[name]:.3f}", **style)
        ax.plot([0, 1], [0, 1], color=_SOFT, linewidth=1, linestyle=":")
        ax.set(xlabel="camera clips called generated", ylabel="generated clips found")
        ax.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
        ax.legend(loc="lower right")
    return svg()


def det(curves: Mapping[str, Rows]) -> str:
    """Misses over false alarms on normal-deviate axes: straight lines where scores are normal."""
    ticks = np.array([0.01, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.95])
    with _axes("det") as (ax, svg):
        for style, (name, rows) in zip(_styles(), curves.items(), strict=False):
            fpr, tpr = _columns(rows, "fpr", "tpr")
            inside = (fpr > 0) & (fpr < 1) & (tpr > 0) & (tpr < 1)
            ax.plot(norm.ppf(fpr[inside]), norm.ppf(1 - tpr[inside]), label=name, **style)
        labels = [f"{100 * tick:g}%" for tick in ticks]
        ax.set_xticks(norm.ppf(ticks), labels)
        ax.set_yticks(norm.ppf(ticks), labels)
        ax.set(xlabel="camera clips called generated", ylabel="generated clips missed")
        ax.legend(loc="best")
    return svg()


def reliability(bins: Mapping[str, Rows]) -> str:
    """Share of generated clips over the score; on the diagonal a score is a probability."""
    with _axes("reliability") as (ax, svg):
        for style, mark, (name, rows) in zip(_styles(), _MARKS, bins.items(), strict=False):
            x, y, n = _columns(rows, "mean_score", "share_generated", "n")
            ax.plot(x, y, alpha=0.6, **style)
            ax.scatter(x, y, 12 + 90 * n / max(1, n.max()), color=style["color"], marker=mark, label=name)
        ax.plot([0, 1], [0, 1], color=_SOFT, linewidth=1, linestyle=":")
        ax.set(xlabel="score (larger marks: more clips)", ylabel="share that is generated")
        ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        ax.legend(loc="upper left")
    return svg()


def risk_coverage(curves: Mapping[str, Rows], policies: Mapping[str, Mapping[str, float]]) -> str:
    """Wrong answers over answers as the inconclusive band widens; the policies of the first as crosses."""
    with _axes("risk") as (ax, svg):
        for style, (name, rows) in zip(_styles(), curves.items(), strict=False):
            x, y = _columns(rows, "coverage", "risk")
            ax.plot(x, y, drawstyle="steps-pre", label=name, **style)
        for name, at in policies.items():
            ax.plot(at["coverage"], at["risk"], "x", color=_INK, markersize=9, markeredgewidth=2)
            ax.annotate(
                name,
                (at["coverage"], at["risk"]),
                (8, -14),
                textcoords="offset points",
                bbox={"boxstyle": "round,pad=0.15", "facecolor": _PANEL, "edgecolor": "none", "alpha": 0.85},
            )
        ax.set(xlabel="share of clips that get an answer", ylabel="share of answers that are wrong")
        ax.set(xlim=(-0.02, 1.05))
        ax.set_ylim(bottom=-0.01)
        ax.legend(loc="upper left")
    return svg()


def bars(columns: Mapping[str, Mapping[str, float]], figure: str, label: str, *, chance: float | None) -> str:
    """One bar a generator, the lowest on top."""
    names = sorted(columns, key=lambda name: (columns[name][figure], name), reverse=True)
    with _axes(f"bars-{figure}", height=0.8 + 0.23 * len(names)) as (ax, svg):
        values = [columns[name][figure] for name in names]
        ax.barh(range(len(names)), values, color=_SERIES[0], height=0.66)
        for place, (name, value) in enumerate(zip(names, values, strict=True)):
            ax.text(value + 0.01, place, f"{value:.2f} ({columns[name]['n']})", va="center", fontsize=8.5)
        if chance is not None:
            ax.axvline(chance, color=_SOFT, linewidth=1, linestyle=":")
        ax.set_yticks(range(len(names)), names, fontsize=9)
        ax.grid(visible=False, axis="y")
        ax.set(xlabel=label, xlim=(0, 1.18), ylim=(-0.6, len(names) - 0.4))
        ax.set_xticks([0, 0.25, 0.5, 0.75, 1])
    return svg()


def conditions(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """AUC of each condition with its interval, and what the file's facts alone reach there."""
    names = list(rows)[::-1]
    with _axes("conditions", height=1.1 + 0.26 * len(names)) as (ax, svg):
        for place, name in enumerate(names):
            low, high = rows[name]["interval95"]["auc"]
            ax.plot([low, high], [place, place], color=_SERIES[0], linewidth=2)
        aucs = [rows[name]["auc"] for name in names]
        ax.plot(aucs, range(len(names)), "o", color=_SERIES[0], label="the model, 95% interval")
        facts = [rows[name]["leaks"]["metadata"]["auc"] for name in names]
        known = [(auc, place) for place, auc in enumerate(facts) if auc is not None]
        if known:
            x, y = zip(*known, strict=True)
            ax.plot(x, y, "D", color=_SERIES[1], markersize=5, label="file facts alone")
        ax.axvline(0.5, color=_SOFT, linewidth=1, linestyle=":")
        ax.set_yticks(range(len(names)), names, fontsize=9)
        ax.set(xlabel="AUC", ylim=(-0.6, len(names) - 0.4))
        ax.legend(
            loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=2, columnspacing=1.0, handletextpad=0.3
        )
    return svg()


def _styles() -> Iterator[dict[str, Any]]:
    """Lines differ by more than their colour."""
    for colour, dash in zip(_SERIES, _DASHES, strict=True):
        yield {"color": colour, "linestyle": dash}


def _columns(rows: Rows, *names: str) -> list[np.ndarray]:
    return [np.array([row[name] for row in rows], float) for name in names]


class _Svg:
    """The element, once the figure is drawn."""

    text = ""

    def __call__(self) -> str:
        return self.text


@contextmanager
def _axes(name: str, height: float = 3.5) -> Iterator[tuple[Axes, _Svg]]:
    svg = _Svg()
    with rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        yield figure.add_subplot(), svg
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg.text = _for_page(buffer.getvalue(), name)


def _for_page(text: str, name: str) -> str:
    """The ``<svg>`` element alone, ids made its own, colours the page's; the page says what it shows."""
    # The style would hold for the whole page.
    text = re.sub(r"<(metadata|style)\b.*?</\1>", "", text[text.index("<svg") :], flags=re.S)
    text = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', text)
    text = re.sub(r'((?:xlink:)?href="#|url\(#)', rf"\1{name}-", text)
    text = re.sub(r'(<svg [^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg [^>]*?) height="[^"]*"', r"\1", text, count=1)
    for colour, variable in _PAGE.items():
        text = text.replace(colour, variable)
    text = text.replace("'DejaVu Sans', sans-serif", "inherit").replace("'DejaVu Sans'", "inherit")
    return text.replace("<svg ", '<svg aria-hidden="true" ', 1).strip()
