"""A bucket's notifications, against moto: a bucket that tells a queue, as S3 does."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.connectors.aside import Aside, FileSink
from app.connectors.interface import ConnectorUnusable, Delivery, Outcome, Unfit
from specsem.records import Job
from tests.client.test_clients import DONE

boto3 = pytest.importorskip("boto3")
moto = pytest.importorskip("moto")

SCORED = Job.model_validate(DONE)
REGION = "eu-central-1"


class Bucket:
    """A bucket, the queue that it tells, and a source on that."""

    def __init__(self, aside: Path) -> None:
        from app.connectors.objects import ObjectStore
        from app.connectors.s3 import S3Source

        self.s3, self.sqs = boto3.client("s3"), boto3.client("sqs")
        self.s3.create_bucket(Bucket="clips", CreateBucketConfiguration={"LocationConstraint": REGION})
        self.queue = self.sqs.create_queue(QueueName="arrived")["QueueUrl"]
        attributes = self.sqs.get_queue_attributes(QueueUrl=self.queue, AttributeNames=["QueueArn"])
        told = {"QueueArn": attributes["Attributes"]["QueueArn"], "Events": ["s3:ObjectCreated:*"]}
        self.s3.put_bucket_notification_configuration(
            Bucket="clips", NotificationConfiguration={"QueueConfigurations": [told]}
        )
        self.sqs.purge_queue(QueueUrl=self.queue)
        self.source = S3Source(self.queue, Aside(aside), ObjectStore(max_bytes=1000))

    def put(self, key: str, body: bytes = b"a clip") -> None:
        self.s3.put_object(Bucket="clips", Key=key, Body=body)

    def tell(self, body: str) -> None:
        self.sqs.send_message(QueueUrl=self.queue, MessageBody=body)

    def left(self) -> int:
        """Messages that are in the queue, visible or not."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self.sqs.get_queue_attributes(QueueUrl=self.queue, AttributeNames=names)["Attributes"]
        return sum(int(found[name]) for name in names)


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    with moto.mock_aws():
        yield Bucket(tmp_path / "aside")


def received(bucket: Bucket) -> list[Delivery]:
    return list(bucket.source.receive(10, wait_s=0))


def record(key: str, **more: Any) -> dict[str, Any]:
    return {
        "eventName": "ObjectCreated:Put",
        "s3": {"bucket": {"name": "clips"}, "object": {"key": key} | more},
    }


def test_what_is_put_there_is_fetched_and_told_once(bucket: Bucket, tmp_path: Path) -> None:
    bucket.put("2026/ein Clip+äöü.mp4")
    [delivery] = received(bucket)
    assert delivery.name == "s3://clips/2026/ein Clip+äöü.mp4"
    assert delivery.about["key"] == "2026/ein Clip+äöü.mp4"
    path = delivery.fetch(tmp_path)
    assert isinstance(path, Path)
    assert (path.read_bytes(), path.parent) == (b"a clip", tmp_path)
    assert received(bucket) == []
    bucket.source.hold([delivery])
    bucket.source.done(Outcome(delivery, SCORED))
    assert bucket.left() == 0


def test_what_was_not_settled_comes_again_under_the_same_id(bucket: Bucket, tmp_path: Path) -> None:
    from app.connectors.objects import ObjectStore
    from app.connectors.s3 import S3Source

    bucket.put("a.mp4")
    [delivery] = received(bucket)
    bucket.sqs.change_message_visibility(
        QueueUrl=bucket.queue, ReceiptHandle=delivery.handle.receipt, VisibilityTimeout=0
    )
    assert received(bucket) == [], "it is under way here"
    bucket.sqs.change_message_visibility(
        QueueUrl=bucket.queue, ReceiptHandle=delivery.handle.receipt, VisibilityTimeout=0
    )
    [again] = S3Source(bucket.queue, Aside(tmp_path / "aside"), ObjectStore()).receive(10, wait_s=0)
    assert again.id == delivery.id


def test_a_message_with_several_objects_goes_when_all_are_settled(bucket: Bucket) -> None:
    bucket.tell(json.dumps({"Records": [record("a.mp4"), record("b.mp4")]}))
    first, second = received(bucket)
    assert first.id != second.id
    bucket.source.done(Outcome(first, SCORED))
    assert bucket.left() == 1
    bucket.source.set_aside(Outcome(second, None, Unfit("No.")))
    assert bucket.left() == 0


def test_what_tells_of_nothing_new_is_removed(bucket: Bucket) -> None:
    removed = record("a.mp4") | {"eventName": "ObjectRemoved:Delete"}
    bucket.tell(json.dumps({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "clips"}))
    bucket.tell(json.dumps({"Records": [removed]}))
    assert received(bucket) == []
    assert bucket.left() == 0


def test_messages_by_sns_are_read(bucket: Bucket) -> None:
    bucket.tell(json.dumps({"Type": "Notification", "Message": json.dumps({"Records": [record("a.mp4")]})}))
    [delivery] = received(bucket)
    assert delivery.name == "s3://clips/a.mp4"


@pytest.mark.parametrize("body", ["no JSON", "[]", "7", '{"Records": 1}', '{"Records": [{"s3": {}}]}'])
def test_poison_is_set_aside_with_its_message(bucket: Bucket, tmp_path: Path, body: str) -> None:
    bucket.tell(body)
    [delivery] = received(bucket)
    with pytest.raises(Unfit) as refused:
        delivery.fetch(tmp_path)
    bucket.source.set_aside(Outcome(delivery, None, refused.value))
    [kept] = (tmp_path / "aside").glob("*.json")
    found = json.loads(kept.read_text())
    assert (found["message"], found["error"]["code"]) == (body, "unfit")
    assert bucket.left() == 0


def test_what_is_gone_or_too_large_is_unfit(bucket: Bucket, tmp_path: Path) -> None:
    bucket.put("large.mp4", bytes(2000))
    bucket.put("gone.mp4")
    bucket.s3.delete_object(Bucket="clips", Key="gone.mp4")
    for delivery in received(bucket):
        with pytest.raises(Unfit, match=r"larger than 1000 bytes|no longer there"):
            delivery.fetch(tmp_path)


def test_keys_lead_nowhere_else(bucket: Bucket, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for key in ("../../out.mp4", "/", "a/.."):
        bucket.put(key)
    for delivery in received(bucket):
        path = delivery.fetch(tmp_path / "in")
        assert isinstance(path, Path)
        assert path.resolve().parent == tmp_path / "in"


def test_a_queue_that_is_not_there_is_refused(bucket: Bucket, tmp_path: Path) -> None:
    from app.connectors.objects import ObjectStore
    from app.connectors.s3 import S3Source

    with pytest.raises(ConnectorUnusable, match=r"NonExistentQueue|QueueDoesNotExist"):
        S3Source(bucket.queue + "-not", Aside(tmp_path), ObjectStore())


def test_outcomes_are_written_once_each(tmp_path: Path) -> None:
    sink = FileSink(tmp_path / "out")
    delivery = Delivery("../../id", "a.mp4", lambda folder: folder, {"bucket": "clips"})
    for _ in range(2):
        sink.send(Outcome(delivery, SCORED))
    [written] = (tmp_path / "out").iterdir()
    found = json.loads(written.read_text())
    assert (found["about"], found["answer"]["verdict"]) == ({"bucket": "clips"}, "generated")
