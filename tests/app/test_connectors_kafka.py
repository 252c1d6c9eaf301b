"""Kafka, against the mock cluster of librdkafka: groups, offsets and dead letters by the protocol."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kafka_cluster import KafkaCluster, kafka_cluster

from app.connectors.forms import FORMS, action_id
from app.connectors.interface import ConnectorUnusable, Delivery, Outcome, Unfit
from app.connectors.kafka import KafkaSink, KafkaSource, Topics, logger, read_config
from app.connectors.records import Places
from specsem.records import Job
from tests.client.test_clients import DONE

SCORED = Job.model_validate(DONE)


@pytest.fixture(scope="module")
def cluster() -> Iterator[KafkaCluster]:
    with kafka_cluster() as running:
        yield running


def source(cluster: KafkaCluster, topic: str) -> KafkaSource:
    topics = Topics(cluster.brokers, {"session.timeout.ms": "6000"})
    return KafkaSource(topics, topic, group="specsem", dead_letters=f"{topic}.dead", places=Places())


def taken(source: KafkaSource, least: int, most: int = 10) -> list[Delivery]:
    found: list[Delivery] = []
    ends = time.monotonic() + 20
    while len(found) < least and time.monotonic() < ends:
        found += source.receive(most, wait_s=0.2)
    return found


def test_offsets_follow_what_is_settled_in_the_order_of_the_topic(cluster: KafkaCluster) -> None:
    urls = [{"url": f"https://media.example.org/{number}.mp4"} for number in range(4)]
    cluster.put("order", *urls, b"poison")
    first = source(cluster, "order")
    deliveries = taken(first, 5)
    assert [delivery.name[-5:] for delivery in deliveries[:4]] == ["0.mp4", "1.mp4", "2.mp4", "3.mp4"]
    for at in (1, 2):
        first.done(Outcome(deliveries[at], SCORED))
    assert cluster.committed("order", "specsem") < 0, "the first one is still under way"
    first.hold(deliveries)
    first.done(Outcome(deliveries[0], SCORED))
    assert cluster.committed("order", "specsem") == 3
    first.set_aside(Outcome(deliveries[4], None, Unfit("It is none.")))
    assert cluster.committed("order", "specsem") == 3
    first.close()

    [dead] = cluster.read("order.dead", 1)
    headers = dict(dead.headers())
    assert dead.value() == b"poison"
    assert (headers["specsem-error-code"], headers["specsem-origin"]) == (b"unfit", b"order/0/4")

    second = source(cluster, "order")
    again = taken(second, 2)
    assert [delivery.id for delivery in again] == [deliveries[3].id, deliveries[4].id]
    second.close()


def test_only_so_many_are_taken_and_a_held_source_goes_on(cluster: KafkaCluster) -> None:
    cluster.put("bounded", *({"url": f"https://media.example.org/{number}.mp4"} for number in range(5)))
    bounded = source(cluster, "bounded")
    deliveries = taken(bounded, 2, most=2)
    assert len(deliveries) == 2
    for _ in range(3):
        bounded.hold(deliveries)
    assert [delivery.name[-5:] for delivery in taken(bounded, 3)] == ["2.mp4", "3.mp4", "4.mp4"]
    bounded.close()


def test_outcomes_arrive_under_their_deliveries_ids(cluster: KafkaCluster) -> None:
    sink = KafkaSink(Topics(cluster.brokers), "verdicts", FORMS["osprey"])
    delivery = Delivery("kafka-1", "a.mp4", lambda folder: folder)
    for _ in range(2):
        sink.send(Outcome(delivery, SCORED))
    first, second = cluster.read("verdicts", 2)
    assert first.key() == second.key() == b"kafka-1"
    ids = {json.loads(each.value())["data"]["action_id"] for each in (first, second)}
    assert ids == {str(action_id("kafka-1"))}


def test_a_cluster_that_is_away_is_refused_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.connectors.kafka.LOOK_S", 0.3)
    with pytest.raises(ConnectorUnusable, match="can't be reached"):
        KafkaSink(Topics("127.0.0.1:1"), "verdicts", FORMS["outcome"])


def test_what_is_said_again_and_again_is_told_seldom(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr("app.connectors.kafka.time.monotonic", lambda: now[0])
    for pause_s in (0.0, 1.0, 90.0):
        now[0] += pause_s
        logger.error("10.0.0.1:9092: Connection refused (after %dms)", now[0])
    logger.error("Another")
    said = [record.getMessage().rsplit(" ", 1)[-1] for record in caplog.records]
    assert said == ["1000ms)", "1091ms)", "Another"]


def test_properties_that_are_none_are_refused() -> None:
    with pytest.raises(ConnectorUnusable, match="No such configuration property"):
        KafkaSink(Topics("127.0.0.1:1", {"no.such": "1"}), "verdicts", FORMS["outcome"])


def test_properties_are_read_as_librdkafka_has_them(tmp_path: Path) -> None:
    file = tmp_path / "kafka.properties"
    file.write_text("# TLS\nsecurity.protocol = SASL_SSL\n\nsasl.password=a=b\n")
    assert read_config(file) == {"security.protocol": "SASL_SSL", "sasl.password": "a=b"}
    file.write_text("nonsense\n")
    with pytest.raises(ConnectorUnusable, match="Line 1"):
        read_config(file)
    with pytest.raises(ConnectorUnusable, match="can't be read"):
        read_config(tmp_path / "nowhere")
