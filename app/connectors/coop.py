"""What ROOST's Coop shows of a model: a model card in its form, made from the model's own card and figures.

Coop (github.com/roostorg/coop) takes signals from plugins; ours is in integrations/coop. A card of its form
has a name, a version and sections of labelled texts, seven of which must be there. No figure in it is written
by hand: texts are those of the model's README, figures those of its validation and its calibration.
"""

import json
import re
from pathlib import Path
from typing import Any

from specsem.calibration import Calibration
from specsem.registry import ModelRecord

__all__ = ["REQUIRED_SECTIONS", "card_file", "model_card"]

REQUIRED_SECTIONS = (
    "trainingData",
    "policyAndTaxonomy",
    "annotationMethodology",
    "performanceBenchmarks",
    "biasAndLimitations",
    "implementationGuidance",
    "relevantLinks",
)
"""Without these Coop refuses an integration."""
README = "README.md"
PROJECT = "specsem"
CONDITIONS = {
    "as-is": "As delivered",
    "level": "256x256, 16 frames, x264",
    "canonical": "512x512, 8 fps, x264",
}

Field = dict[str, str]


def card_file(model: ModelRecord) -> str:
    """What the plugin reads (integrations/coop/model.json)."""
    policies = Calibration.load(model.folder).policies
    thresholds = {
        "highPrecisionThreshold": round(policies["default"].value, 4),
        "highRecallThreshold": round(policies.get("review", policies["default"]).value, 4),
    }
    document = {"modelCard": model_card(model), "recommendedThresholds": thresholds}
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def model_card(model: ModelRecord) -> dict[str, Any]:
    """The card of a model whose folder has its README, its calibration and its validation.

    Raises:
        ValueError: the README lacks a section that the card needs.
    """
    readme = (model.folder / README).read_text(encoding="utf-8")
    limits = _bullets(readme, "What it can't do")
    labels = [text for text in limits if "label" in text]
    fields: dict[str, tuple[str, list[Field]]] = {
        "trainingData": ("Training data", [_field("Data", _paragraphs(readme, "Data and training")[0])]),
        "policyAndTaxonomy": ("Policy and taxonomy", _taxonomy()),
        "annotationMethodology": ("Annotation", [_field("Labels", " ".join(labels))]),
        "performanceBenchmarks": ("Performance", _performance(model)),
        "biasAndLimitations": (
            "Bias and limitations",
            [_field(f"Limit {number}", text) for number, text in enumerate(limits, 1)],
        ),
        "implementationGuidance": ("Implementation", _guidance(model)),
        "relevantLinks": (
            "More",
            [
                _field("Model card", f"models/{model.name}/README.md of the {PROJECT} repository"),
                _field("Connectors", f"docs/connectors.md of the {PROJECT} repository"),
            ],
        ),
    }
    return {
        "modelName": model.name,
        "version": model.version,
        "sections": [
            {"id": name, "title": fields[name][0], "fields": fields[name][1]} for name in REQUIRED_SECTIONS
        ],
    }


def _taxonomy() -> list[Field]:
    return [
        _field("Class", "Whether a video was made by a generator (1) or by a camera (0). Nothing else."),
        _field(
            "Output",
            "A calibrated probability at even prior odds, 0 to 1. It is evidence, not proof: it judges "
            "pixels, not whether what they show is true.",
        ),
    ]


def _performance(model: ModelRecord) -> list[Field]:
    """By condition, on clips whose generator and camera the judging member had not seen."""
    found: list[Field] = []
    for name, figures in model.validation().items():
        if name not in CONDITIONS:
            continue
        low, high = figures["interval95"]["auc"]
        found.append(
            _field(
                CONDITIONS[name],
                f"{figures['n_generated']} generated and {figures['n_real']} camera clips of unseen sources: "
                f"AUC {figures['auc']:.3f} (95%: {low:.3f} to {high:.3f}); at the default threshold "
                f"{figures['tpr_at_threshold']:.1%} of generated clips found, "
                f"{figures['fpr_at_threshold']:.1%} of camera clips called generated.",
            )
        )
    if not found:
        raise ValueError(f"{model.name} was never validated")
    return found


def _guidance(model: ModelRecord) -> list[Field]:
    found = [
        _field(
            f"Threshold of policy {name}",
            f"From {threshold.value:.3f} up: {threshold.max_fpr:.0%} false alarms asked for, at most "
            f"{threshold.fpr_upper95:.1%} with 95% confidence ({threshold.calibration_n} camera clips).",
        )
        for name, threshold in Calibration.load(model.folder).policies.items()
    ]
    return [
        *found,
        _field(
            "Human review",
            "Needed before anything is done to a person or a post: see the false alarms above.",
        ),
        _field("Licence", model.licence),
        _field("Weights", f"SHA-256 {model.sha256}"),
    ]


def _field(label: str, value: str) -> Field:
    if not value:
        raise ValueError(f"the model's README says nothing of {label!r}")
    return {"label": label, "value": value}


def _section(readme: str, title: str) -> str:
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", readme, re.M | re.S)
    if found is None:
        raise ValueError(f"the model's README has no section {title!r}")
    return found[1].strip()


def _paragraphs(readme: str, title: str) -> list[str]:
    return [_plain(text) for text in re.split(r"\n\s*\n", _section(readme, title))]


def _bullets(readme: str, title: str) -> list[str]:
    return [_plain(text) for text in re.split(r"^- ", _section(readme, title), flags=re.M) if text.strip()]


def _plain(markdown: str) -> str:
    """Without emphasis, code and addresses of links; on one line."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", markdown)
    return re.sub(r"\s+", " ", text.replace("**", "").replace("`", "")).strip()


if __name__ == "__main__":  # `make docs`
    from specsem.registry import get_model

    OUT = Path(__file__).parents[2] / "integrations" / "coop" / "model.json"
    OUT.write_text(card_file(get_model()), encoding="utf-8")
