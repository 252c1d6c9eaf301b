"""The dispatcher against a receiver on loopback: retries, brakes, signatures, and what it doesn't do."""

import asyncio
import logging
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from receiver import Receiver, receiver
from sqlalchemy import Engine, text
from standardwebhooks import WebhookVerificationError

from app.jobs.database import open_database
from app.jobs.table import DeliveryRow, WebhookRow
from app.observability.telemetry import Telemetry
from app.outbound import Outbound
from app.settings import Settings
from app.webhooks import dispatcher
from app.webhooks.dispatcher import Dispatcher, pause_s
from app.webhooks.service import Webhooks

HOUR_S = 3600


@dataclass
class House:
    """Webhooks and their dispatcher at work, without HTTP."""

    database: Engine
    webhooks: Webhooks
    dispatcher: Dispatcher
    telemetry: Telemetry
    working: "asyncio.Task[None]"

    async def endpoint(self, url: str, tenant: str = "", **given: Any) -> WebhookRow:
        return await self.webhooks.create(tenant, url, **given)

    async def ping(self, webhook: WebhookRow) -> DeliveryRow:
        return await self.webhooks.ping(None, webhook.id)

    async def rows(self, webhook: WebhookRow) -> list[DeliveryRow]:
        """All its deliveries, the latest first."""
        return await self.webhooks.deliveries(None, webhook.id, limit=100)

    async def row(self, webhook: WebhookRow) -> DeliveryRow:
        (row,) = await self.rows(webhook)
        return row

    async def quiet(self) -> None:
        """Once nothing is due and nothing is under way."""
        held = "webhook_id IN (SELECT id FROM webhooks WHERE held_until > :now)"
        due = f"not_before <= :now AND NOT {held}"
        await self.until(lambda: not self._count(f"lease IS NOT NULL OR ({due})"))

    async def pass_time(self, seconds: float) -> None:
        """As if so much time had passed; then what has become due is tried."""
        with self.database.execution_options(writes=True).begin() as connection:
            columns = ("since", "not_before", "created_at")
            earlier = ", ".join(f"{column} = {column} - :seconds" for column in columns)
            connection.execute(text(f"UPDATE webhook_deliveries SET {earlier}"), {"seconds": seconds})  # noqa: S608
            columns = ("old_secret_until", "held_until")
            earlier = ", ".join(f"{column} = {column} - :seconds" for column in columns)
            connection.execute(text(f"UPDATE webhooks SET {earlier}"), {"seconds": seconds})  # noqa: S608
        self.webhooks.news.set()
        await self.quiet()

    async def until(self, condition: Callable[[], object]) -> None:
        ends = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < ends, "it never came true"
            self.webhooks.news.set()
            await asyncio.sleep(0.02)

    def _count(self, where: str) -> int:
        statement = text(f"SELECT count(*) FROM webhook_deliveries WHERE status = 'pending' AND ({where})")  # noqa: S608
        with self.database.connect() as connection:
            return int(connection.execute(statement, {"now": time.time()}).scalar_one())

    def outcomes(self) -> dict[str, float]:
        found = self.telemetry.metrics.registry.collect()
        (metric,) = [metric for metric in found if metric.name == "specsem_webhook_deliveries"]
        return {sample.labels["outcome"]: sample.value for sample in metric.samples if sample.value}


@asynccontextmanager
async def house(data_dir: Path, outbound: Outbound | None = None, **given: Any) -> AsyncIterator[House]:
    await asyncio.to_thread(data_dir.mkdir, exist_ok=True)
    settings = Settings(data_dir=data_dir, **given)
    database = await asyncio.to_thread(open_database, None, data_dir)
    webhooks, telemetry = Webhooks(settings, database, outbound), Telemetry()
    sender = Dispatcher(webhooks, settings, telemetry)
    home = House(database, webhooks, sender, telemetry, asyncio.create_task(sender.run()))
    try:
        yield home
    finally:
        sender.stop()
        await home.working
        await webhooks.aclose()
        database.dispose()


