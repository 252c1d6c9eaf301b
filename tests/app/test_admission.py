"""Permits: counted in clips and bytes, always given back."""

import pytest

from app.admission import Admission
from app.problems import Problem
from app.room import Room


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
    room = Room(max_bytes=50)
    admission = Admission(max_clips=4, max_bytes=100, room=room)
    with admission.permit(30), admission.permit() as permit:
        permit.grow(20)
        with pytest.raises(Problem, match="storage_full"):
            permit.grow(21)
        assert admission.bytes == 50
    assert (admission.clips, admission.bytes, room.taken("")) == (0, 0, 0)


def test_whoever_keeps_a_file_counts_it() -> None:
    room = Room(max_bytes=100, max_tenant_bytes=50)
    admission = Admission(max_clips=4, max_bytes=100, room=room)
    with admission.permit(40, "one") as permit:
        with pytest.raises(Problem) as refused, admission.permit(11, "one"):
            pass
        assert (refused.value.code, refused.value.status) == ("quota_exceeded", 413)
        assert (refused.value.extra["limit_bytes"], refused.value.extra["used_bytes"]) == (50, 40)
        with admission.permit(50, "two"):
            pass
        permit.release()
        assert (admission.clips, room.taken("one")) == (1, 0)
    assert (admission.clips, admission.bytes, room.taken("one")) == (0, 0, 0)


def test_a_body_without_a_length_grows_its_permit() -> None:
    admission = Admission(max_clips=2, max_bytes=100)
    with admission.permit(None) as permit:
        permit.grow(70)
        permit.grow(50)
        assert admission.bytes == 70
        with pytest.raises(Problem):
            permit.grow(101)
    assert admission.bytes == 0
