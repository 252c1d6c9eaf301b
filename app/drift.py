"""Whether what comes in, or what the verdicts are worth, changes: scores by week, and what operators found.

Every score that is given is counted, of all tenants, by its logit: a new calibration moves no video from bin
to bin, so weeks stay comparable. Counts wait in memory for some seconds; what is killed meanwhile is lost.
"""

import asyncio
import logging
import math
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from statistics import fmean

from sqlalchemy import func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError

from app.engines import Engine
from app.jobs.store import Store
from app.jobs.table import FeedbackRow, GroupRow, ScoreCountRow
from app.settings import Settings
from specsem.calibration import Calibration
from specsem.intervals import wilson95
from specsem.records import (
    Agreement,
    Alert,
    Drift,
    HistogramBin,
    OperatingPoint,
    Opinion,
    Reliability,
    ScoreWeek,
)
from specsem.result import ScoredFile, Threshold, Verdict

__all__ = ["DriftStore", "DriftWatch", "Evidence", "Limits", "Tally", "bin_of", "edge_of", "week_of", "weigh"]

logger = logging.getLogger("specsem.app")

BIN_WIDTH = 0.5
BINS = 32
"""About 0, and one more at each end for what lies beyond."""
ENOUGH = 200
"""Scores, in the week and before it: with fewer, ten bins give some 0.1 by chance alone."""
GROUPS = 10
RELIABILITY_BINS = 5
FLUSH_S = 5.0
LOOK_S = 300.0
WEEKS = 12
WEEK_S = 7 * 86400.0


