"""Messages of the service's webhooks, verified (Standard Webhooks). Needs no connection."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationError
from standardwebhooks import Webhook, WebhookVerificationError

from specsem.client.errors import NotGenuine, UnexpectedAnswer
from specsem.records import EventType, FeedbackEvent, JobEvent

__all__ = ["Message", "OtherEvent", "verify"]


class OtherEvent(BaseModel):
    """An event of a type that this version doesn't know, or a ``webhook.ping``."""

    model_config = ConfigDict(frozen=True)

    type: str
    timestamp: datetime
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Message:
    """A message that is genuine."""

    id: str
    """The event's, and the same each time it is sent: what was seen before needs nothing more."""
    sent_at: datetime
    event: JobEvent | FeedbackEvent | OtherEvent


def verify(body: bytes | str, headers: Mapping[str, str], secret: str | Sequence[str]) -> Message:
    """The message of a request, if it was signed with this secret, or with one of these.

    ``body`` is what arrived, byte for byte; ``headers`` may be spelt in any case. Messages that were sent
    more than five minutes ago, or from now, are refused: somebody may have kept them.

    Raises:
        NotGenuine: it is none of the service's.
        UnexpectedAnswer: it is, and can't be read by this version.
    """
    text = body if isinstance(body, str) else body.decode("utf-8", "replace")
    found = {name.lower(): value for name, value in headers.items()}
    for each in [secret] if isinstance(secret, str) else secret:
        try:
            Webhook(each).verify(text, found)
        except (WebhookVerificationError, ValueError):  # ValueError: signed, and no JSON
            continue
        return Message(
            id=found["webhook-id"],
            sent_at=datetime.fromtimestamp(int(found["webhook-timestamp"]), UTC),
            event=_event(text),
        )
    raise NotGenuine("The message wasn't signed with this secret, was changed, or is too old.")


def _event(text: str) -> JobEvent | FeedbackEvent | OtherEvent:
    try:
        given = json.loads(text)
        kind: type[JobEvent | FeedbackEvent | OtherEvent] = OtherEvent
        if given["type"] in get_args(EventType):
            kind = FeedbackEvent if given["type"] == "feedback.created" else JobEvent
        return kind.model_validate(given, extra="ignore")
    except (ValidationError, KeyError, TypeError) as error:
        raise UnexpectedAnswer(
            "The message is genuine, and of another form than this version knows."
        ) from error
