"""Permits: counted in clips and bytes, always given back."""

import pytest

from app.admission import Admission
from app.problems import Problem


def test_clips_and_bytes_are_limited_and_given_back() -> None:
    admission = Admission(max_clips=2, max_bytes=100)
    with admission.permit(60), admission.permit(40):
        with pytest.raises(Problem) as refused, admission.permit(0):
            pass
        assert refused.value.status == 503
        assert "Retry-After" in refused.value.headers
    with pytest.raises(Problem), admission.permit(60), admission.permit(41):
        pass
    assert (admission.clips, admission.bytes) == (0, 0)


def test_no_more_arrives_than_there_is_room_for() -> None:
    def check_room(arriving: int) -> None:
        if arriving > 50:
            raise Problem("storage_full", "Full.")

    admission = Admission(max_clips=4, max_bytes=100, check_room=check_room)
    with admission.permit(30), admission.permit() as permit:
        permit.grow(20)
        with pytest.raises(Problem, match="storage_full"):
            permit.grow(21)
        assert admission.bytes == 50
    assert (admission.clips, admission.bytes) == (0, 0)


def test_a_body_without_a_length_grows_its_permit() -> None:
    admission = Admission(max_clips=2, max_bytes=100)
    with admission.permit(None) as permit:
        permit.grow(70)
        permit.grow(50)
        assert admission.bytes == 70
        with pytest.raises(Problem):
            permit.grow(101)
    assert admission.bytes == 0