# -- it arrives ---------------------------------------------------------------------------------------------


def test_a_message_arrives_signed(tmp_path: Path) -> None:
    async def scenario(taker: Receiver) -> None:
        async with house(tmp_path, **taker.allowing) as home:
            webhook = await home.endpoint(taker.url("/hook?token=5ec2e7"))
            pinged = await home.ping(webhook)
            await home.quiet()
            (message,) = taker.messages
            said = message.verified(webhook.secret)
            assert (said["type"], said["data"]) == ("webhook.ping", {"webhook": webhook.id})
            assert message.id == pinged.event_id
            assert message.path == "/hook?token=5ec2e7"
            assert message.headers["content-type"] == "application/json"
            assert not {"authorization", "cookie", "x-api-key"} & message.headers.keys()
            with pytest.raises(WebhookVerificationError):
                message.verified("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
            message.body = message.body.replace(b"ping", b"pong")
            with pytest.raises(WebhookVerificationError):
                message.verified(webhook.secret)
            row = await home.row(webhook)
            assert (row.status, row.attempts, row.last_status) == ("delivered", 1, 204)
            assert home.outcomes() == {"delivered": 1}

    with receiver() as taker:
        asyncio.run(scenario(taker))


def test_a_receiver_that_is_down_for_an_hour_misses_nothing(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    async def scenario() -> None:
        async with house(tmp_path, **Receiver(port).allowing) as home:
            webhook = await home.endpoint(Receiver(port).url())
            sent = [(await home.ping(webhook)).event_id for _ in range(5)]
            await home.quiet()
            for _ in range(HOUR_S // 60):
                await home.pass_time(60)
            rows = await home.rows(webhook)
            assert {row.status for row in rows} == {"pending"}
            assert {row.attempts for row in rows} <= {5, 6, 7}  # the pauses grow
            assert all("could not be connected to" in (row.last_error or "") for row in rows)
            with receiver(port=port) as taker:
                await home.pass_time(HOUR_S * 1.2)
                assert sorted(taker.ids) == sorted(sent)
                for message in taker.messages:
                    happened = message.verified(webhook.secret)["timestamp"]
                    assert happened
            assert {row.status for row in await home.rows(webhook)} == {"delivered"}

    asyncio.run(scenario())


def test_pauses_grow_to_an_hour_and_vary() -> None:
    for attempts, middle_s in ((1, 5), (2, 15), (3, 45), (7, 3600), (10_000, 3600)):
        pauses = [pause_s(attempts) for _ in range(50)]
        assert middle_s * 0.8 <= min(pauses) < max(pauses) <= middle_s * 1.2


def test_after_a_day_it_is_a_dead_letter_and_can_be_sent_again(tmp_path: Path) -> None:
    async def scenario(taker: Receiver) -> None:
        async with house(tmp_path, **taker.allowing) as home:
            webhook = await home.endpoint(taker.url())
            await home.ping(webhook)
            await home.quiet()
            for _ in range(23):
                await home.pass_time(HOUR_S)
            assert (await home.row(webhook)).status == "pending"
            await home.pass_time(1.1 * HOUR_S)
            row = await home.row(webhook)
            assert (row.status, row.last_status) == ("dead", 500)
            assert row.last_error == "The receiver answered with status 500."
            tried = len(taker.messages)
            await home.pass_time(100 * HOUR_S)
            assert len(taker.messages) == tried == row.attempts
            taker.answer = 200
            assert await home.webhooks.redeliver("", webhook.id) == 1
            await home.quiet()
            assert set(taker.ids) == {row.event_id}  # each time the same
            taker.messages[-1].verified(webhook.secret)
            assert (await home.row(webhook)).status == "delivered"
            assert home.outcomes() == {"retried": tried - 1, "dead": 1, "delivered": 1}

    with receiver(500) as taker:
        asyncio.run(scenario(taker))


# -- what a receiver says -----------------------------------------------------------------------------------


def test_who_is_gone_hears_no_more(tmp_path: Path) -> None:
    async def scenario(taker: Receiver) -> None:
        async with house(tmp_path, **taker.allowing, webhook_slots=1) as home:
            webhook = await home.endpoint(taker.url())
            for _ in range(3):
                await home.ping(webhook)
            pinged.set()
            await home.quiet()
            assert len(taker.messages) == 1
            assert {row.status for row in await home.rows(webhook)} == {"dead"}
            found = await home.webhooks.find("", webhook.id)
            assert found.disabled_because == "gone"

    pinged = threading.Event()
    with receiver(lambda: 410 if pinged.wait(20) else 200) as taker:
        asyncio.run(scenario(taker))


@pytest.mark.parametrize("retry_after", ["1200", "Wed, 21 Oct 2099 07:28:00 GMT", "soon"])
def test_a_brake_is_heeded(tmp_path: Path, retry_after: str) -> None:
    async def scenario(taker: Receiver) -> None:
        async with house(tmp_path, **taker.allowing, webhook_slots=1) as home:
            webhook = await home.endpoint(taker.url())
            await home.ping(webhook)
            await home.quiet()
            for _ in range(2):  # what comes now waits too
                await home.ping(webhook)
            await home.quiet()
            assert len(taker.messages) == 1
            wait_s = ((await home.webhooks.find("", webhook.id)).held_until or 0) - time.time()
            expected = {"1200": (1100, 1200), "soon": (0, 6)}.get(retry_after, (3500, 3600))
            assert expected[0] < wait_s <= expected[1]
            taker.answer = 200
            await home.pass_time(HOUR_S)
            assert len(taker.messages) == 4
            assert {row.status for row in await home.rows(webhook)} == {"delivered"}

    with receiver((429, {"Retry-After": retry_after})) as taker:
        asyncio.run(scenario(taker))


def test_a_redirect_leads_nowhere(tmp_path: Path) -> None:
    async def scenario(taker: Receiver) -> None:
        async with house(tmp_path, **taker.allowing) as home:
            webhook = await home.endpoint(taker.url())
            await home.ping(webhook)
            await home.quiet()
            assert [message.path for message in taker.messages] == ["/hook"]
            assert (await home.row(webhook)).last_status == 307

    with receiver((307, {"Location": "/elsewhere"})) as taker:
        asyncio.run(scenario(taker))


def test_a_slow_receiver_holds_up_nobody_else(tmp_path: Path) -> None:
    gate, at_work = threading.Event(), threading.Semaphore(0)

    def slow() -> int:
        at_work.release()
        gate.wait(20)
        return 200

    async def scenario(stuck: Receiver, taker: Receiver) -> None:
        allowing = taker.allowing | {"webhook_ports": [stuck.port, taker.port]}
        async with house(tmp_path, **allowing, webhook_slots=4) as home:
            for number in range(3):  # one tenant, several endpoints, and more than there are places
                webhook = await home.endpoint(stuck.url(f"/{number}"), tenant="slow")
                for _ in range(3):
                    await home.ping(webhook)
            for _ in range(2):
                await asyncio.to_thread(at_work.acquire)
            for _ in range(6):
                await home.ping(await home.endpoint(taker.url(), tenant="quick"))
            await home.until(lambda: len(taker.messages) == 6)
            assert len(stuck.messages) == 2
            gate.set()
            await home.quiet()
            assert len(stuck.messages) == 9

    with receiver(slow) as stuck, receiver() as taker:
        asyncio.run(scenario(stuck, taker))


def test_who_doesn_t_answer_in_time_has_failed(tmp_path: Path) -> None:
    gate = threading.Event()

    def never() -> int:
        gate.wait(20)
        return 200

    async def scenario(taker: Receiver) -> None:
        async with house(tmp_path, **taker.allowing, webhook_timeout_s=0.2) as home:
            webhook = await home.endpoint(taker.url())
            await home.ping(webhook)
            await home.quiet()
            row = await home.row(webhook)
            assert (row.status, row.attempts, row.last_status) == ("pending", 1, None)
        gate.set()

    with receiver(never) as taker:
        asyncio.run(scenario(taker))


# -- where it may go ----------------------------------------------------------------------------------------


def test_a_name_that_has_become_private_is_not_met(tmp_path: Path) -> None:
    """It was public when it was registered (DNS rebinding); or the operator has thought better of it."""
    answers = [["93.184.215.14"], ["127.0.0.1"], ["127.0.0.1"]]

    async def scenario(taker: Receiver) -> None:
        rules = Settings(**taker.allowing | {"webhook_internal": []}).webhook_rules
        outbound = Outbound(rules, look_up=lambda _host, _port: answers.pop(0))
        async with house(tmp_path, outbound) as home:
            webhook = await home.endpoint(f"http://hooks.example.org:{taker.port}/")
            await home.ping(webhook)
            await home.quiet()
            row = await home.row(webhook)
            assert (row.status, row.last_status) == ("pending", None)
            assert row.last_error == (
                "The host hooks.example.org is refused: it is unknown, or not open to everybody."
            )
            assert len(answers) == 1  # it was looked up again
            assert taker.messages == []

    with receiver() as taker:
        asyncio.run(scenario(taker))


# -- secrets ------------------------------------------------------------------------------------------------


def test_a_rotation_overlaps(tmp_path: Path) -> None:
    async def scenario(taker: Receiver) -> None:
        async with house(tmp_path, **taker.allowing) as home:
            webhook = await home.endpoint(taker.url())
            old = webhook.secret
            new = (await home.webhooks.rotate("", webhook.id, overlap_s=600)).secret
            assert new != old
            await home.ping(webhook)
            await home.quiet()
            assert taker.messages[0].verified(old) == taker.messages[0].verified(new)
            await home.pass_time(601)
            await home.ping(webhook)
            await home.quiet()
            taker.messages[1].verified(new)
            with pytest.raises(WebhookVerificationError):
                taker.messages[1].verified(old)

    with receiver() as taker:
        asyncio.run(scenario(taker))


def test_the_log_holds_no_secret(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    async def scenario(taker: Receiver) -> str:
        async with house(tmp_path, **taker.allowing) as home:
            webhook = await home.endpoint(taker.url("/T0KEN?key=5ec2e7"))
            await home.ping(webhook)
            await home.quiet()
            taker.answer = 200
            await home.pass_time(HOUR_S)
            return webhook.secret

    with receiver(500) as taker:
        secret = asyncio.run(scenario(taker))
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("specsem")]
    assert [line.rpartition(": ")[2].partition(" (")[0] for line in lines] == ["retried", "delivered"]
    for part in ("T0KEN", "5ec2e7", secret, secret.removeprefix("whsec_")):
        assert part not in caplog.text


# -- the end ------------------------------------------------------------------------------------------------


def test_a_stop_hands_back_what_is_under_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatcher, "LAST_SENDS_S", 0.05)
    gate, at_work = threading.Event(), threading.Event()

    def slow() -> int:
        at_work.set()
        gate.wait(20)
        return 200

    async def scenario(taker: Receiver) -> None:
        async with house(tmp_path, **taker.allowing) as home:
            webhook = await home.endpoint(taker.url())
            await home.ping(webhook)
            await asyncio.to_thread(at_work.wait, 20)
            home.dispatcher.stop()
            await home.working
            row = await home.row(webhook)
            assert (row.status, row.attempts, row.lease) == ("pending", 0, None)
            assert home.outcomes() == {"handed_back": 1}
        gate.set()
        taker.answer = 200
        async with house(tmp_path, **taker.allowing) as home:
            await home.quiet()
            assert set(taker.ids) == {row.event_id}
            assert (await home.row(webhook)).status == "delivered"

    with receiver(slow) as taker:
        asyncio.run(scenario(taker))
