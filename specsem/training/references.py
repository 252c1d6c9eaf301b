"""``specsem references``: what evidence is shown beside, made once from clips and kept with a model.

The mean spectrum of camera clips, and the head that names families of generators. Both are small files in the
model's folder, with their checksums in its ``model.json``.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from specsem.attribution import HEAD_FILE, TENSORS_FILE
from specsem.errors import SpecSemError
from specsem.evaluation.files import decode_items, read_scores
from specsem.media import Clip, DecoderPool
from specsem.model import SpecSemConfig
from specsem.registry import get_model, read_model
from specsem.training.attribution import fit_attributor
from specsem.training.data import Item, read_manifest
from specsem.views import SPECTRUM_FILE, log_spectrum, seen

__all__ = ["references"]


def references(
    data: Sequence[Path] = (), scores: Sequence[Path] = (), *, model: str, processes: int = 2
) -> dict[str, str]:
    """Make the references of a model and write them into its folder; a line on each.

    Args:
        data: Manifests; their camera clips give the spectrum. None: the model's spectrum stays as it is.
        scores: Of cross-validation, as ``train`` writes them (``scores.jsonl``). None: its head does.
        model: A registered name, or a folder that ``train`` wrote.
        processes: That decode.

    Raises:
        SpecSemError: the manifests or the scores hold too little.
    """
    record = read_model(Path(model)) if Path(model, "model.json").exists() else get_model(model)
    folder, config = record.folder, SpecSemConfig.from_dict(record.config)
    made: dict[str, str] = {}
    if data:
        cameras = [item for item in read_manifest(*data) if not item.generated]
        made[SPECTRUM_FILE] = _write_spectrum(folder / SPECTRUM_FILE, cameras, config, processes)
    if scores:
        head, figures = fit_attributor(read_scores(*scores))
        tensors: dict[str, np.ndarray] = {
            "project_DQ": head.project_DQ.astype(np.float16),
            "offset_Q": head.offset_Q.astype(np.float32),
            "mean_KQ": head.mean_KQ.astype(np.float32),
        }
        save_file(tensors, folder / TENSORS_FILE)
        fields = {
            "weights_sha256": record.sha256,
            "families": head.families,
            "sharpness": round(head.sharpness, 6),
            "unknown": round(head.unknown, 6),
            "basis": head.basis,
            "figures": asdict(figures),
        }
        (folder / HEAD_FILE).write_text(json.dumps(fields, indent=1) + "\n", encoding="utf-8")
        made |= {TENSORS_FILE: head.basis, HEAD_FILE: head.basis}
    _register(folder, list(made))
    return made


def _write_spectrum(path: Path, cameras: Sequence[Item], config: SpecSemConfig, processes: int) -> str:
    """Each clip counts alike, whatever its length."""
    spectra = []
    sources = set()
    with DecoderPool(workers=processes) as pool:
        outcomes = decode_items(cameras, "as-is", plan=config.plan(), pool=pool, threads=processes)
        for item, (clip, _) in zip(cameras, outcomes, strict=True):
            if isinstance(clip, Clip):
                spectra.append(np.mean([log_spectrum(seen(w), config.radius) for w in clip.windows], axis=0))
                sources.add(item.source)
    if not spectra:
        raise SpecSemError("The manifests hold no camera clip that can be decoded.")
    facts = {"clips": str(len(spectra)), "sources": str(len(sources)), "radius": str(config.radius)}
    save_file({"mean_HW": np.mean(spectra, axis=0).astype(np.float16)}, path, metadata=facts)
    return f"the mean of {len(spectra)} camera clips from {len(sources)} sources"


def _register(folder: Path, names: Sequence[str]) -> None:
    """Note the checksums of these files."""
    record = folder / "model.json"
    fields = json.loads(record.read_text(encoding="utf-8"))
    files = fields.get("files", {})
    for name in names:
        (folder / name).chmod(0o644)  # the service may run as another user than the one who made it
        files[name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    fields["files"] = dict(sorted(files.items()))
    record.write_text(json.dumps(fields, indent=1) + "\n", encoding="utf-8")
