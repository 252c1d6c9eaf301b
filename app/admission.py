"""Permits for work in flight, counted in clips and bytes and taken before a body is read."""

from collections.abc import Iterator
from contextlib import contextmanager

from app.problems import Problem
from app.room import Room

__all__ = ["Admission", "Permit"]


class Permit:
    """Room for one video. ``grow`` asks for more where a body came without a length."""

    def __init__(self, admission: "Admission", tenant: str) -> None:
        self._admission = admission
        self._tenant = tenant
        self.bytes = 0

    def grow(self, to_bytes: int) -> None:
        """Hold at least so many bytes.

        Raises:
            Problem: ``busy`` or ``storage_full`` (503), ``quota_exceeded`` (413): they would pass a limit.
        """
        extra = to_bytes - self.bytes
        if extra <= 0:
            return
        if self._admission.bytes + extra > self._admission.max_bytes:
            raise _busy()
        self._admission.room.check(self._tenant, extra)
        self._hold(extra)

    def release(self) -> None:
        """Give the bytes back, though not the clip: whoever keeps the file counts them from now on."""
        self._hold(-self.bytes)

    def _hold(self, change: int) -> None:
        self.bytes += change
        self._admission.bytes += change
        self._admission.room.add(self._tenant, change)


class Admission:
    """How many clips are in flight, how many bytes arrive. For the event loop only, so it needs no lock."""

    def __init__(self, *, max_clips: int, max_bytes: int, room: Room | None = None) -> None:
        """``room`` is where it arrives; None: there is plenty."""
        self.max_clips = max_clips
        self.max_bytes = max_bytes
        self.room = room or Room()
        self.clips = 0
        self.bytes = 0

    @contextmanager
    def permit(self, announced_bytes: int | None = None, tenant: str = "") -> Iterator[Permit]:
        """Hold a permit for one clip while the block runs. None: it is stored already, or has no length.

        Raises:
            Problem: ``busy`` or ``storage_full`` (503 with Retry-After), too much is in flight;
                ``quota_exceeded`` (413), more than ``tenant`` has room for.
        """
        if self.clips >= self.max_clips:
            raise _busy()
        self.clips += 1
        permit = Permit(self, tenant)
        try:
            permit.grow(announced_bytes or 0)
            yield permit
        finally:
            self.clips -= 1
            permit.release()


def _busy() -> Problem:
    return Problem("busy", "Too many videos are being looked at right now; try again in a moment.")
