"""What both ends say, where it does more than hold."""

import pytest
from pydantic import ValidationError

from specsem.records import Job
from tests.client.answers import ANSWER
from tests.client.test_clients import DONE, JOB


def test_an_answer_of_another_version_is_read_as_far_as_it_is_known() -> None:
    job = Job.model_validate(DONE | {"result": ANSWER | {"of_a_later_version": 1}})
    assert job.answer is not None
    assert job.answer.model_dump(mode="json") == ANSWER
    assert Job.model_validate(JOB).answer is None


def test_an_answer_that_lacks_what_is_needed_is_refused() -> None:
    job = Job.model_validate(DONE | {"result": {"verdict": "generated"}})
    with pytest.raises(ValidationError):
        _ = job.answer


def test_what_is_over_is_said() -> None:
    states = ("queued", "running", "done", "failed", "expired")
    over = [state for state in states if Job.model_validate(JOB | {"status": state}).over]
    assert over == ["done", "failed", "expired"]
