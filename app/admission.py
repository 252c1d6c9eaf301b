"""Permits for work in flight, counted in clips and bytes and taken before a body is read."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from app.problems import Problem

__all__ = ["Admission", "Permit"]


class Permit:
    """Room for one video. ``grow`` asks for more where a body came without a length."""

    def __init__(self, admission: "Admission") -> None:
        self._admission = admission
        self.bytes = 0

    def grow(self, to_bytes: int) -> None:
        """Hold at least so many bytes.

        Raises:
            Problem: ``busy`` or ``storage_full`` (503), the bytes in flight would pass a limit.
        """
        extra = to_bytes - self.bytes
        if extra <= 0:
            return
        in_flight = self._admission.bytes + extra
        if in_flight > self._admission.max_bytes:
            raise _busy()
        self._admission.check_room(in_flight)
        self._admission.bytes = in_flight
        self.bytes = to_bytes


class Admission:
    """How many clips are in flight, how many bytes arrive. For the event loop only, so it needs no lock."""

    def __init__(
        self, *, max_clips: int, max_bytes: int, check_room: Callable[[int], None] = lambda _bytes: None
    ) -> None:
        """``check_room`` is told what would arrive in all, and raises where the disk has no room for it."""
        self.max_clips = max_clips
        self.max_bytes = max_bytes
        self.check_room = check_room
        self.clips = 0
        self.bytes = 0

    @contextmanager
    def permit(self, announced_bytes: int | None = None) -> Iterator[Permit]:
        """Hold a permit for one clip while the block runs. None: it is stored already, or has no length.

        Raises:
            Problem: ``busy`` or ``storage_full`` (503 with Retry-After), too much is in flight.
        """
        if self.clips >= self.max_clips:
            raise _busy()
        self.clips += 1
        permit = Permit(self)
        try:
            permit.grow(announced_bytes or 0)
            yield permit
        finally:
            self.clips -= 1
            self.bytes -= permit.bytes


def _busy() -> Problem:
    return Problem("busy", "Too many videos are being looked at right now; try again in a moment.")
