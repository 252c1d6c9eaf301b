"""What a client raises."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest

from specsem.client.errors import ProblemError


@pytest.mark.parametrize(("said", "seconds"), [("12", 12.0), ("soon", None), (None, None)])
def test_how_long_to_wait_is_read(said: str | None, seconds: float | None) -> None:
    headers = {} if said is None else {"Retry-After": said}
    assert ProblemError.of(httpx.Response(503, headers=headers)).retry_after_s == seconds


def test_a_date_to_wait_for_is_read() -> None:
    later, past = (datetime.now(UTC) + timedelta(hours=hours) for hours in (1, -1))
    error = ProblemError.of(httpx.Response(503, headers={"Retry-After": format_datetime(later, usegmt=True)}))
    assert error.retry_after_s == pytest.approx(3600, abs=5)
    error = ProblemError.of(httpx.Response(503, headers={"Retry-After": format_datetime(past, usegmt=True)}))
    assert error.retry_after_s == 0
