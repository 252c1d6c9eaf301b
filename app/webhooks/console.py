"""Webhooks for the operator at a command line: blocking, over all tenants, in plain records."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from pydantic import ValidationError

from app.jobs.database import open_database
from app.jobs.table import WebhookRow
from app.keys import TENANT
from app.problems import Problem
from app.schemas import NewWebhook, WebhookChange, delivery_of, webhook_of, webhook_with_secret_of
from app.settings import Settings
from app.webhooks.service import Webhooks
from specsem.errors import SpecSemError
from specsem.records import DeliveryStatus

__all__ = ["Console", "WebhookRefused"]

T = TypeVar("T")

SHOWN = 100
"""Deliveries in a list, the latest."""


class WebhookRefused(SpecSemError):
    """What can't be done with a webhook."""

    code = "webhook_refused"


class Console:
    """The webhooks of a service, whether it runs or not. What there is to send, the service sends.

    Every call raises ``WebhookRefused`` with a sentence that says what is wrong, and
    ``DataDirUnusable`` or ``StoreUnusable`` where the data folder or the database can't be used.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def create(
        self, url: str, *, tenant: str = "", events: Sequence[str] = (), description: str = ""
    ) -> dict[str, Any]:
        """A new one, with its secret."""
        if TENANT.fullmatch(tenant) is None:
            raise WebhookRefused("A tenant is a word of small letters, digits, dots, dashes and underscores.")
        asked = self._read(NewWebhook, url=url, events=list(events), description=description)
        row = self._ask(
            lambda webhooks: webhooks.create(
                tenant, asked.url, events=asked.events, description=asked.description
            )
        )
        return _record(row) | {"secret": row.secret}

    def listed(self, tenant: str | None = None) -> list[dict[str, Any]]:
        """All, or those of a tenant, the latest first."""
        return [_record(row) for row in self._ask(lambda webhooks: webhooks.listed(tenant))]

    def change(self, webhook_id: str, **changes: Any) -> dict[str, Any]:
        """Change what is not None: ``url``, ``events``, ``description``, ``enabled``."""
        asked = self._read(WebhookChange, **changes)
        return _record(self._ask(lambda webhooks: webhooks.change(None, webhook_id, **asked.model_dump())))

    def rotate(self, webhook_id: str, *, overlap_s: float | None = None) -> dict[str, Any]:
        """With its new secret."""
        row = self._ask(lambda webhooks: webhooks.rotate(None, webhook_id, overlap_s=overlap_s))
        return webhook_with_secret_of(row).model_dump(mode="json")

    def remove(self, webhook_id: str) -> None:
        """With all its deliveries."""
        self._ask(lambda webhooks: webhooks.remove(None, webhook_id))

    def ping(self, webhook_id: str) -> dict[str, Any]:
        """The delivery of a message that only tries it."""
        row = self._ask(lambda webhooks: webhooks.ping(None, webhook_id))
        return delivery_of(row).model_dump(mode="json")

    def deliveries(self, webhook_id: str, *, statuses: Sequence[DeliveryStatus] = ()) -> list[dict[str, Any]]:
        """What became of its latest events."""
        rows = self._ask(
            lambda webhooks: webhooks.deliveries(None, webhook_id, statuses=statuses, limit=SHOWN)
        )
        return [delivery_of(row).model_dump(mode="json") for row in rows]

    def redeliver(self, webhook_id: str, event_id: str | None = None) -> int:
        """Send an event again, or every dead letter. How many that are."""
        return self._ask(lambda webhooks: webhooks.redeliver(None, webhook_id, event_id))

    def _read(self, model: type[T], **given: Any) -> T:
        try:
            return model(**given)
        except ValidationError as error:
            found = error.errors()[0]
            raise WebhookRefused(f"{'/'.join(map(str, found['loc']))}: {found['msg']}.") from None

    def _ask(self, call: Callable[[Webhooks], Awaitable[T]]) -> T:
        async def asked() -> T:
            webhooks = Webhooks(self._settings, database)
            try:
                return await call(webhooks)
            except Problem as problem:
                raise WebhookRefused(problem.detail) from None
            finally:
                await webhooks.aclose()

        self._settings.make_data_dir()
        database = open_database(self._settings.database_address, self._settings.data_dir)
        try:
            return asyncio.run(asked())
        finally:
            database.dispose()


def _record(row: WebhookRow) -> dict[str, Any]:
    return {"tenant": row.tenant} | webhook_of(row).model_dump(mode="json")
