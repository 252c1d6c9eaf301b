"""Calibrations that were fitted from feedback: kept with numbers, activated and rolled back by an operator.

Which one is active is in the database, and every process looks there each `FOLLOW_S` seconds: all agree so
soon. Each answer says which one made it, and stored answers are looked up by it. 0 is the model's own.
"""

import asyncio
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any

from sqlalchemy import func, insert, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app.audit import Event, append
from app.drift import DriftStore
from app.engines import Engine
from app.jobs.database import database_of
from app.jobs.feedback import FeedbackStore
from app.jobs.store import Store
from app.jobs.table import ActivationRow, CalibrationRow
from app.keys import time_of
from app.settings import Settings
from specsem.calibration import Calibration, CalibrationUnusable, Confirmation
from specsem.errors import SpecSemError
from specsem.policy import Policy, refusals, require_supported
from specsem.registry import ModelRecord, get_model

__all__ = [
    "CalibrationRefused",
    "CalibrationStore",
    "Follower",
    "Workbench",
    "described",
    "open_calibrations",
]

logger = logging.getLogger("specsem.app")

FOLLOW_S = 2.0


class CalibrationRefused(SpecSemError):
    """What can't be done with a calibration."""

    code = "calibration_refused"


class CalibrationStore(Store):
    """The calibrations of each model, by the SHA-256 of its weights. Blocking."""

    def add(self, weights: str, calibration: Calibration, *, note: str = "") -> Calibration:
        """Keep it under the next number; it is not active by that."""
        with self._session(self._writing) as session:
            last = session.scalar(select(func.max(CalibrationRow.version))) or 0
            kept = replace(calibration, version=last + 1)
            session.execute(
                insert(CalibrationRow).values(
                    version=kept.version,
                    weights=weights,
                    content=kept.to_json(),
                    note=note,
                    created_at=self._now(),
                )
            )
            details = {"weights": weights, "version": kept.version, "sha256": kept.used.sha256}
            append(session, Event("calibration_made", details=details))
        return kept

    def find(self, weights: str, version: int) -> CalibrationRow | None:
        """One that was kept."""
        wanted = select(CalibrationRow).where(
            CalibrationRow.version == version, CalibrationRow.weights == weights
        )
        with self._session(self._engine) as session:
            return session.scalar(wanted)

    def listed(self, weights: str) -> list[CalibrationRow]:
        """All that were kept, the latest first."""
        wanted = select(CalibrationRow).where(CalibrationRow.weights == weights)
        with self._session(self._engine) as session:
            return list(session.scalars(wanted.order_by(CalibrationRow.version.desc())))

    def active(self, weights: str) -> int:
        """The number of the active one; 0 is the model's own."""
        with self._session(self._engine) as session:
            last = _last(session, weights)
            return 0 if last is None else last.version

    def activate(self, weights: str, version: int) -> None:
        """Make it the active one.

        Raises:
            CalibrationRefused: there is none of this number for these weights, or it is active already.
        """
        with self._session(self._writing) as session:
            known = select(CalibrationRow.version).where(
                CalibrationRow.version == version, CalibrationRow.weights == weights
            )
            if version and session.scalar(known) is None:
                raise CalibrationRefused(f"There is no calibration {version} for this model; see `list`.")
            last = _last(session, weights)
            before = 0 if last is None else last.version
            if before == version:
                raise CalibrationRefused(f"Calibration {version} is the active one already.")
            session.add(ActivationRow(weights=weights, version=version, at=self._now()))
            details = {"weights": weights, "version": version, "before": before}
            append(session, Event("calibration_activated", details=details))

    def before(self, weights: str) -> int:
        """The number of the one that would be active if the last activation were undone."""
        with self._session(self._engine) as session:
            standing = select(ActivationRow.version).where(
                ActivationRow.weights == weights, ~ActivationRow.undone
            )
            return session.scalar(standing.order_by(ActivationRow.id.desc()).offset(1).limit(1)) or 0

    def roll_back(self, weights: str) -> int:
        """Undo the last activation. The number of the one that is active by that.

        Raises:
            CalibrationRefused: the model's own is the active one, and none was before it.
        """
        with self._session(self._writing) as session:
            last = _last(session, weights)
            if last is None:
                raise CalibrationRefused("Nothing was activated: the model's own calibration is active.")
            undone = last.version
            session.execute(update(ActivationRow).where(ActivationRow.id == last.id).values(undone=True))
            before = _last(session, weights)
            version = 0 if before is None else before.version
            details = {"weights": weights, "version": version, "undone": undone}
            append(session, Event("calibration_rolled_back", details=details))
            return version


def _last(session: Session, weights: str) -> ActivationRow | None:
    standing = select(ActivationRow).where(ActivationRow.weights == weights, ~ActivationRow.undone)
    return session.scalar(standing.order_by(ActivationRow.id.desc()).limit(1))


