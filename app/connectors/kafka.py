"""Kafka: records of a topic say where a video is, verdicts go to another topic. Needs the extra ``kafka``.

Offsets are committed once the verdict is out, in the order of the topic: what lies behind the oldest record
that is not settled is delivered again after a crash. What can't be scored goes, as it came, to a topic of
dead letters. While all is under way that may be, partitions are paused, and the group still hears of this
member.
"""

import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from app.connectors.forms import Form
from app.connectors.interface import ConnectorUnusable, Delivery, Outcome
from app.connectors.records import Places, delivery_of

__all__ = ["KafkaSink", "KafkaSource", "Topics", "read_config"]

LOOK_S = 10.0
"""Until a cluster must have answered at the start."""
JOIN_S = 30.0
"""A group gives its members their partitions within so long, or there is more amiss."""
FIRST_FETCH_S = 3.0
"""After they were given, so long until nothing coming means that nothing is there."""
SAME_S = 60.0
SEND_S = 20.0
"""For one record to be acknowledged by all replicas that are in step."""
CLIENT: Mapping[str, str | int | bool] = {
    "client.id": "specsem-connect",
    # By default it tries twenty times a second where a broker is away.
    "reconnect.backoff.ms": 1000,
    "reconnect.backoff.max.ms": 30_000,
    "log.connection.close": False,
}
CONSUMER: Mapping[str, str | int | bool] = {
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "auto.offset.reset": "earliest",
    # What is fetched ahead is bounded too: by default it is 64 MiB of each partition.
    "queued.min.messages": 100,
    "queued.max.messages.kbytes": 8192,
}
PRODUCER: Mapping[str, str | int | bool] = {
    "enable.idempotence": True,
    "acks": "all",
    "message.timeout.ms": int(SEND_S * 1000),
    "linger.ms": 0,
}
MEMBERS_ONLY = frozenset(
    {
        "group.instance.id",
        "heartbeat.interval.ms",
        "max.poll.interval.ms",
        "partition.assignment.strategy",
        "session.timeout.ms",
    }
)
"""Properties with which a producer does nothing but complain."""
NOT_OURS = frozenset(
    {
        KafkaError.ILLEGAL_GENERATION,
        KafkaError.UNKNOWN_MEMBER_ID,
        KafkaError.REBALANCE_IN_PROGRESS,
        KafkaError._ASSIGNMENT_LOST,
        KafkaError._NO_OFFSET,
        KafkaError._STATE,
    }
)
"""A commit that fails so was of partitions that have gone to somebody else, who gets the record again."""
REFUSED = frozenset(
    {
        KafkaError._AUTHENTICATION,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.FENCED_INSTANCE_ID,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
    }
)
"""The cluster refuses this connector, whatever it brings."""

Place = tuple[int, int]
"""Partition and offset."""


@dataclass(slots=True)
class _Partition:
    """One that this member has."""

    first: int
    """Offset of the first record that came since it was given."""
    after: int
    """Offset behind the last one."""
    committed: int = -1


