"""Notifications of an S3-compatible bucket, by a queue that speaks SQS: what is put there is scored.

Messages are those that S3 publishes (``Records``, each with ``s3.bucket.name`` and ``s3.object.key``),
straight or by SNS. A message may tell of several objects: it is removed from the queue when all are settled.
Needs the extra ``s3``; credentials, region and endpoint are found as the AWS SDK finds them.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import unquote_plus

import boto3
from botocore.exceptions import BotoCoreError, ClientError
from pydantic import BaseModel, Field, ValidationError

from app.connectors.aside import Aside
from app.connectors.interface import ConnectorUnusable, Delivery, Outcome, Unfit
from app.connectors.objects import ObjectStore, sentence

__all__ = ["S3Source"]

VISIBILITY_S = 120
"""Nobody else gets a message for so long after it was last held."""
LONGEST_WAIT_S = 20
MOST_AT_ONCE = 10


class _Named(BaseModel):
    name: str


class _Object(BaseModel):
    key: str
    size: int | None = None
    etag: str = Field("", alias="eTag")
    version: str | None = Field(None, alias="versionId")
    sequencer: str = ""


class _S3(BaseModel):
    bucket: _Named
    object: _Object


class _Record(BaseModel):
    event: str = Field(alias="eventName")
    s3: _S3


class _Body(BaseModel):
    records: list[_Record] = Field(alias="Records")


@dataclass(frozen=True, slots=True)
class _Handle:
    message: str
    receipt: str
    body: str


class S3Source:
    """The objects that a queue tells of."""

    def __init__(self, queue_url: str, aside: Aside, objects: ObjectStore) -> None:
        """What can't be scored goes to ``aside``; objects are read from ``objects``.

        Raises:
            ConnectorUnusable: there are no credentials, or no such queue.
        """
        self._queue, self._aside, self._objects = queue_url, aside, objects
        try:
            self._sqs = boto3.client("sqs")
            self._sqs.get_queue_attributes(QueueUrl=queue_url, AttributeNames=["QueueArn"])
        except (BotoCoreError, ClientError) as error:
            raise ConnectorUnusable(f"The queue can't be used: {sentence(error)}") from error
        self._left: Counter[str] = Counter()
        """Objects of a message that aren't settled, by its id."""

    def receive(self, most: int, *, wait_s: float) -> Sequence[Delivery]:
        """As ``Source``. A message with more objects than there is room for is taken all the same."""
        try:
            answer = self._sqs.receive_message(
                QueueUrl=self._queue,
                MaxNumberOfMessages=min(most, MOST_AT_ONCE),
                WaitTimeSeconds=min(int(wait_s), LONGEST_WAIT_S),
                VisibilityTimeout=VISIBILITY_S,
            )
        except (BotoCoreError, ClientError) as error:
            raise OSError(0, sentence(error)) from error
        found: list[Delivery] = []
        for message in answer.get("Messages", ()):
            handle = _Handle(message["MessageId"], message["ReceiptHandle"], message["Body"])
            if handle.message in self._left:  # delivered again while it is under way
                continue
            deliveries = self._deliveries(handle)
            self._left[handle.message] = len(deliveries)
            found += deliveries
            if not deliveries:  # nothing was put there: a test, a removal
                self._settle(handle)
        return found

    def hold(self, deliveries: Sequence[Delivery]) -> None:
        """As ``Source``. That it fails costs nothing but a second delivery."""
        for receipt in {delivery.handle.receipt for delivery in deliveries}:
            try:
                self._sqs.change_message_visibility(
                    QueueUrl=self._queue, ReceiptHandle=receipt, VisibilityTimeout=VISIBILITY_S
                )
            except (BotoCoreError, ClientError):
                continue

    def done(self, outcome: Outcome) -> None:
        """As ``Source``."""
        self._settle(outcome.delivery.handle)

    def set_aside(self, outcome: Outcome) -> None:
        """As ``Source``."""
        handle: _Handle = outcome.delivery.handle
        self._aside.keep(outcome, handle.body)
        self._settle(handle)

    def close(self) -> None:
        """As ``Source``."""
        self._sqs.close()
        self._objects.close()

    def _deliveries(self, handle: _Handle) -> list[Delivery]:
        try:
            body = json.loads(handle.body)
            if isinstance(body, dict) and isinstance(body.get("Message"), str):  # by SNS
                body = json.loads(body["Message"])
            if isinstance(body, dict) and body.get("Event") == "s3:TestEvent":
                return []
            records = _Body.model_validate(body).records
        except (ValueError, ValidationError):
            return [Delivery(handle.message, f"message {handle.message}", _refuse, handle=handle)]
        return [
            self._delivery(record.s3, handle)
            for record in records
            if record.event.removeprefix("s3:").startswith("ObjectCreated:")
        ]

    def _delivery(self, told: _S3, handle: _Handle) -> Delivery:
        key = unquote_plus(told.object.key)
        identity = (told.bucket.name, key, told.object.version or "", told.object.etag, told.object.sequencer)
        return Delivery(
            id=f"s3-{hashlib.sha256(json.dumps(identity).encode()).hexdigest()}",
            name=f"s3://{told.bucket.name}/{key}",
            fetch=partial(self._objects.fetch, told.bucket.name, key, told.object.version),
            about={"bucket": told.bucket.name, "key": key, "version": told.object.version},
            handle=handle,
        )

    def _settle(self, handle: _Handle) -> None:
        if self._left[handle.message] <= 1:
            try:
                self._sqs.delete_message(QueueUrl=self._queue, ReceiptHandle=handle.receipt)
            except (BotoCoreError, ClientError) as error:
                raise OSError(0, sentence(error)) from error
            del self._left[handle.message]
        else:
            self._left[handle.message] -= 1


def _refuse(_folder: Path) -> Path:
    raise Unfit("The message is none that a bucket sends.")
