"""Every statement on webhooks and their deliveries. Blocking, as ``app.jobs.store``.

``tenant`` None is the operator, who sees all.
"""

import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, Update, and_, delete, exists, func, or_, select, update
from sqlalchemy.orm import Session, defer

from app.jobs.store import Store, hit
from app.jobs.table import DeliveryRow, WebhookRow
from app.webhooks import outbox
from app.webhooks.events import PING
from specsem.records import DeliveryStatus, DisabledBecause

__all__ = ["Claimed", "Failure", "NewEndpoint", "TooMany", "WebhookStore"]

LEASE_BYTES = 16
NO_LEASE: dict[str, Any] = {"lease": None, "lease_until": None}


class TooMany(Exception):
    """The tenant has as many endpoints as it may have."""


@dataclass(frozen=True, slots=True)
class NewEndpoint:
    """As ``WebhookRow`` has it."""

    id: str
    tenant: str
    url: str
    url_query: str | None = field(repr=False)
    description: str
    events: str
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Claimed:
    """A delivery under a lease, and where it goes."""

    delivery: DeliveryRow
    webhook: WebhookRow
    secrets: list[str] = field(repr=False)
    """Those that are valid now, the current one first."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an attempt failed."""

    error: str
    """One sentence."""
    status: int | None = None
    """Of the answer."""
    gone: bool = False
    """The receiver wants no more of it, ever."""
    throttles: bool = False
    """The receiver wants less of it, for a while."""
    pause_s: float = 0.0
    """Before the next attempt, in seconds."""