class _Seldom(logging.Filter):
    """The same of librdkafka's lines, numbers aside, once in ``SAME_S``: it writes one at each attempt."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        said, now = re.sub(r"\d+", "", record.getMessage()), time.monotonic()
        if now - self._said.get(said, -SAME_S) < SAME_S:
            return False
        self._said[said] = now
        return True


logger = logging.getLogger("specsem.connect.kafka")
logger.addFilter(_Seldom())


class Topics:
    """A cluster and how to reach it."""

    def __init__(self, brokers: str, config: Mapping[str, str] | None = None) -> None:
        """``config`` are properties of librdkafka: TLS, SASL, timeouts. What delivery depends on stays."""
        self._base: dict[str, Any] = {
            **CLIENT,
            **(config or {}),
            "bootstrap.servers": brokers,
        }

    def consumer(self, group: str, topic: str) -> Consumer:
        """Of a topic that is there. Raises ``ConnectorUnusable``."""
        try:
            consumer = Consumer({**self._base, **CONSUMER, "group.id": group}, logger=logger)
        except (KafkaException, ValueError) as error:
            raise ConnectorUnusable(f"Kafka can't be used: {_sentence(error)}") from error
        _look_for(topic, consumer)
        return consumer

    def producer(self, topic: str) -> "KafkaProducer":
        """To a topic that is there. Raises ``ConnectorUnusable``."""
        try:
            base = {name: value for name, value in self._base.items() if name not in MEMBERS_ONLY}
            producer = Producer({**base, **PRODUCER}, logger=logger)
        except (KafkaException, ValueError) as error:
            raise ConnectorUnusable(f"Kafka can't be used: {_sentence(error)}") from error
        _look_for(topic, producer)
        return KafkaProducer(producer, topic)


class KafkaProducer:
    """Writes one record at a time and waits until it is safe."""

    def __init__(self, producer: Producer, topic: str) -> None:
        self._producer, self._topic = producer, topic

    def send(self, value: bytes, key: bytes | None, headers: Mapping[str, str] | None = None) -> None:
        """Raises ``OSError`` where it may go better later, and ``ConnectorUnusable``."""
        failed: list[KafkaError] = [KafkaError(KafkaError._TIMED_OUT)]

        def told(error: KafkaError | None, _message: Message) -> None:
            failed[:] = [error] if error is not None else []

        named: dict[str, str | bytes | None] = {**(headers or {})}
        _asked(lambda: self._producer.produce(self._topic, value, key, on_delivery=told, headers=named))
        self._producer.flush(SEND_S + 5)
        if failed:
            raise _error(failed[0])


class KafkaSource:
    """The records of a topic, as a member of a consumer group."""

    def __init__(self, topics: Topics, topic: str, *, group: str, dead_letters: str, places: Places) -> None:
        """What can't be scored goes to the topic ``dead_letters``.

        Raises:
            ConnectorUnusable: the cluster can't be reached, or has no such topics.
        """
        self._topic, self._places = topic, places
        self._consumer = topics.consumer(group, topic)
        self._dead_letters = topics.producer(dead_letters)
        self._partitions: dict[int, _Partition] = {}
        self._under_way: set[Place] = set()
        self._early: list[Message] = []
        """Came while nothing was wanted."""
        self._ready_at: float | None = None
        self._consumer.subscribe([topic], on_assign=self._given, on_revoke=self._taken, on_lost=self._taken)

    def receive(self, most: int, *, wait_s: float) -> Sequence[Delivery]:
        """As ``Source``. The first time it waits until the group has given out its partitions."""
        joined_by = time.monotonic() + JOIN_S
        while self._ready_at is None and time.monotonic() < joined_by:
            self._early += self._consume(most, 0.2)
        if wait_s and self._ready_at is not None:
            wait_s = max(wait_s, self._ready_at - time.monotonic())
        messages = self._early[:most] or self._consume(most, wait_s)
        del self._early[:most]
        return [delivery for message in messages if (delivery := self._delivery(message)) is not None]

    def hold(self, deliveries: Sequence[Delivery]) -> None:  # noqa: ARG002
        """As ``Source``: without being asked for records now and then, a member is thought dead."""
        assigned = self._consumer.assignment()
        self._consumer.pause(assigned)
        try:
            self._early += self._consume(1, 0)  # of a partition that was given in this moment
        finally:
            kept = {partition.partition for partition in self._consumer.assignment()}
            self._consumer.resume([partition for partition in assigned if partition.partition in kept])

    def done(self, outcome: Outcome) -> None:
        """As ``Source``."""
        message: Message = outcome.delivery.handle
        self._settle(message)

    def set_aside(self, outcome: Outcome) -> None:
        """As ``Source``: the record as it came, and in its headers why and where it was."""
        message: Message = outcome.delivery.handle
        origin = f"{self._topic}/{message.partition()}/{message.offset()}"
        self._dead_letters.send(message.value() or b"", message.key(), outcome.why_aside(origin))
        self._settle(message)

    def close(self) -> None:
        """As ``Source``; its partitions go to other members at once."""
        self._consumer.close()
        self._places.close()

    def _consume(self, most: int, wait_s: float) -> list[Message]:
        messages: list[Message] = _asked(lambda: self._consumer.consume(most, timeout=wait_s))
        for message in messages:
            if (error := message.error()) is not None:
                raise _error(error)
        return messages

    def _delivery(self, message: Message) -> Delivery | None:
        partition, offset = message.partition() or 0, message.offset() or 0
        known = self._partitions.setdefault(partition, _Partition(first=offset, after=offset))
        known.after = offset + 1
        if (partition, offset) in self._under_way:  # it was taken away and given back meanwhile
            return None
        self._under_way.add((partition, offset))
        # With its time: a topic that is made anew counts from 0 again.
        identity = ("kafka", self._topic, partition, offset, message.timestamp()[1])
        return delivery_of(identity, message.value() or b"", self._places, message)

    def _settle(self, message: Message) -> None:
        place = message.partition() or 0, message.offset() or 0
        self._under_way.discard(place)
        known = self._partitions.get(place[0])
        if known is None:
            return
        left = [
            offset
            for partition, offset in self._under_way
            if partition == place[0] and known.first <= offset < known.after
        ]
        position = min(left, default=known.after)
        if position <= max(known.committed, known.first):
            return
        offsets = [TopicPartition(self._topic, place[0], position)]
        try:
            committed = self._consumer.commit(offsets=offsets, asynchronous=False)
        except KafkaException as error:
            if error.args[0].code() in NOT_OURS:
                return
            raise _error(error.args[0]) from error
        for partition in committed:
            if partition.error is not None and partition.error.code() not in NOT_OURS:
                raise _error(partition.error)
        known.committed = position

    def _given(self, _consumer: Consumer, _partitions: list[TopicPartition]) -> None:
        if self._ready_at is None:
            self._ready_at = time.monotonic() + FIRST_FETCH_S

    def _taken(self, _consumer: Consumer, partitions: list[TopicPartition]) -> None:
        for partition in partitions:
            self._partitions.pop(partition.partition, None)
        gone = {partition.partition for partition in partitions}
        self._early = [message for message in self._early if message.partition() not in gone]


class KafkaSink:
    """Outcomes as records of a topic, each under its delivery's id."""

    def __init__(self, topics: Topics, topic: str, form: Form) -> None:
        """Raises ``ConnectorUnusable``: the cluster can't be reached, or has no such topic."""
        self._producer, self._form = topics.producer(topic), form

    def send(self, outcome: Outcome) -> None:
        """As ``Sink``."""
        self._producer.send(self._form(outcome), outcome.delivery.id.encode())

    def close(self) -> None:
        """Nothing waits: each was sent when it was given."""


