"""Messages as the service signs them, and as nobody may."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.jobs.table import FeedbackRow
from app.webhooks.events import feedback_created, job_ended
from app.webhooks.signing import new_secret, signed_headers
from specsem.client import NotGenuine, OtherEvent, UnexpectedAnswer, verify
from specsem.records import FeedbackEvent, JobEvent
from tests.client.answers import ANSWER

SECRET = new_secret()
ID = "ca978112ca1bbdcafac231b39a23dc4d"


def body(kind: str, data: Any) -> str:
    return json.dumps({"type": kind, "timestamp": "2026-11-24T19:31:07.412Z", "data": data})


def signed(text: str, *secrets: str, at: datetime | None = None) -> dict[str, str]:
    return {name.title(): value for name, value in signed_headers(ID, text, secrets or (SECRET,), at)}


def test_events_are_records() -> None:
    [done] = job_ended("4b" * 16, verdict="generated", score=ANSWER["score"])
    text = body(done.type, done.data)
    message = verify(text.encode(), signed(text), SECRET)
    assert message.id == ID
    assert isinstance(message.event, JobEvent)
    assert (message.event.data.job, message.event.data.score) == ("4b" * 16, ANSWER["score"])
    assert abs(message.sent_at - datetime.now(UTC)) < timedelta(seconds=5)


def test_feedback_is_a_record_of_its_own() -> None:
    row = FeedbackRow(
        job_id="4b" * 16, source="review", opinion="wrong", label="real", answer="generated", score=0.9
    )
    told = feedback_created(row)
    text = body(told.type, told.data)
    event = verify(text, signed(text), SECRET).event
    assert isinstance(event, FeedbackEvent)
    assert event.data.label == "real"


@pytest.mark.parametrize("kind", ["webhook.ping", "of.a.later.version"])
def test_other_events_are_let_through(kind: str) -> None:
    text = body(kind, {"webhook": "7d"})
    event = verify(text, signed(text), SECRET).event
    assert isinstance(event, OtherEvent)
    assert (event.type, event.data) == (kind, {"webhook": "7d"})


def test_either_secret_will_do_while_they_are_changed() -> None:
    text = body("webhook.ping", {})
    assert verify(text, signed(text), [new_secret(), SECRET]).id == ID
    assert verify(text, signed(text, new_secret(), SECRET), SECRET).id == ID


def test_what_is_not_genuine_is_refused() -> None:
    text = body("webhook.ping", {})
    headers = signed(text)
    old, early = (signed(text, at=datetime.now(UTC) + timedelta(minutes=minutes)) for minutes in (-10, 10))
    refused = [
        (text.replace("webhook.ping", "job.done"), headers),
        (text, signed(text, new_secret())),
        (text, old),
        (text, early),
        (text, headers | {"Webhook-Id": "another"}),
        (text, headers | {"Webhook-Timestamp": "never"}),
        (text, {}),
        ("", headers),
    ]
    for changed, given in refused:
        with pytest.raises(NotGenuine):
            verify(changed, given, SECRET)


@pytest.mark.parametrize("text", [body("job.done", {"job": 7}), '{"type": "job.done"}', "[]", "7"])
def test_what_can_t_be_read_is_said_to_be_genuine(text: str) -> None:
    with pytest.raises(UnexpectedAnswer):
        verify(text, signed(text), SECRET)
