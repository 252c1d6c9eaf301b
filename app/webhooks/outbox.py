"""Writes events down in the transaction in which they happen: both are committed, or neither is."""

import json
import secrets
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from app.jobs.database import clock
from app.jobs.table import DeliveryRow, WebhookRow

__all__ = ["add", "address"]

EVENT_ID_BYTES = 16


def add(session: Session, tenant: str, event_type: str, data: Mapping[str, Any]) -> None:
    """Tell every endpoint of this tenant that asked for such events, once the caller's transaction commits.

    ``data`` is what JSON can hold. Nothing is written where nobody asked.
    """
    asked = (
        select(WebhookRow.id, WebhookRow.events)
        .where(WebhookRow.tenant == tenant, WebhookRow.disabled_at.is_(None))
        # Who disables or removes one at this moment does so after us, and finds the delivery.
        .with_for_update(read=True)
    )
    takers = [row.id for row in session.execute(asked) if not row.events or event_type in row.events.split()]
    if takers:
        address(session, tenant, event_type, data, takers)


def address(
    session: Session, tenant: str, event_type: str, data: Mapping[str, Any], webhook_ids: Sequence[str]
) -> str:
    """Write an event down for these endpoints. Its id, which is the ``webhook-id`` of every attempt."""
    now = session.scalar(select(clock(session.get_bind()))) or 0.0
    event_id = secrets.token_hex(EVENT_ID_BYTES)
    happened_at = datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    # Kept as it is sent: a signature is of bytes.
    payload = json.dumps(
        {"type": event_type, "timestamp": happened_at, "data": data}, separators=(",", ":"), allow_nan=False
    )
    row = {
        "tenant": tenant,
        "event_id": event_id,
        "type": event_type,
        "payload": payload,
        "status": "pending",
        "created_at": now,
        "since": now,
        "not_before": now,
    }
    session.execute(insert(DeliveryRow), [{**row, "webhook_id": webhook_id} for webhook_id in webhook_ids])
    return event_id