def read_config(path: Path) -> dict[str, str]:
    """Properties of librdkafka, ``name = value`` a line, as its own tools read them.

    Raises:
        ConnectorUnusable: the file can't be read, or a line is none of those.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConnectorUnusable(f"The properties can't be read from {path}.") from error
    found: dict[str, str] = {}
    for number, line in enumerate(map(str.strip, lines), 1):
        if not line or line.startswith("#"):
            continue
        name, equals, value = line.partition("=")
        if not equals:
            raise ConnectorUnusable(f"Line {number} of {path} is not `name = value`.")
        found[name.strip()] = value.strip()
    return found


def _look_for(topic: str, client: Consumer | Producer) -> None:
    try:
        found = client.list_topics(topic, timeout=LOOK_S).topics[topic]
    except KafkaException as error:
        raise ConnectorUnusable(f"Kafka can't be reached: {_sentence(error)}") from error
    # One that is made by being asked for has no leader for a moment.
    if found.error is not None and found.error.code() != KafkaError.LEADER_NOT_AVAILABLE:
        raise ConnectorUnusable(f"The topic {topic} can't be used: {found.error.str()}.")


def _asked(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except KafkaException as error:
        raise _error(error.args[0]) from error
    except BufferError as error:
        raise OSError(0, "The queue to Kafka is full.") from error


def _error(error: KafkaError) -> Exception:
    """What the bridge waits for, and what it ends with."""
    if error.fatal() or error.code() in REFUSED:
        return ConnectorUnusable(f"Kafka refuses this connector: {error.str()}.")
    return OSError(0, f"Kafka: {error.str()}.")


def _sentence(error: KafkaException | ValueError) -> str:
    first = error.args[0] if error.args else error
    return f"{first.str() if isinstance(first, KafkaError) else first}."
