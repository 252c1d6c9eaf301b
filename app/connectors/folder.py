"""A folder that is watched: what is put there is scored, then moved to ``done/`` or ``failed/`` in it.

Beside each file lies its outcome, ``NAME.json``. It looks again and again: notifications of a file system
don't come over a network.
"""

import hashlib
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from app.connectors.interface import ConnectorUnusable, Delivery, Outcome, Unfit
from specsem.pipeline import printable_path

__all__ = ["FolderSource"]

DONE, FAILED = "done", "failed"
SETTLE_S = 2.0
UNFINISHED = (".part", ".partial", ".crdownload", ".tmp")
"""Ends of names that writers of files take away at the end."""


class FolderSource:
    """Of the files in a folder, not those below. Hidden ones, links and what isn't a file are left alone."""

    def __init__(self, folder: Path, *, settle_s: float = SETTLE_S) -> None:
        """A file is taken once it hasn't changed for ``settle_s`` seconds.

        Raises:
            ConnectorUnusable: there is no such folder, or nothing can be written there.
        """
        self._folder, self._settle_s = folder, settle_s
        try:
            for name in (DONE, FAILED):
                (folder / name).mkdir(exist_ok=True)
        except OSError as error:
            raise ConnectorUnusable(f"The folder {folder} can't be used: {error.strerror}.") from error
        self._seen: dict[str, tuple[int, int, float]] = {}
        """Name -> size and time of change, and since when they are such."""
        self._under_way: set[str] = set()

    def receive(self, most: int, *, wait_s: float) -> Sequence[Delivery]:
        """As ``Source``; the oldest first."""
        ends = time.monotonic() + wait_s
        while True:
            settled = sorted(self._settled(), key=lambda entry: entry.stat().st_mtime_ns)[:most]
            if settled or (left_s := ends - time.monotonic()) <= 0:
                break
            time.sleep(min(0.25, left_s))
        return [self._delivery(entry) for entry in settled]

    def hold(self, deliveries: Sequence[Delivery]) -> None:
        """Nobody else takes them: one folder has one watcher."""

    def done(self, outcome: Outcome) -> None:
        """As ``Source``."""
        self._move(outcome, DONE)

    def set_aside(self, outcome: Outcome) -> None:
        """As ``Source``."""
        self._move(outcome, FAILED)

    def close(self) -> None:
        """There is nothing to let go of."""

    def _settled(self) -> Iterator["os.DirEntry[str]"]:
        now, present = time.monotonic(), {}
        with os.scandir(self._folder) as entries:
            for entry in entries:
                name = entry.name
                if name.startswith(".") or name.endswith(UNFINISHED) or name in self._under_way:
                    continue
                try:
                    if not entry.is_file(follow_symlinks=False):
                        continue
                    facts = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                size, changed, since = self._seen.get(name, (-1, -1, now))
                if (size, changed) != (facts.st_size, facts.st_mtime_ns):
                    size, changed, since = facts.st_size, facts.st_mtime_ns, now
                present[name] = size, changed, since
                if now - since >= self._settle_s:
                    yield entry
        self._seen = present

    def _delivery(self, entry: "os.DirEntry[str]") -> Delivery:
        self._under_way.add(entry.name)
        size, changed, _ = self._seen[entry.name]
        # A file that is put there again under the same name is another.
        identity = b"\0".join([os.fsencode(entry.path), str(size).encode(), str(changed).encode()])
        return Delivery(
            id=f"folder-{hashlib.sha256(identity).hexdigest()}",
            name=printable_path(entry.name),
            fetch=partial(_present, self._folder / entry.name),
            handle=entry.name,
        )

    def _move(self, outcome: Outcome, where: str) -> None:
        name: str = outcome.delivery.handle
        target = self._free(where, name)
        # The outcome first: a file that has been moved always has one.
        outcome.write(target.with_name(target.name + ".json"))
        with suppress(FileNotFoundError):  # somebody took it away meanwhile; its outcome stays
            (self._folder / name).rename(target)
        self._under_way.discard(name)
        self._seen.pop(name, None)

    def _free(self, where: str, name: str) -> Path:
        """A path that nothing has yet: what came before under the same name stays."""
        target, number = self._folder / where / name, 1
        while target.exists() or target.with_name(target.name + ".json").exists():
            number += 1
            target = target.with_name(f"{Path(name).stem}-{number}{Path(name).suffix}")
        return target


def _present(path: Path, _folder: Path) -> Path:
    if not path.is_file():
        raise Unfit("The file is no longer there.")
    return path
