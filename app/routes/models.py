"""``/v1/models`` and ``/v1/policies``: what the verdicts stand on."""

from fastapi import APIRouter

from app.routes._openapi import KEYED, problems
from app.schemas import Measured, ModelInfo, ModelList, PolicyInfo, PolicyList
from app.services import Services
from specsem.registry import ModelRecord, list_models

__all__ = ["router"]

router = APIRouter(prefix="/v1", tags=["Models"], dependencies=KEYED)


CONDITION = "as-is"


@router.get("/models", summary="Registered models", responses=problems())
def models(parts: Services) -> ModelList:
    """Every registered model, whether its weights are here, and which one is active."""
    return ModelList(
        models=[
            ModelInfo(
                name=record.name,
                version=record.version,
                licence=record.licence,
                summary=record.summary,
                sha256=record.sha256,
                present=record.present,
                active=record.name == parts.settings.model,
            )
            for record in list_models()
        ]
    )


@router.get("/policies", summary="Policies of the active model", responses=problems("not_ready"))
def policies(parts: Services) -> PolicyList:
    """The thresholds behind each policy, each with the false-positive rate that was shown for it, and what
    it did to clips that the model had not seen."""
    engine = parts.engine
    return PolicyList(
        policies=[
            PolicyInfo(
                name=name,
                active=name == parts.settings.policy,
                threshold=threshold,
                measured=_measured(engine.record, name),
            )
            for name, threshold in sorted(engine.policies.items())
        ]
    )


def _measured(record: ModelRecord, policy: str) -> Measured | None:
    """From the cross-validation that lies beside the weights."""
    found = record.validation().get(CONDITION, {})
    rates = found.get("policies", {}).get(policy)
    if rates is None:
        return None
    has_interval = rates["recall"] == found["tpr_at_threshold"]  # worked out for the default policy only
    return Measured(
        n_generated=found["n_generated"],
        n_real=found["n_real"],
        generated_called_generated=rates["recall"],
        generated_called_generated95=found["interval95"]["tpr_at_threshold"] if has_interval else None,
        camera_called_generated=rates["false_positive_rate"],
        generated_called_authentic=rates["generated_called_authentic"],
        camera_called_authentic=rates["camera_called_authentic"],
        calibration_error=found["ece"],
    )
