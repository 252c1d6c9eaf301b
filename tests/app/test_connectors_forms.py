"""Outcomes as records: ours, and Osprey's actions as its input stream reads them."""

import json
from datetime import datetime
from typing import Any

from app.connectors.forms import FORMS, action_id
from app.connectors.interface import Delivery, Outcome, Unfit
from specsem.records import Job
from tests.client.test_clients import DONE

DELIVERY = Delivery("kafka-1", "a.mp4", lambda folder: folder, {"user_id": "u7"})
SCORED = Outcome(DELIVERY, Job.model_validate(DONE))


def read_as_osprey(record: bytes) -> tuple[int, str, dict[str, Any], datetime]:
    """What its worker takes from a record (roostorg/osprey, `worker/sinks/sink/input_stream`)."""
    message = json.loads(record)
    action = message["data"]
    sent = datetime.fromisoformat(message["send_time"])
    return int(action["action_id"]), action["action_name"], action["data"], sent


def test_an_action_is_read_by_osprey() -> None:
    number, name, data, sent = read_as_osprey(FORMS["osprey"](SCORED))
    assert (number, name) == (action_id("kafka-1"), "video_scored")
    assert 0 <= number < 2**63
    assert sent.tzinfo is not None
    assert data["about"] == {"user_id": "u7"}
    assert data["specsem"]["verdict"] == "generated"
    assert data["specsem"]["job"] == DONE["id"]
    assert data["specsem"]["error"] is None


def test_an_action_is_the_same_when_it_is_sent_again() -> None:
    assert read_as_osprey(FORMS["osprey"](SCORED))[0] == read_as_osprey(FORMS["osprey"](SCORED))[0]
    assert action_id("kafka-1") != action_id("kafka-2")


def test_what_was_set_aside_is_an_action_too() -> None:
    _, _, data, _ = read_as_osprey(FORMS["osprey"](Outcome(DELIVERY, None, Unfit("No."))))
    assert (data["specsem"]["error"], data["specsem"]["verdict"]) == ("unfit", None)
    whole = read_as_osprey(FORMS["osprey"](SCORED))[2]["specsem"]
    assert data["specsem"].keys() == whole.keys(), "rules find the same members in every action"


def test_our_own_form_is_the_outcome() -> None:
    assert json.loads(FORMS["outcome"](SCORED)) == json.loads(json.dumps(SCORED.record()))