class WebhookStore(Store):
    """The rows. What it gives out is a snapshot: changing it changes nothing."""

    # -- endpoints ------------------------------------------------------------------------------------------

    def add(self, endpoint: NewEndpoint, *, limit: int) -> WebhookRow:
        """A new endpoint. Raises ``TooMany`` where the tenant has ``limit`` of them."""
        row = WebhookRow(
            id=endpoint.id,
            tenant=endpoint.tenant,
            url=endpoint.url,
            url_query=endpoint.url_query,
            description=endpoint.description,
            events=endpoint.events,
            secret=endpoint.secret,
        )
        counting = select(func.count()).select_from(WebhookRow).where(WebhookRow.tenant == endpoint.tenant)
        with self._session(self._writing) as session:
            if session.execute(counting).scalar_one() >= limit:
                raise TooMany
            row.created_at = self._seconds(session)
            session.add(row)
        return row

    def find(self, tenant: str | None, webhook_id: str) -> WebhookRow | None:
        """An endpoint."""
        with self._session(self._engine) as session:
            return self._endpoint(session, tenant, webhook_id)

    def listed(self, tenant: str | None) -> list[WebhookRow]:
        """All endpoints, the latest first."""
        wanted = select(WebhookRow).order_by(WebhookRow.created_at.desc(), WebhookRow.id)
        if tenant is not None:
            wanted = wanted.where(WebhookRow.tenant == tenant)
        with self._session(self._engine) as session:
            return list(session.scalars(wanted))

    def change(
        self, tenant: str | None, webhook_id: str, *, enabled: bool | None = None, **values: Any
    ) -> WebhookRow | None:
        """Change columns of an endpoint, and whether it is told anything. None: there is none."""
        with self._session(self._writing) as session:
            row = self._endpoint(session, tenant, webhook_id)
            if row is None:
                return None
            for name, value in values.items():
                setattr(row, name, value)
            if enabled and row.disabled_at is not None:
                row.disabled_at = row.disabled_because = None
            elif enabled is False and row.disabled_at is None:
                session.flush()
                self._disable(session, row, "requested")
            return row

    def rotate(
        self, tenant: str | None, webhook_id: str, secret: str, *, overlap_s: float
    ) -> WebhookRow | None:
        """A new secret; the old one signs for a while longer. None: there is no such endpoint."""
        with self._session(self._writing) as session:
            row = self._endpoint(session, tenant, webhook_id)
            if row is None:
                return None
            row.old_secret, row.old_secret_until = None, None
            if overlap_s > 0:
                row.old_secret, row.old_secret_until = row.secret, self._seconds(session) + overlap_s
            row.secret = secret
            return row

    def remove(self, tenant: str | None, webhook_id: str) -> bool:
        """Forget an endpoint and what was on its way there. False: there is none."""
        statement = delete(WebhookRow).where(*_is(tenant, WebhookRow.tenant), WebhookRow.id == webhook_id)
        with self._session(self._writing) as session:
            removed = hit(session, statement)
            if removed:  # after the endpoint: whoever just wrote to it is through by then
                session.execute(delete(DeliveryRow).where(DeliveryRow.webhook_id == webhook_id))
            return removed

    # -- deliveries -----------------------------------------------------------------------------------------

    def ping(self, webhook: WebhookRow) -> DeliveryRow:
        """A message to this endpoint alone, to see whether it arrives."""
        with self._session(self._writing) as session:
            event_id = outbox.address(session, webhook.tenant, PING, {"webhook": webhook.id}, [webhook.id])
            return session.scalars(select(DeliveryRow).where(DeliveryRow.event_id == event_id)).one()

    def delivery(self, webhook: WebhookRow, event_id: str) -> DeliveryRow | None:
        """An event on its way to an endpoint."""
        wanted = select(DeliveryRow).where(_to(webhook), DeliveryRow.event_id == event_id)
        with self._session(self._engine) as session:
            return session.scalars(wanted).one_or_none()

    def page(
        self, webhook: WebhookRow, *, statuses: Sequence[DeliveryStatus], before: int | None, limit: int
    ) -> list[DeliveryRow]:
        """Its deliveries, the latest first, without payloads; ``before`` is the row id of the last one."""
        wanted = select(DeliveryRow).where(_to(webhook)).order_by(DeliveryRow.id.desc()).limit(limit)
        if statuses:
            wanted = wanted.where(DeliveryRow.status.in_(statuses))
        if before is not None:
            wanted = wanted.where(DeliveryRow.id < before)
        with self._session(self._engine) as session:
            return list(session.scalars(wanted.options(defer(DeliveryRow.payload))))

    def redeliver(self, webhook: WebhookRow, event_id: str | None = None) -> int:
        """Send an event again under its id, or every dead letter; how many that are."""
        which = DeliveryRow.status == "dead" if event_id is None else DeliveryRow.event_id == event_id
        now = self._now()
        again = (
            update(DeliveryRow)
            .where(_to(webhook), which)
            .values(status="pending", attempts=0, since=now, not_before=now, ended_at=None)
            .returning(DeliveryRow.id)
        )
        with self._session(self._writing) as session:
            session.execute(update(WebhookRow).where(WebhookRow.id == webhook.id).values(held_until=None))
            return len(session.execute(again).all())

    # -- for the dispatcher ---------------------------------------------------------------------------------

    def claim(
        self, *, lease_s: float, but_webhooks: Collection[str] = (), but_tenants: Collection[str] = ()
    ) -> Claimed | None:
        """What has been due the longest and nobody is at, under a lease of the caller's; not to these
        endpoints, and not of these tenants. None: there is none."""
        now = self._now()
        held = exists().where(WebhookRow.id == DeliveryRow.webhook_id, WebhookRow.held_until > now)
        following = (
            select(DeliveryRow.id)
            .where(
                ~held,
                DeliveryRow.status == "pending",
                DeliveryRow.not_before <= now,
                or_(DeliveryRow.lease_until.is_(None), DeliveryRow.lease_until < now),
                DeliveryRow.webhook_id.not_in(but_webhooks),
                DeliveryRow.tenant.not_in(but_tenants),
            )
            .order_by(DeliveryRow.not_before)
            .limit(1)
        )
        if not self._sqlite:  # as for jobs
            following = following.with_for_update(skip_locked=True)
        statement = (
            update(DeliveryRow)
            .where(DeliveryRow.id == following.scalar_subquery())
            .values(
                lease=secrets.token_hex(LEASE_BYTES),
                lease_until=now + lease_s,
                attempts=DeliveryRow.attempts + 1,
                last_attempt_at=now,
            )
            .returning(DeliveryRow)
        )
        with self._session(self._writing) as session:
            delivery = session.execute(statement).scalar_one_or_none()
            if delivery is None:
                return None
            webhook = session.get_one(WebhookRow, delivery.webhook_id)
            signing = [webhook.secret]
            if webhook.old_secret and (webhook.old_secret_until or 0) > self._seconds(session):
                signing.append(webhook.old_secret)
            return Claimed(delivery, webhook, signing)

    def delivered(self, delivery: DeliveryRow, status: int) -> bool:
        """It arrived. False: the lease is another's, or the delivery is gone; nothing was written then."""
        ended = {"status": "delivered", "ended_at": self._now(), "last_status": status, "last_error": None}
        with self._session(self._writing) as session:
            return hit(session, _held(delivery).values(**ended, **NO_LEASE))

    def failed(self, delivery: DeliveryRow, failure: Failure, *, retry_s: float) -> DeliveryStatus | None:
        """It didn't arrive. What it is now: pending, or dead once it has been tried for ``retry_s`` seconds.
        None: as False of ``delivered``."""
        told = {"last_status": failure.status, "last_error": failure.error}
        with self._session(self._writing) as session:
            webhook = None
            if (
                failure.gone or failure.throttles
            ):  # the endpoint is locked before its deliveries, as everywhere
                webhook = session.get(WebhookRow, delivery.webhook_id, with_for_update=True)
            now, give_up_at = self._seconds(session), delivery.since + retry_s
            if webhook is not None and failure.throttles:
                webhook.held_until = now + failure.pause_s
            if failure.gone or now >= give_up_at:
                dead = _held(delivery).values(status="dead", ended_at=now, **told, **NO_LEASE)
                held = hit(session, dead)
                if webhook is not None and failure.gone and webhook.disabled_at is None:
                    self._disable(session, webhook, "gone")
                return "dead" if held else None
            until = min(now + failure.pause_s, give_up_at)
            waits = _held(delivery).values(not_before=until, **told, **NO_LEASE)
            return "pending" if hit(session, waits) else None

    def hand_back(self, delivery: DeliveryRow) -> bool:
        """Let others send it, now; an attempt that was cut short by us doesn't count. False: as above."""
        with self._session(self._writing) as session:
            return hit(session, _held(delivery).values(attempts=delivery.attempts - 1, **NO_LEASE))

    # -- for the janitor ------------------------------------------------------------------------------------

    def oldest_pending_s(self) -> float:
        """How long what waits longest has waited for its first success, in seconds; 0 where nothing waits."""
        waited = select(self._now() - func.min(DeliveryRow.since)).where(DeliveryRow.status == "pending")
        with self._session(self._engine) as session:
            return max(0.0, session.execute(waited).scalar_one() or 0.0)

    def purge(self, *, ttl_s: float) -> int:
        """Remove deliveries that ended so long ago, and old secrets. How many deliveries."""
        now = self._now()
        over = delete(DeliveryRow).where(DeliveryRow.ended_at <= now - ttl_s).returning(DeliveryRow.id)
        expired = (
            update(WebhookRow)
            .where(WebhookRow.old_secret_until <= now)
            .values(old_secret=None, old_secret_until=None)
        )
        with self._session(self._writing) as session:
            session.execute(expired)
            return len(session.execute(over).all())

    # -- how ------------------------------------------------------------------------------------------------

    def _seconds(self, session: Session) -> float:
        return session.scalar(select(self._now())) or 0.0

    def _endpoint(self, session: Session, tenant: str | None, webhook_id: str) -> WebhookRow | None:
        return session.scalars(
            select(WebhookRow).where(*_is(tenant, WebhookRow.tenant), WebhookRow.id == webhook_id)
        ).one_or_none()

    def _disable(self, session: Session, webhook: WebhookRow, because: DisabledBecause) -> None:
        """Tell it no more; what waits or is under way is dead. Redelivery brings it back."""
        now = self._seconds(session)
        webhook.disabled_at, webhook.disabled_because = now, because
        session.flush()
        session.execute(
            update(DeliveryRow)
            .where(_to(webhook), DeliveryRow.status == "pending")
            .values(status="dead", ended_at=now, last_error="The endpoint was disabled.", **NO_LEASE)
        )


def _is(tenant: str | None, column: Any) -> list[ColumnElement[bool]]:
    return [] if tenant is None else [column == tenant]


def _to(webhook: WebhookRow) -> ColumnElement[bool]:
    return DeliveryRow.webhook_id == webhook.id


def _held(delivery: DeliveryRow) -> Update:
    """An update of the row if the lease that came with ``delivery`` still holds."""
    return update(DeliveryRow).where(and_(DeliveryRow.id == delivery.id, DeliveryRow.lease == delivery.lease))