def bin_of(logit: float) -> int:
    """The bin of a logit, 0..BINS + 1."""
    return min(BINS + 1, max(0, math.floor(logit / BIN_WIDTH) + BINS // 2 + 1))


def edge_of(number: int) -> float:
    """The lower edge of a bin; of the first, which has none, a finite one."""
    return (number - BINS // 2 - 1) * BIN_WIDTH


def week_of(at: float) -> str:
    """The Monday (UTC) of a moment's week."""
    day = datetime.fromtimestamp(at, UTC).date()
    return (day - timedelta(days=day.weekday())).isoformat()


@dataclass(frozen=True, slots=True)
class Scored:
    """What is counted of an answer."""

    week: str
    weights: str
    bin: int
    verdict: Verdict


class Tally:
    """Scores given in this process and not yet in the database. Safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[Scored] = Counter()

    def count(self, answer: ScoredFile, at: float) -> None:
        """One more score."""
        scored = Scored(week_of(at), answer.model.sha256, bin_of(answer.logit), answer.verdict)
        self.give_back({scored: 1})

    def take(self) -> Mapping[Scored, int]:
        """All, which are then no longer here."""
        with self._lock:
            taken, self._counts = self._counts, Counter()
        return taken

    def give_back(self, counts: Mapping[Scored, int]) -> None:
        """Of which the database took none."""
        with self._lock:
            self._counts.update(counts)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of one model's scores and verdicts."""

    counts: Sequence[ScoreCountRow]
    opinions: Sequence[tuple[str, str, Opinion, int]]
    """Week, source, opinion, how many."""
    labels: Sequence[tuple[float, bool]]
    """Logit and whether it is generated, of videos that operators labelled."""
    groups: Sequence[tuple[str, int, int]]
    """Week, jobs, and of how many the answer was upheld."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Beyond these is an alert."""

    shift: float
    disagreement: float


class DriftStore(Store):
    """Counts of scores, and what feedback says of them. Blocking."""

    def add(self, counts: Mapping[Scored, int]) -> None:
        """Count these as well."""
        if not counts:
            return
        insert = sqlite.insert if self._sqlite else postgresql.insert
        # In one order: two processes that count at the same moment don't wait for each other in a circle.
        rows = [
            {"week": s.week, "weights": s.weights, "bin": s.bin, "verdict": s.verdict, "count": n}
            for s, n in sorted(counts.items(), key=lambda item: (item[0].week, item[0].bin, item[0].verdict))
        ]
        statement = insert(ScoreCountRow).values(rows)
        statement = statement.on_conflict_do_update(
            index_elements=["week", "weights", "bin", "verdict"],
            set_={"count": ScoreCountRow.count + statement.excluded.count},
        )
        with self._session(self._writing) as session:
            session.execute(statement)

    def stream(self, weights: str, *, since: float = 0.0) -> dict[float, int]:
        """How many were scored in the weeks since then, by the lower edge of the logit's bin."""
        counting = (
            select(ScoreCountRow.bin, func.sum(ScoreCountRow.count))
            .where(ScoreCountRow.weights == weights, ScoreCountRow.week >= week_of(since))
            .group_by(ScoreCountRow.bin)
        )
        with self._session(self._engine) as session:
            return {edge_of(number): int(n) for number, n in session.execute(counting)}

    def evidence(self, weights: str, *, since: float) -> Evidence:
        """All of a model's since the beginning of that week."""
        first = datetime.fromisoformat(week_of(since)).replace(tzinfo=UTC).timestamp()
        with self._session(self._engine) as session:
            counts = session.scalars(
                select(ScoreCountRow)
                .where(ScoreCountRow.weights == weights, ScoreCountRow.week >= week_of(since))
                .order_by(ScoreCountRow.week)
            ).all()
            said = session.scalars(
                select(FeedbackRow).where(
                    FeedbackRow.weights == weights,
                    FeedbackRow.created_at >= first,
                    FeedbackRow.ended_at.is_(None),
                )
            ).all()
            upheld = session.execute(
                select(GroupRow.created_at, GroupRow.jobs, GroupRow.count).where(
                    GroupRow.weights == weights, GroupRow.kind == "upheld", GroupRow.created_at >= first
                )
            ).all()
        opinions = Counter((week_of(row.created_at), row.source, row.opinion) for row in said if row.opinion)
        latest = {row.job_id: row for row in sorted(said, key=lambda row: row.id) if row.source == "review"}
        return Evidence(
            counts=counts,
            opinions=[(week, source, opinion, n) for (week, source, opinion), n in sorted(opinions.items())],
            labels=[(row.logit, row.label == "generated") for row in latest.values() if row.label],
            groups=[(week_of(said_at), jobs, n) for said_at, jobs, n in upheld],
        )


def weigh(evidence: Evidence, calibration: Calibration, operating_point: str, limits: Limits) -> Drift:
    """What the evidence says, with scores as this calibration gives them."""
    agreement, shift = _agreement(evidence), _shift(evidence.counts)
    point = _operating_point(evidence.labels, calibration, calibration.threshold(operating_point))
    return Drift(
        calibration=calibration.used,
        weeks=_weeks(evidence.counts, calibration),
        shift=shift,
        agreement=agreement,
        reliability=_reliability(evidence.labels, calibration),
        operating_point=point,
        alerts=list(_alerts(shift, agreement, point, limits)),
    )


def _weeks(counts: Sequence[ScoreCountRow], calibration: Calibration) -> list[ScoreWeek]:
    by_week: dict[str, list[ScoreCountRow]] = {}
    for row in counts:
        by_week.setdefault(row.week, []).append(row)
    weeks = []
    for week, rows in by_week.items():
        bins: Counter[int] = Counter()
        verdicts: Counter[str] = Counter()
        for row in rows:
            bins[row.bin] += row.count
            verdicts[row.verdict] += row.count
        n = bins.total()
        weeks.append(
            ScoreWeek(
                week=week,
                n=n,
                generated=verdicts["generated"] / n,
                generated95=wilson95(verdicts["generated"], n),
                inconclusive=verdicts["inconclusive"] / n,
                histogram=[
                    HistogramBin(
                        lower=calibration.probability(edge_of(number)) if number else 0.0,
                        upper=calibration.probability(edge_of(number + 1)) if number <= BINS else 1.0,
                        count=bins[number],
                    )
                    for number in range(BINS + 2)
                    if bins[number]
                ],
            )
        )
    return weeks


def _shift(counts: Sequence[ScoreCountRow]) -> float | None:
    """Population stability index of the latest week with enough scores, against all weeks before it.

    Over about ten bins that are equally full in the weeks before: in narrow ones chance would be a shift.
    """
    by_week: dict[str, Counter[int]] = {}
    for row in counts:
        by_week.setdefault(row.week, Counter())[row.bin] += row.count
    weeks = sorted(by_week)
    latest = next((week for week in reversed(weeks) if by_week[week].total() >= ENOUGH), None)
    if latest is None:
        return None
    before: Counter[int] = Counter()
    for week in weeks:
        if week < latest:
            before.update(by_week[week])
    if before.total() < ENOUGH:
        return None
    now = by_week[latest]
    index, then_n, now_n = 0.0, 0, 0
    full = before.total() / GROUPS
    for number in range(BINS + 2):
        then_n, now_n = then_n + before[number], now_n + now[number]
        if then_n >= full or (number == BINS + 1 and then_n + now_n):
            then_share = (then_n + 0.5) / (before.total() + 0.5 * GROUPS)  # an empty bin has no logarithm
            now_share = (now_n + 0.5) / (now.total() + 0.5 * GROUPS)
            index += (now_share - then_share) * math.log(now_share / then_share)
            then_n = now_n = 0
    return index


def _agreement(evidence: Evidence) -> list[Agreement]:
    found: dict[str, Counter[str]] = {}
    for week, source, opinion, n in evidence.opinions:
        found.setdefault(week, Counter())[f"{source} {opinion}"] += n
    for week, jobs, upheld in evidence.groups:
        found.setdefault(week, Counter()).update({"review right": upheld, "review wrong": jobs - upheld})
    return [
        Agreement(
            week=week,
            right=(right := n["review right"]),
            wrong=(wrong := n["review wrong"]),
            disagreement=wrong / (right + wrong) if right + wrong else None,
            disagreement95=wilson95(wrong, right + wrong) if right + wrong else None,
            reported_right=n["user right"],
            reported_wrong=n["user wrong"],
            reported_unsure=n["user unsure"],
        )
        for week, n in sorted(found.items())
    ]


def _reliability(labels: Sequence[tuple[float, bool]], calibration: Calibration) -> list[Reliability]:
    """What scores promise among the labelled videos, whose odds are not even, and what they are."""
    generated = sum(truth for _, truth in labels)
    real = len(labels) - generated
    if not generated or not real:
        return []
    by_bin: dict[int, list[tuple[float, bool]]] = {}
    for logit, truth in labels:
        score = calibration.probability(logit)
        by_bin.setdefault(min(RELIABILITY_BINS - 1, int(score * RELIABILITY_BINS)), []).append((score, truth))
    return [
        Reliability(
            lower=number / RELIABILITY_BINS,
            upper=(number + 1) / RELIABILITY_BINS,
            n=len(inside),
            expected=fmean(
                score * generated / (score * generated + (1 - score) * real) for score, _ in inside
            ),
            generated=sum(truth for _, truth in inside) / len(inside),
            generated95=wilson95(sum(truth for _, truth in inside), len(inside)),
        )
        for number, inside in sorted(by_bin.items())
    ]


def _operating_point(
    labels: Sequence[tuple[float, bool]], calibration: Calibration, threshold: Threshold
) -> OperatingPoint:
    scored = [(calibration.probability(logit), truth) for logit, truth in labels]
    real = [score for score, truth in scored if not truth]
    generated = [score for score, truth in scored if truth]
    false_alarms = sum(score >= threshold.value for score in real)
    missed = sum(score < threshold.lower for score in generated)
    return OperatingPoint(
        threshold=threshold,
        real=len(real),
        false_positives=false_alarms,
        false_positive_rate95=wilson95(false_alarms, len(real)),
        generated=len(generated),
        called_authentic=missed,
        called_authentic95=wilson95(missed, len(generated)),
    )


def _alerts(
    shift: float | None, agreement: Sequence[Agreement], point: OperatingPoint, limits: Limits
) -> Iterable[Alert]:
    if shift is not None and shift > limits.shift:
        text = "What is sent scores otherwise than in the weeks before: a new client, camera or generator."
        yield Alert(name="scores_shifted", value=shift, limit=limits.shift, text=text)
    latest = next((week for week in reversed(agreement) if week.disagreement95), None)
    if latest is not None and latest.disagreement95 is not None:
        surely = latest.disagreement95[0]
        if surely > limits.disagreement:
            text = "Operators find more answers wrong than the limit, even at the low end of the interval."
            yield Alert(name="operators_disagree", value=surely, limit=limits.disagreement, text=text)
    surely = point.false_positive_rate95[0]
    if point.real and surely > point.threshold.max_fpr:
        text = (
            "Of the camera videos that operators labelled, more are called generated than the policy "
            "allows. They label what is doubtful first: `specsem recalibrate` weights for that."
        )
        yield Alert(name="false_positives", value=surely, limit=point.threshold.max_fpr, text=text)


class DriftWatch:
    """Counts the scores of this process, and looks at all of them from time to time."""

    def __init__(
        self, settings: Settings, store: DriftStore, engine: Engine, *, operating_point: str = "default"
    ) -> None:
        """``operating_point``: whose thresholds give the verdicts."""
        self._settings = settings
        self._operating_point = operating_point
        self._store = store
        self._engine = engine
        self._tally = Tally()
        self.seen: Drift | None = None
        """As of the last look."""

    def count(self, answer: ScoredFile) -> None:
        """A score was given."""
        self._tally.count(answer, time.time())

    async def look(self, weeks: int = WEEKS) -> Drift:
        """How it stands, over the last weeks.

        Raises:
            Problem: ``not_ready``, before the model is loaded.
            SQLAlchemyError: the database is away.
        """
        record, calibration = self._engine.record, self._engine.calibration
        await self.flush()
        since = time.time() - (weeks - 1) * WEEK_S
        evidence = await asyncio.to_thread(self._store.evidence, record.sha256, since=since)
        limits = Limits(self._settings.drift_shift, self._settings.drift_disagreement)
        return weigh(evidence, calibration, self._operating_point, limits)

    async def flush(self) -> None:
        """Bring to the database what was counted. Raises ``SQLAlchemyError``; nothing is lost then."""
        counts = self._tally.take()
        try:
            await asyncio.to_thread(self._store.add, counts)
        except BaseException:
            self._tally.give_back(counts)
            raise

    async def run(self) -> None:
        """Flush and look again and again, for as long as it is let."""
        looked = float("-inf")
        while True:
            try:
                await self.flush()
                if self._engine.ready and time.monotonic() - looked > LOOK_S:
                    self.seen = await self.look()
                    looked = time.monotonic()
            except SQLAlchemyError as error:
                logger.warning("scores could not be counted (%s)", type(error).__name__)
            await asyncio.sleep(FLUSH_S)

    async def aclose(self) -> None:
        """Bring the last counts to the database, if it is there."""
        try:
            await self.flush()
        except SQLAlchemyError as error:
            logger.warning("the last scores were not counted (%s)", type(error).__name__)
