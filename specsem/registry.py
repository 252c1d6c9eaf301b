"""Which models exist: `name` -> config, weights file, sha256, licence, preprocessing. No network, ever.

A model is a folder of ``models/`` with ``model.json`` (this record), ``model.safetensors`` and
``calibration.json``. The folder travels inside the wheel; ``SPECSEM_MODELS_DIR`` names another.
"""

import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from specsem.errors import UnknownModel, WeightsCorrupt, WeightsMissing

__all__ = ["DEFAULT_MODEL", "ModelRecord", "get_model", "list_models", "models_dir", "read_model"]

DEFAULT_MODEL = "specsem-compact"
WEIGHTS_FILE = "model.safetensors"
VALIDATION_FILE = "validation.json"


@dataclass(frozen=True, slots=True)
class ModelRecord:
    """One registered model. ``sha256`` is that of the weights file, empty where none is shipped."""

    name: str
    version: str
    licence: str
    summary: str
    sha256: str
    config: dict[str, Any]
    folder: Path
    files: dict[str, str] = field(default_factory=dict)
    """What else belongs to it (``specsem references`` makes it), each with its SHA-256."""
    folds: str = ""
    """Of a model whose members each left out one fold of cross-validation: which clip was in which
    (``specsem.training.data.identity_of_folds``)."""

    @property
    def weights(self) -> Path:
        """Where the weights lie, or would lie."""
        return self.folder / WEIGHTS_FILE

    @property
    def present(self) -> bool:
        """Whether the weights are on this machine."""
        return self.weights.is_file()

    def verified_weights(self) -> Path:
        """The weights' path after a look at their checksum.

        Raises:
            WeightsMissing: there is no weights file.
            WeightsCorrupt: its SHA-256 is not the registered one.
        """
        if not self.present:
            raise WeightsMissing(f"The weights of {self.name!r} are not on this machine.")
        self._verify(self.weights, self.sha256)
        return self.weights

    def verified_file(self, name: str) -> Path | None:
        """The path of one of ``files`` after a look at its checksum; None where the model has none such.

        Raises:
            WeightsCorrupt: its SHA-256 is not the registered one, or it is not there.
        """
        if name not in self.files:
            return None
        self._verify(self.folder / name, self.files[name])
        return self.folder / name

    def validation(self) -> dict[str, Any]:
        """What it did to clips that it had not seen, by condition, as ``specsem.evaluation.tables`` has it;
        empty where it was never judged."""
        try:
            text = (self.folder / VALIDATION_FILE).read_text(encoding="utf-8")
        except OSError:
            return {}
        conditions: dict[str, Any] = json.loads(text)["conditions"]
        return conditions

    def _verify(self, path: Path, sha256: str) -> None:
        try:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except FileNotFoundError:
            raise WeightsCorrupt(f"{path.name} of {self.name!r} is not on this machine.") from None
        if found != sha256:
            raise WeightsCorrupt(
                f"{path.name} of {self.name!r} has SHA-256 {found[:12]}…, not {sha256[:12]}…."
            )


def models_dir() -> Path:
    """The folder of models: the setting, the wheel's own, or the checkout's."""
    if configured := os.environ.get("SPECSEM_MODELS_DIR"):
        return Path(configured)
    packaged = Path(__file__).parent / "_models"
    return packaged if packaged.is_dir() else Path(__file__).parent.parent / "models"


def list_models() -> list[ModelRecord]:
    """Every registered model, by name."""
    return [read_model(path.parent) for path in sorted(models_dir().glob("*/model.json"))]


def get_model(name: str = DEFAULT_MODEL) -> ModelRecord:
    """The model of this name.

    Raises:
        UnknownModel: no such model is registered.
    """
    records = {record.name: record for record in list_models()}
    if name not in records:
        raise UnknownModel(f"No model is named {name!r}; registered: {', '.join(records) or 'none'}.")
    return records[name]


def read_model(folder: Path) -> ModelRecord:
    """The model that a folder holds, registered or not."""
    fields = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    return ModelRecord(
        name=fields["name"],
        version=fields["version"],
        licence=fields["licence"],
        summary=fields["summary"],
        sha256=fields.get("sha256", ""),
        config=fields["config"],
        folder=folder,
        files=fields.get("files", {}),
        folds=fields.get("folds", ""),
    )
