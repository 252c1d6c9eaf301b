"""Room on disk: what videos take of it, stored and arriving, in all and by tenant."""

from collections import Counter
from collections.abc import Callable, Mapping

from app.problems import Problem

__all__ = ["Room", "Tally"]

Taken = tuple[str, int]
"""A tenant, and bytes."""


class Room:
    """Bytes that are taken, within a limit for all and one for each tenant. For the event loop only."""

    def __init__(
        self,
        *,
        max_bytes: int | None = None,
        max_tenant_bytes: int | None = None,
        elsewhere: Callable[[], Mapping[str, int]] = dict,
    ) -> None:
        """None: no limit. ``elsewhere`` tells what each tenant takes that isn't counted here."""
        self._max_bytes = max_bytes
        self._max_tenant_bytes = max_tenant_bytes
        self._elsewhere = elsewhere
        self._taken: Counter[str] = Counter()
        self._total = 0

    def taken(self, tenant: str) -> int:
        """Bytes that a tenant takes."""
        return self._taken[tenant] + self._elsewhere().get(tenant, 0)

    def check(self, tenant: str, extra: int) -> None:
        """Whether there is room for so many bytes more.

        Raises:
            Problem: ``quota_exceeded`` (413), the tenant has used up its own; ``storage_full`` (503).
        """
        limit = self._max_tenant_bytes
        # 413, not 507: a 5xx says that we failed, and clients send it again. RFC 9110 has 413 for what the
        # server isn't willing to take; this one is over once the tenant has deleted something.
        if limit is not None and self.taken(tenant) + extra > limit:
            raise Problem(
                "quota_exceeded",
                "Your videos, and the pictures of your jobs, would take more room than you have; "
                "delete some, or wait until old ones expire.",
                limit_bytes=limit,
                used_bytes=self.taken(tenant),
            )
        total = self._total + sum(self._elsewhere().values())
        if self._max_bytes is not None and total + extra > self._max_bytes:
            raise Problem(
                "storage_full",
                "The store of videos and pictures is full; delete some, or wait until old ones expire.",
                headers={"Retry-After": "60"},
            )

    def add(self, tenant: str, change: int) -> None:
        """Count so many bytes more; a negative number gives them back."""
        self._total += change
        self._taken[tenant] += change
        if not self._taken[tenant]:
            del self._taken[tenant]


class Tally:
    """What the files of one folder take of the room, by id. For the event loop only."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._taken: dict[str, Taken] = {}

    def set(self, file_id: str, tenant: str, size: int) -> None:
        """A file takes so many bytes now."""
        self.drop(file_id)
        self._taken[file_id] = (tenant, size)
        self._room.add(tenant, size)

    def drop(self, file_id: str) -> None:
        """A file is gone."""
        if (known := self._taken.pop(file_id, None)) is not None:
            self._room.add(known[0], -known[1])

    @property
    def bytes(self) -> int:
        """What all of them take."""
        return sum(size for _, size in self._taken.values())

    def count(self, tenant: str) -> int:
        """How many files of a tenant there are."""
        return sum(owner == tenant for owner, _ in self._taken.values())

    def snapshot(self) -> dict[str, Taken]:
        """All that is known now: taken before the folder is looked through, for ``reconcile``."""
        return dict(self._taken)

    def reconcile(
        self, before: Mapping[str, Taken], found: Mapping[str, Taken], is_there: Callable[[str], bool]
    ) -> None:
        """Believe what was found in the folder, but not of a file that came, changed or went meanwhile.

        Other processes write to the folder too: ``is_there`` tells whether one may be believed in now.
        """
        for file_id in before.keys() | found.keys():
            # By identity: set to the same size again, it may have been another one in between.
            if self._taken.get(file_id) is not before.get(file_id):
                continue
            if file_id not in found:
                self.drop(file_id)
            elif is_there(file_id):
                self.set(file_id, *found[file_id])
