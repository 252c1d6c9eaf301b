"""Webhooks as routes and the command line see them: addresses checked, statements off the event loop."""

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from sqlalchemy import Engine as Database
from sqlalchemy.exc import SQLAlchemyError

from app.folders import ID_PATTERN
from app.jobs.table import DeliveryRow, WebhookRow
from app.outbound import Outbound
from app.problems import Problem
from app.settings import Settings
from app.webhooks.signing import new_secret
from app.webhooks.store import NewEndpoint, TooMany, WebhookStore
from specsem.records import DeliveryStatus

__all__ = ["Webhooks"]

logger = logging.getLogger("specsem.app")

P = ParamSpec("P")
T = TypeVar("T")

THREADS = 2
LOOK_S = 15.0
PURGE_S = 3600.0


class Webhooks:
    """The endpoints of all tenants, and what is on its way there. ``tenant`` None is the operator.

    Every call may raise ``SQLAlchemyError``: the database is away.
    """

    def __init__(self, settings: Settings, database: Database, outbound: Outbound | None = None) -> None:
        """``outbound`` is for tests: what goes through to receivers."""
        self._settings = settings
        self.store = WebhookStore(database)
        self.outbound = outbound or Outbound(settings.webhook_rules)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="specsem-webhooks")
        self.oldest_pending_s = 0.0
        """How long the event that waits longest has waited, as of the last look."""
        self.news = asyncio.Event()
        """Set when a dispatcher in this process should look again."""

    async def aclose(self) -> None:
        """Take no further calls. The database is the caller's."""
        self.outbound.close()
        await asyncio.to_thread(self._threads.shutdown, wait=True)

    async def run(self, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """A statement, in a thread of ours."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: call(*args, **kwargs))

    # -- endpoints ------------------------------------------------------------------------------------------

    async def create(
        self, tenant: str, url: str, *, events: Sequence[str] = (), description: str = ""
    ) -> WebhookRow:
        """A new endpoint. Its secret is shown to nobody after this.

        Raises:
            Problem: ``url_invalid``, ``url_refused``, ``too_many_webhooks``.
        """
        target = await self.outbound.admit(url)
        endpoint = NewEndpoint(
            id=secrets.token_hex(16),
            tenant=tenant,
            url=str(target),
            url_query=target.query,
            description=description,
            events=_joined(events),
            secret=new_secret(),
        )
        try:
            return await self.run(self.store.add, endpoint, limit=self._settings.max_webhooks)
        except TooMany:
            raise Problem(
                "too_many_webhooks", f"A tenant has at most {self._settings.max_webhooks} webhooks."
            ) from None

    async def listed(self, tenant: str | None) -> list[WebhookRow]:
        """All endpoints, the latest first."""
        return await self.run(self.store.listed, tenant)

    async def find(self, tenant: str | None, webhook_id: str) -> WebhookRow:
        """An endpoint. Raises ``Problem`` ``webhook_not_found`` (404): no such id with this tenant."""
        # What can't be an id never reaches the database: PostgreSQL takes no NUL.
        is_id = ID_PATTERN.fullmatch(webhook_id) is not None
        return _found(await self.run(self.store.find, tenant, webhook_id) if is_id else None)

    async def change(
        self,
        tenant: str | None,
        webhook_id: str,
        *,
        url: str | None = None,
        events: Sequence[str] | None = None,
        description: str | None = None,
        enabled: bool | None = None,
    ) -> WebhookRow:
        """Change what is not None. Disabled, it is told nothing more, and what waits becomes a dead letter.

        Raises:
            Problem: as ``create`` and ``find``.
        """
        await self.find(tenant, webhook_id)
        values: dict[str, str | None] = {}
        if url is not None:
            target = await self.outbound.admit(url)
            values |= {"url": str(target), "url_query": target.query}
        if events is not None:
            values["events"] = _joined(events)
        if description is not None:
            values["description"] = description
        return _found(await self.run(self.store.change, tenant, webhook_id, enabled=enabled, **values))

    async def rotate(
        self, tenant: str | None, webhook_id: str, *, overlap_s: float | None = None
    ) -> WebhookRow:
        """A new secret. The old one signs beside it for ``overlap_s`` seconds; None: as the settings say.

        Raises:
            Problem: as ``find``.
        """
        await self.find(tenant, webhook_id)
        overlap_s = self._settings.webhook_overlap_s if overlap_s is None else overlap_s
        rotating = self.run(self.store.rotate, tenant, webhook_id, new_secret(), overlap_s=overlap_s)
        return _found(await rotating)

    async def remove(self, tenant: str | None, webhook_id: str) -> None:
        """Forget an endpoint with all its deliveries. Raises ``Problem`` as ``find``."""
        await self.find(tenant, webhook_id)
        await self.run(self.store.remove, tenant, webhook_id)

    # -- deliveries -----------------------------------------------------------------------------------------

    async def ping(self, tenant: str | None, webhook_id: str) -> DeliveryRow:
        """Send a message, to see whether it arrives; the delivery tells.

        Raises:
            Problem: as ``find``; ``webhook_disabled`` (409).
        """
        delivery = await self.run(self.store.ping, await self._enabled(tenant, webhook_id))
        self.news.set()
        return delivery

    async def deliveries(
        self,
        tenant: str | None,
        webhook_id: str,
        *,
        statuses: Sequence[DeliveryStatus] = (),
        before: int | None = None,
        limit: int,
    ) -> list[DeliveryRow]:
        """The latest first, without payloads; ``before`` is the row id of the last one seen. Raises as
        ``find``."""
        webhook = await self.find(tenant, webhook_id)
        return await self.run(self.store.page, webhook, statuses=statuses, before=before, limit=limit)

    async def delivery(self, tenant: str | None, webhook_id: str, event_id: str) -> DeliveryRow:
        """An event on its way to an endpoint.

        Raises:
            Problem: as ``find``; ``delivery_not_found`` (404).
        """
        webhook = await self.find(tenant, webhook_id)
        is_id = ID_PATTERN.fullmatch(event_id) is not None
        found = await self.run(self.store.delivery, webhook, event_id) if is_id else None
        if found is None:
            raise Problem(
                "delivery_not_found", "There is no such event for this webhook; it may have been removed."
            )
        return found

    async def redeliver(self, tenant: str | None, webhook_id: str, event_id: str | None = None) -> int:
        """Send an event again, under its id; None: every dead letter. How many that are.

        Raises:
            Problem: as ``delivery``; ``webhook_disabled`` (409).
        """
        webhook = await self._enabled(tenant, webhook_id)
        if event_id is not None:
            await self.delivery(tenant, webhook_id, event_id)
        count = await self.run(self.store.redeliver, webhook, event_id)
        self.news.set()
        return count

    async def _enabled(self, tenant: str | None, webhook_id: str) -> WebhookRow:
        webhook = await self.find(tenant, webhook_id)
        if webhook.disabled_at is not None:
            raise Problem("webhook_disabled", "This webhook is disabled; enable it first.")
        return webhook

    # -- the janitor ----------------------------------------------------------------------------------------

    async def keep_house(self) -> None:
        """Look, and every hour remove what is over, for as long as it is let."""
        purged = float("-inf")
        while True:
            try:
                self.oldest_pending_s = await self.run(self.store.oldest_pending_s)
                if time.monotonic() - purged > PURGE_S:
                    await self.run(self.store.purge, ttl_s=self._settings.webhook_ttl_s)
                    purged = time.monotonic()
            except SQLAlchemyError as error:
                logger.warning("the webhooks could not be looked after: %s", type(error).__name__)
            await asyncio.sleep(LOOK_S)


def _joined(events: Sequence[str]) -> str:
    return " ".join(dict.fromkeys(events))


def _found(webhook: WebhookRow | None) -> WebhookRow:
    if webhook is None:
        raise Problem("webhook_not_found", "There is no webhook with this id; it may have been removed.")
    return webhook
