"""A Kafka cluster on loopback: librdkafka's own mock, which other processes reach by its address.

It speaks the protocol (groups, offsets, idempotent producers) and makes topics when they are asked for. No
real broker can be installed from Debian or PyPI.
"""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest

kafka = pytest.importorskip("confluent_kafka")

__all__ = ["KafkaCluster", "kafka_cluster"]


class KafkaCluster:
    """Its ``brokers`` are there for as long as it is."""

    def __init__(self) -> None:
        from confluent_kafka.admin import AdminClient

        self._mock = AdminClient({"test.mock.num.brokers": 1})
        found = self._mock.list_topics(timeout=10).brokers.values()
        self.brokers = ",".join(f"{broker.host}:{broker.port}" for broker in found)
        self._producer = kafka.Producer({"bootstrap.servers": self.brokers})

    def put(self, topic: str, *records: Any) -> None:
        """Write records, all into one partition: objects as JSON, bytes as they are."""
        for record in records:
            value = record if isinstance(record, bytes) else json.dumps(record).encode()
            self._producer.produce(topic, value, partition=0)
        assert self._producer.flush(10) == 0

    @contextmanager
    def following(self, topic: str) -> Iterator[Callable[[], list[Any]]]:
        """Gives a topic's messages from its start, more each time that it is asked."""
        config = {"bootstrap.servers": self.brokers, "group.id": f"reader of {topic}"}
        config["auto.offset.reset"] = "earliest"
        with closing(kafka.Consumer(config)) as consumer:
            partitions = self._producer.list_topics(topic, timeout=10).topics[topic].partitions
            assert partitions, "a topic is made when a producer asks for it"
            consumer.assign([kafka.TopicPartition(topic, number, 0) for number in partitions])
            messages: list[Any] = []

            def read() -> list[Any]:
                messages.extend(message for message in consumer.consume(100, 0.1) if message.error() is None)
                return messages

            yield read

    def read(self, topic: str, least: int, timeout_s: float = 10) -> list[Any]:
        """Messages of a topic from its start, once there are so many."""
        ends = time.monotonic() + timeout_s
        with self.following(topic) as read:
            while len(messages := read()) < least and time.monotonic() < ends:
                pass
        return messages

    def committed(self, topic: str, group: str) -> int:
        """Of partition 0; -1001 where nothing was."""
        config = {"bootstrap.servers": self.brokers, "group.id": group}
        with closing(kafka.Consumer(config)) as consumer:
            [partition] = consumer.committed([kafka.TopicPartition(topic, 0)], timeout=10)
            return int(partition.offset)


@contextmanager
def kafka_cluster() -> Iterator[KafkaCluster]:
    """One that is there until the block ends."""
    yield KafkaCluster()