class Follower:
    """Has the engine of this process judge by the calibration that is active."""

    def __init__(self, store: CalibrationStore, engine: Engine, policies: Sequence[Policy] = ()) -> None:
        """``policies`` are those that have to be kept by whatever becomes active."""
        self._store = store
        self._engine = engine
        self._policies = policies
        self._refused: int | None = None

    async def look(self) -> None:
        """Look once. One that can't be used is said in the log, and the engine keeps what it has.

        Raises:
            SQLAlchemyError: the database is away.
        """
        weights = self._engine.record.sha256
        version = await asyncio.to_thread(self._store.active, weights)
        if version in {self._engine.calibration.version, self._refused}:
            return
        try:
            wanted = await asyncio.to_thread(self._read, weights, version)
            for policy in self._policies:
                require_supported(policy, (wanted or self._engine.shipped).policies)
            self._engine.use(wanted)
        except SpecSemError as error:
            self._refused = version
            logger.error("calibration %d can't be used: %s", version, error.message)
        else:
            self._refused = None
            logger.info("verdicts are by calibration %d from now on", version)

    def _read(self, weights: str, version: int) -> Calibration | None:
        if version == 0:
            return None
        row = self._store.find(weights, version)
        if row is None:
            raise CalibrationUnusable("It is not in the database.")
        return Calibration.from_json(row.content)

    async def run(self) -> None:
        """Look again and again, for as long as it is let."""
        while True:
            await asyncio.sleep(FOLLOW_S)
            try:
                await self.look()
            except SQLAlchemyError as error:
                logger.warning("the active calibration is not known (%s)", type(error).__name__)


class Workbench:
    """The calibrations of a service's model for the operator at a command line, whether it runs or not."""

    def __init__(
        self,
        settings: Settings,
        record: ModelRecord,
        store: CalibrationStore,
        said: FeedbackStore,
        drift: DriftStore,
    ) -> None:
        self._settings = settings
        self._record = record
        self._store = store
        self._said = said
        self._drift = drift

    def base(self) -> Calibration:
        """The active one."""
        return self._load(self._store.active(self._record.sha256))

    def confirmations(self, *, since: float = 0.0, users: bool = False) -> list[Confirmation]:
        """What operators said since then of answers by this model; with ``users``, what users did as well."""
        return self._said.confirmations(self._record.sha256, since=since, users=users)

    def stream(self, *, since: float = 0.0) -> Mapping[float, int]:
        """What was scored in the weeks since then, by the lower edge of the logit's bin."""
        return self._drift.stream(self._record.sha256, since=since)

    def keep(self, calibration: Calibration, *, note: str = "") -> Calibration:
        """Keep a new one under the next number. It waits to be activated."""
        return self._store.add(self._record.sha256, calibration, note=note)

    def listed(self) -> list[dict[str, Any]]:
        """All, the latest first, the model's own last."""
        return described(self._record, Calibration.load(self._record.folder), self._store)

    def shown(self, version: int) -> str:
        """One as a file has it."""
        return self._load(version).to_json()

    def activate(self, version: int) -> None:
        """Make it the active one.

        Raises:
            CalibrationRefused: there is none of this number, it is active already, or a policy in use
                promises what it can't keep: services would go on with the one that they have.
            FileUnusable, PolicyRefused, UnknownPolicy: there are no policies to hold it against.
        """
        self._require_supported(version)
        self._store.activate(self._record.sha256, version)

    def roll_back(self) -> int:
        """The number of the one that is active by that.

        Raises:
            CalibrationRefused: there is nothing to undo; or as ``activate``.
            FileUnusable, PolicyRefused, UnknownPolicy: as ``activate``.
        """
        self._require_supported(self._store.before(self._record.sha256))
        return self._store.roll_back(self._record.sha256)

    def _require_supported(self, version: int) -> None:
        points = self._load(version).policies
        for policy in self._settings.policies_in_use():
            if found := refusals(policy, points):
                raise CalibrationRefused(
                    f"Calibration {version} can't be used with the policy {policy}. {' '.join(found)} "
                    "Change the policy first (SPECSEM_POLICY, SPECSEM_POLICY_FILE), or fit another."
                )

    def _load(self, version: int) -> Calibration:
        if version == 0:
            return Calibration.load(self._record.folder)
        row = self._store.find(self._record.sha256, version)
        if row is None:
            raise CalibrationRefused(
                f"There is no calibration {version} for {self._record.name}; see `list`."
            )
        return Calibration.from_json(row.content)


def described(record: ModelRecord, own: Calibration, store: CalibrationStore) -> list[dict[str, Any]]:
    """Every calibration of a model, the latest first, in plain records. ``own``: that came with it."""
    active = store.active(record.sha256)
    kept = [(Calibration.from_json(row.content), row) for row in store.listed(record.sha256)]
    return [
        {
            "version": found.version,
            "active": found.version == active,
            "model": f"{record.name} {record.version}",
            "sha256": found.used.sha256,
            "created_at": None if row is None else time_of(row.created_at),
            "note": "came with the model" if row is None else row.note,
            "slope": found.slope,
            "intercept": found.intercept,
            "policies": {name: threshold.model_dump() for name, threshold in found.policies.items()},
            "basis": None if found.basis is None else asdict(found.basis),
        }
        for found, row in [*kept, (own, None)]
    ]


@contextmanager
def open_calibrations(settings: Settings) -> Iterator[Workbench]:
    """The calibrations of the model that the settings name.

    Raises:
        DataDirUnusable, StoreUnusable: the data folder or the database can't be used.
        UnknownModel: no such model.
    """
    record = get_model(settings.model)
    with database_of(settings) as engine:
        yield Workbench(settings, record, CalibrationStore(engine), FeedbackStore(engine), DriftStore(engine))
