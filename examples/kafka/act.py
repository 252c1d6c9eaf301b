"""Takes verdicts from the topic `verdicts` and says what is to be done about each post.

A verdict may come twice, under the same `id`: what is done in place of the line printed here has to bear it.
"""

import json
import os
import signal
from contextlib import closing, suppress
from typing import Any

from confluent_kafka import Consumer, KafkaException

BROKERS = os.environ.get("SPECSEM_KAFKA_BROKERS", "localhost:9092")


def action(outcome: dict[str, Any]) -> str:
    """What could not be scored, or decided on, is for people."""
    decision = outcome["answer"] and outcome["answer"]["decision"]
    return str(decision["action"]) if decision else "review"


signal.signal(signal.SIGTERM, signal.default_int_handler)
consumer = Consumer(
    {
        "bootstrap.servers": BROKERS,
        "group.id": "act",
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
    }
)
with suppress(KeyboardInterrupt), closing(consumer):
    consumer.subscribe(["verdicts"])
    while True:
        message = consumer.poll(0.5)
        if message is None:
            continue
        if error := message.error():
            raise KafkaException(error)
        outcome = json.loads(message.value() or b"")
        print(outcome["about"]["post"], action(outcome), flush=True)
        consumer.commit(message=message, asynchronous=False)  # once it is done: else a crash would lose it
