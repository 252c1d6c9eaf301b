"""How much a key may ask for, and how often an address may be wrong about its key.

Counted in the memory of this process, by a sliding window: several processes behind a balancer each count for
themselves, and a restart begins anew.
"""

import math
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_network

from limits import RateLimitItem
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter

from app.problems import Problem
from app.settings import parse_address

__all__ = ["Failures", "Quota", "Quotas", "network_of"]

FREE_SLOT_S = 1
"""When to try again where all requests of a key are taken: nobody knows when one ends."""


@dataclass(frozen=True, slots=True)
class Quota:
    """What a key may do."""

    rate: RateLimitItem
    concurrency: int


class Quotas:
    """What is used of each key's quota. For the event loop only."""

    def __init__(self) -> None:
        self._window = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._running: Counter[str] = Counter()

    @asynccontextmanager
    async def held(self, key: str, quota: Quota) -> AsyncIterator[dict[str, str]]:
        """One request of this key, while the block runs. Gives the headers that tell the client what is left.

        Raises:
            Problem: ``rate_limited`` (429 with Retry-After); nothing is held then.
        """
        admitted = await self._window.hit(quota.rate, key)
        left = await self._window.get_window_stats(quota.rate, key)
        reset_s = _whole_seconds(left.reset_time)
        free = quota.concurrency - self._running[key]
        headers = _headers(quota, left.remaining, reset_s, max(0, free - 1))
        if not admitted:
            raise _rate_limited(
                f"This key may send {quota.rate.amount} requests in {quota.rate.get_expiry()} s, and did.",
                reset_s,
                policy="rate",
                headers=headers,
            )
        if free <= 0:
            raise _rate_limited(
                f"This key has {quota.concurrency} requests under way, as many as it may.",
                FREE_SLOT_S,
                policy="concurrency",
                headers=headers,
            )
        self._running[key] += 1
        try:
            yield headers
        finally:
            self._running[key] -= 1
            if not self._running[key]:
                del self._running[key]


class Failures:
    """Wrong keys, by the network that they came from."""

    def __init__(self, limit: RateLimitItem) -> None:
        self._limit = limit
        self._window = SlidingWindowCounterRateLimiter(MemoryStorage())

    async def wait_s(self, network: str) -> int:
        """Seconds until this network may be wrong again; 0: now."""
        if await self._window.test(self._limit, network):
            return 0
        return _whole_seconds((await self._window.get_window_stats(self._limit, network)).reset_time)

    async def count(self, network: str) -> None:
        """One more."""
        await self._window.hit(self._limit, network)


def network_of(address: str) -> str:
    """Who is taken for one client: an IPv4 address, or a /64, which is what one subscriber of IPv6 has.

    Empty for a Unix socket, and whatever else is no address.
    """
    ip = parse_address(address)
    if isinstance(ip, IPv6Address):
        return str(ip_network((ip, 64), strict=False))
    return str(ip or "")


def _whole_seconds(until: float) -> int:
    """So many that the moment is past: in it, the window has not moved on yet."""
    return max(0, math.floor(until - time.time())) + 1


def _headers(quota: Quota, left: int, reset_s: int, free: int) -> dict[str, str]:
    """draft-ietf-httpapi-ratelimit-headers, as of its version 10."""
    return {
        "RateLimit-Policy": f'"rate";q={quota.rate.amount};w={quota.rate.get_expiry()}, '
        f'"concurrency";q={quota.concurrency};qu="concurrent-requests"',
        "RateLimit": f'"rate";r={left};t={reset_s}, "concurrency";r={free}',
    }


def _rate_limited(detail: str, after_s: int, *, policy: str, headers: dict[str, str]) -> Problem:
    problem = Problem("rate_limited", detail, headers={"Retry-After": str(after_s), **headers})
    problem.extra["violated-policies"] = [policy]  # the draft's name for it
    return problem
