"""Where a source that has no place of its own keeps what can't be scored: a folder, one JSON file each."""

import hashlib
from pathlib import Path

from app.connectors.interface import ConnectorUnusable, Outcome

__all__ = ["Aside", "FileSink"]


class FileSink:
    """Outcomes as JSON files in a folder; one that is sent again takes the place of the first."""

    def __init__(self, folder: Path) -> None:
        """Raises ``ConnectorUnusable``: nothing can be written there."""
        self._folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConnectorUnusable(f"The folder {folder} can't be used: {error.strerror}.") from error

    def send(self, outcome: Outcome) -> None:
        """As ``Sink``."""
        self._write(outcome, {})

    def close(self) -> None:
        """There is nothing to let go of."""

    def _write(self, outcome: Outcome, more: dict[str, str]) -> None:
        # Ids are a source's own: no path is made of them.
        name = hashlib.sha256(outcome.delivery.id.encode()).hexdigest()[:32]
        outcome.write(self._folder / f"{name}.json", more)


class Aside(FileSink):
    """With the message as it came, so that it can be sent again."""

    def keep(self, outcome: Outcome, message: str) -> None:
        """Raises ``OSError``."""
        self._write(outcome, {"message": message})
