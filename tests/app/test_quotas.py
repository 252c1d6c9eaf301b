"""How much a key may ask for."""

import asyncio
import time
from contextlib import AsyncExitStack

import pytest
from limits import RateLimitItem

from app.problems import Problem
from app.quotas import Failures, Quota, Quotas, network_of
from app.settings import parse_rate

HOUR = 3600


def rate(amount: int) -> RateLimitItem:
    return parse_rate(f"{amount}/hour")


def test_a_rate_is_held_and_told() -> None:
    async def asking() -> None:
        quotas, quota = Quotas(), Quota(rate(2), 8)
        for left in (1, 0):
            async with quotas.held("a", quota) as headers:
                told = headers["RateLimit"]
            assert told.startswith(f'"rate";r={left};t=')
            assert 1 <= int(told.partition(";t=")[2].partition(",")[0]) <= HOUR + 1
            assert told.endswith(', "concurrency";r=7')
            assert (
                headers["RateLimit-Policy"] == '"rate";q=2;w=3600, "concurrency";q=8;qu="concurrent-requests"'
            )
        with pytest.raises(Problem) as refused:
            async with quotas.held("a", quota):
                raise AssertionError
        assert (refused.value.code, refused.value.status) == ("rate_limited", 429)
        assert refused.value.document()["violated-policies"] == ["rate"]
        assert refused.value.headers["RateLimit"].startswith('"rate";r=0;')
        assert 1 <= int(refused.value.headers["Retry-After"]) <= HOUR + 1
        async with quotas.held("b", quota):
            pass  # another key has its own

    asyncio.run(asking())


def test_the_window_moves_on(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1_800_000_100.5]
    monkeypatch.setattr(time, "time", lambda: now[0])

    async def asking() -> None:
        quotas, quota = Quotas(), Quota(rate(4), 8)
        for _ in range(4):
            async with quotas.held("a", quota):
                pass
        with pytest.raises(Problem) as refused:
            async with quotas.held("a", quota):
                raise AssertionError
        now[0] += int(refused.value.headers["Retry-After"])  # it says when, and then it is so
        async with quotas.held("a", quota):
            pass

    asyncio.run(asking())


def test_so_many_at_a_time() -> None:
    async def asking() -> None:
        quotas, quota = Quotas(), Quota(rate(100), 2)
        async with AsyncExitStack() as running:
            for free in (1, 0):
                headers = await running.enter_async_context(quotas.held("a", quota))
                assert headers["RateLimit"].endswith(f'"concurrency";r={free}')
            for _ in range(3):
                with pytest.raises(Problem) as refused:
                    await running.enter_async_context(quotas.held("a", quota))
                assert refused.value.document()["violated-policies"] == ["concurrency"]
                assert refused.value.headers["Retry-After"] == "1"
            await running.enter_async_context(quotas.held("b", quota))
        async with quotas.held("a", quota) as headers:
            assert headers["RateLimit"].endswith('"concurrency";r=1')
        assert not quotas._running

    asyncio.run(asking())


def test_a_request_that_fails_gives_its_place_back() -> None:
    async def asking() -> None:
        quotas, quota = Quotas(), Quota(rate(100), 1)
        for error in (ValueError, asyncio.CancelledError):
            with pytest.raises(error):
                async with quotas.held("a", quota):
                    raise error
        assert not quotas._running

    asyncio.run(asking())


def test_wrong_keys_are_counted_by_network() -> None:
    async def guessing() -> None:
        failures = Failures(rate(2))
        for _ in range(2):
            assert await failures.wait_s("a") == 0
            await failures.count("a")
        assert 1 <= await failures.wait_s("a") <= HOUR + 1
        assert await failures.wait_s("b") == 0

    asyncio.run(guessing())


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("testclient", ""),
        ("", ""),
    ],
)
def test_who_is_taken_for_one_client(address: str, network: str) -> None:
    assert network_of(address) == network
