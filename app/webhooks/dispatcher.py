"""Sends what is in the outbox: claims, signs, posts, and writes down how it went."""

import asyncio
import contextlib
import logging
import random
from collections import Counter
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from sqlalchemy.exc import SQLAlchemyError

from app.observability.metrics import DeliveryOutcome
from app.observability.telemetry import Telemetry
from app.outbound import Answer, parse_url
from app.problems import Problem
from app.settings import Settings
from app.webhooks.service import Webhooks
from app.webhooks.signing import signed_headers
from app.webhooks.store import Claimed, Failure

__all__ = ["Dispatcher", "pause_s"]

logger = logging.getLogger("specsem.app")

POLL_S = 1.0
AWAY_PAUSE_S = 5.0
FIRST_PAUSE_S = 5.0
PAUSE_FACTOR = 3.0
LONGEST_PAUSE_S = 3600.0
JITTER = 0.2
"""Of a pause, up or down: receivers that come back don't get all of it at the same moment."""
PER_WEBHOOK = 2
"""Messages at a time to one endpoint: one that is slow holds up itself."""
LAST_SENDS_S = 2.0
"""At a stop, what is under way has so long to arrive; else it is handed back and sent again."""
THROTTLING = frozenset({429, 502, 503, 504})
"""The receiver has more than it can take."""
GONE = 410


def pause_s(attempts: int) -> float:
    """Seconds after so many failed attempts: 5 s, then three times as long each time, an hour at most."""
    pause = min(FIRST_PAUSE_S * PAUSE_FACTOR ** min(attempts - 1, 10), LONGEST_PAUSE_S)
    return pause * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - no secret


class Dispatcher:
    """Sends up to ``webhook_slots`` messages at a time, at most half of them of one tenant, until stopped."""

    def __init__(self, webhooks: Webhooks, settings: Settings, telemetry: Telemetry | None = None) -> None:
        self._webhooks = webhooks
        self._settings = settings
        self._telemetry = telemetry or Telemetry()
        self._slots = settings.webhook_slots
        self._under_way: dict[asyncio.Task[None], Claimed] = {}
        self._stopping = False

    def stop(self) -> None:
        """Send nothing more."""
        self._stopping = True
        self._webhooks.news.set()

    async def run(self) -> None:
        """Send."""
        news = self._webhooks.news
        while not self._stopping:
            wait_s = POLL_S
            news.clear()
            try:
                while not self._stopping and len(self._under_way) < self._slots and await self._start_one():
                    pass
            except SQLAlchemyError as error:
                logger.warning("no webhook could be claimed: %s", type(error).__name__)
                wait_s = AWAY_PAUSE_S
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):  # jobs end in other processes too
                    await news.wait()
        under_way = list(self._under_way)
        if under_way:
            await asyncio.wait(under_way, timeout=LAST_SENDS_S)
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)

    async def _start_one(self) -> bool:
        """Whether there was something to send."""
        at_work = list(self._under_way.values())
        webhooks = Counter(claimed.webhook.id for claimed in at_work)
        tenants = Counter(claimed.webhook.tenant for claimed in at_work)
        share = max(1, self._slots // 2)
        claimed = await self._webhooks.run(
            self._webhooks.store.claim,
            # All of an attempt lies within the time limit; the rest is for writing it down.
            lease_s=2 * self._settings.webhook_timeout_s,
            but_webhooks=[webhook for webhook, count in webhooks.items() if count >= PER_WEBHOOK],
            but_tenants=[tenant for tenant, count in tenants.items() if count >= share],
        )
        if claimed is None:
            return False
        task = asyncio.create_task(self._attempt(claimed), name=f"webhook {claimed.webhook.id}")
        self._under_way[task] = claimed
        task.add_done_callback(self._ended)
        return True

    def _ended(self, task: "asyncio.Task[None]") -> None:
        del self._under_way[task]
        self._webhooks.news.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            # At least once: what could not be written down is sent again when its lease has run out.
            logger.error("the end of a delivery could not be written down: %s", type(error).__name__)

    async def _attempt(self, claimed: Claimed) -> None:
        store, delivery = self._webhooks.store, claimed.delivery
        try:
            sent = await self._send(claimed)
        except asyncio.CancelledError:
            with contextlib.suppress(SQLAlchemyError):  # its lease runs out, then
                held = await self._webhooks.run(store.hand_back, delivery)
                self._tell(claimed, "handed_back" if held else "lost")
            raise
        outcome: DeliveryOutcome
        if isinstance(sent, Failure):
            status = await self._webhooks.run(
                store.failed, delivery, sent, retry_s=self._settings.webhook_retry_s
            )
            outcome = "lost" if status is None else "dead" if status == "dead" else "retried"
            self._tell(claimed, outcome, sent.error)
        else:
            held = await self._webhooks.run(store.delivered, delivery, sent)
            self._tell(claimed, "delivered" if held else "lost")

    async def _send(self, claimed: Claimed) -> int | Failure:
        """The status of a receiver that took it, or why it didn't arrive."""
        delivery, webhook = claimed.delivery, claimed.webhook
        url = webhook.url if webhook.url_query is None else f"{webhook.url}?{webhook.url_query}"
        headers = [
            ("Content-Type", "application/json"),
            *signed_headers(delivery.event_id, delivery.payload, claimed.secrets),
        ]
        content = delivery.payload.encode()
        try:
            async with self._webhooks.outbound.open(
                "POST", parse_url(url), headers=headers, content=content
            ) as answer:  # what it says beside its status is not read
                if 200 <= answer.status < 300:
                    return answer.status
                return _refusal(answer, delivery.attempts)
        except Problem as problem:
            return Failure(problem.detail, pause_s=pause_s(delivery.attempts))
        except Exception:
            logger.exception("webhook %s could not be sent to", webhook.id)
            return Failure("Something went wrong here.", pause_s=pause_s(delivery.attempts))

    def _tell(self, claimed: Claimed, outcome: DeliveryOutcome, why: str = "") -> None:
        """In metrics and log; an address is a secret to some receivers and stays out of both."""
        self._telemetry.metrics.delivery(outcome)
        level = logging.INFO if outcome == "delivered" else logging.WARNING
        delivery = claimed.delivery
        logger.log(
            level,
            "event %s to webhook %s, attempt %d: %s%s",
            delivery.event_id,
            delivery.webhook_id,
            delivery.attempts,
            outcome,
            f" ({why})" if why else "",
        )


def _refusal(answer: Answer, attempts: int) -> Failure:
    """What an answer other than 2xx means."""
    status = answer.status
    pause = pause_s(attempts)
    throttles = status in THROTTLING
    if throttles:
        pause = max(pause, min(_retry_after_s(answer), LONGEST_PAUSE_S))
    return Failure(
        f"The receiver answered with status {status}.",
        status=status,
        gone=status == GONE,
        throttles=throttles,
        pause_s=pause,
    )


def _retry_after_s(answer: Answer) -> float:
    """What ``Retry-After`` asks for, in seconds or as a date; 0 where it says nothing that can be read."""
    text = answer.headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        wanted = parsedate_to_datetime(text)
        return (wanted - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError):  # no date, or one without a zone
        return 0.0
