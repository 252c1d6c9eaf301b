"""Tables of what runs of several sizes said of their samples: written here, read by ``specsem scaling``.

A table is a CSV or Parquet file with one row a sample (a clip, a token) and the columns

- ``size``: of the run that the row is from (training clips, generators, parameters);
- either ``rank`` (of the truth, 1 = top, ties count against the model) and ``probability`` (of the truth),
  and maybe ``rbe`` (0 = top, ties count for the model; else ``rank`` - 1); or ``p_0`` .. ``p_<K-1>`` and
  ``truth`` (0 .. K-1), which a model of K outcomes gives;
- maybe ``run`` (else the file's name), ``outcome`` (what was predicted, e.g. ``attribution`` or ``detector``;
  each gets its own laws; else ``default``) and ``group`` (rows that are drawn together in the bootstrap, in
  all runs: clips of one source, tokens of one text; else each row of each run by itself).

One file may hold many runs, and a folder stands for the tables right in it. `write_table` writes one.

Shape suffixes: N samples, K outcomes.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from specsem.errors import SpecSemError
from specsem.evaluation.scaling import Bools, Floats, Ints, rank_based_error, truth_rank

__all__ = ["Run", "read_runs", "write_table"]

FORMATS = (".csv", ".parquet")
SUM_TOLERANCE = 0.01
"""How far p_0 .. p_<K-1> may be from 1 in sum: half precision over many outcomes, but no logits."""


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """One run at one size, with what it said of each sample."""

    run: str
    size: float
    outcome: str
    rank_N: Ints
    rbe_N: Ints
    """Renumbered 0 .. E-1 in the same order: entropies ask only which samples share one."""
    score_N: Floats
    """The probability given to the truth."""
    classes: int | None
    """K, where the table says it."""
    p1_N: Floats | None
    """Of K = 2: the probability of outcome 1,"""
    is1_N: Bools | None
    """and whether it is the truth."""
    group_N: npt.NDArray[np.str_] | None


def write_table(
    path: Path,
    run: str,
    size: float,
    p_NK: Floats,
    truth_N: Ints,
    *,
    outcome: str = "default",
    group_N: Sequence[str] | None = None,
) -> None:
    """Write what one run said of N samples; CSV or Parquet, by the ending of ``path``.

    Raises:
        SpecSemError: another ending.
    """
    n, k = p_NK.shape
    columns: dict[str, Any] = {"run": [run] * n, "size": [float(size)] * n, "outcome": [outcome] * n}
    columns |= {"truth": truth_N} | ({} if group_N is None else {"group": list(group_N)})
    table = pa.table(columns | {f"p_{i}": p_NK[:, i] for i in range(k)})
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".csv":
        pa.csv.write_csv(table, path)
    elif path.suffix == ".parquet":
        pa.parquet.write_table(table, path)
    else:
        raise SpecSemError(f"{path.name}: a table is written as .csv or .parquet.")


def read_runs(paths: Sequence[Path]) -> list[Run]:
    """The runs of all tables, by outcome (in the order found), then size.

    Raises:
        SpecSemError: no table, one that can't be read, a column missing, a value out of range, a run twice.
    """
    found: dict[tuple[str, str, float], Run] = {}
    for path in _tables(paths):
        for run in _split(path, _read(path)):
            key = (run.outcome, run.run, run.size)
            if key in found:
                raise SpecSemError(f"{path.name}: run {run.run!r} of size {run.size:g} is in two tables.")
            found[key] = run
    outcomes = list(dict.fromkeys(outcome for outcome, _, _ in found))
    return sorted(found.values(), key=lambda run: (outcomes.index(run.outcome), run.size, run.run))


def _tables(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        if not path.exists():
            raise SpecSemError(f"There is no {path}.")
        inside = sorted(p for p in path.iterdir() if p.suffix in FORMATS) if path.is_dir() else [path]
        if not inside:
            raise SpecSemError(f"There is no .csv or .parquet file in {path}.")
        yield from inside


def _read(path: Path) -> pa.Table:
    try:
        if path.suffix == ".parquet":
            return pa.parquet.read_table(path)
        return pa.csv.read_csv(path)
    except (pa.ArrowException, OSError) as error:
        raise SpecSemError(f"{path.name} can't be read as a {path.suffix or 'CSV'} table.") from error


def _split(path: Path, table: pa.Table) -> Iterator[Run]:
    """One run for each outcome, name and size in a table."""
    if table.num_rows == 0:
        raise SpecSemError(f"{path.name} has no rows.")
    rows = _Columns(path, table)
    size = rows.numbers("size")
    rows.check("size", size > 0, "above 0")
    classes = rows.classes()
    p1_N = is1_N = None
    if classes is None:
        rank, score = rows.integers("rank"), rows.numbers("probability")
        rows.check("rank", rank >= 1, "1 or more")
        rows.check("probability", (score >= 0) & (score <= 1), "in 0..1")
        rbe = rows.integers("rbe") if "rbe" in table.column_names else rank - 1
        rows.check("rbe", (rbe >= 0) & (rbe < rank), "in 0..rank-1")
    else:
        truth = rows.integers("truth")
        rows.check("truth", (truth >= 0) & (truth < classes), f"in 0..{classes - 1}")
        p_NK = np.column_stack([rows.numbers(f"p_{i}") for i in range(classes)])
        inside_N: Bools = np.all((p_NK >= 0) & (p_NK <= 1), axis=1)
        rows.check("p_0 ..", inside_N, "in 0..1")
        off_N: Floats = np.abs(p_NK.sum(axis=1) - 1)
        rows.check("p_0 ..", off_N <= SUM_TOLERANCE, "1 in sum")
        rank, rbe = truth_rank(p_NK, truth), rank_based_error(p_NK, truth)
        score = np.take_along_axis(p_NK, truth[:, None], axis=1)[:, 0]
        if classes == 2:
            p1_N, is1_N = p_NK[:, 1], truth == 1
    name = rows.texts("run", path.stem)
    outcome, group = rows.texts("outcome", "default"), rows.texts("group", "")
    keys, which = np.unique(np.rec.fromarrays([outcome, name, size]), return_inverse=True)
    for number, key in enumerate(keys):
        n = which == number
        yield Run(
            run=str(key[1]),
            size=float(key[2]),
            outcome=str(key[0]),
            rank_N=rank[n],
            rbe_N=np.unique(rbe[n], return_inverse=True)[1],
            score_N=score[n],
            classes=classes,
            p1_N=None if p1_N is None else p1_N[n],
            is1_N=None if is1_N is None else is1_N[n],
            group_N=group[n] if "group" in table.column_names else None,
        )


@dataclass(frozen=True, slots=True)
class _Columns:
    """Typed columns of a table; what is wrong is said with the file's and the column's name."""

    path: Path
    table: pa.Table

    def numbers(self, name: str) -> Floats:
        if name not in self.table.column_names:
            raise SpecSemError(f"{self.path.name}: the column {name!r} is missing.")
        column = self.table.column(name)
        try:
            values: Floats = column.cast(pa.float64()).to_numpy()
        except pa.ArrowException as error:
            raise SpecSemError(f"{self.path.name}: {name!r} must hold numbers.") from error
        self.check(name, np.isfinite(values), "a finite number")
        return values

    def integers(self, name: str) -> Ints:
        values = self.numbers(name)
        self.check(name, values == np.round(values), "a whole number")
        return values.astype(np.int64)

    def texts(self, name: str, otherwise: str) -> npt.NDArray[np.str_]:
        if name not in self.table.column_names:
            return np.full(self.table.num_rows, otherwise)
        return np.array(["" if v is None else str(v) for v in self.table.column(name).to_pylist()])

    def classes(self) -> int | None:
        """K of p_0 .. p_<K-1>; None if there are no such columns."""
        found = [name for name in self.table.column_names if re.fullmatch(r"p_\d+", name)]
        if not found:
            return None
        if len(found) == 1:
            raise SpecSemError(f"{self.path.name}: the column 'p_1' is missing; two outcomes are the least.")
        return len(found)  # a hole among them is a missing column

    def check(self, name: str, good: Bools, must: str) -> None:
        if not good.all():
            row = int(np.argmin(good)) + 1
            raise SpecSemError(f"{self.path.name}: {name!r} must be {must}; it isn't in row {row}.")
