"""``/v1/models``: what the scores come from."""

from fastapi import APIRouter

from app.routes._openapi import KEYED, problems
from app.schemas import ModelInfo, ModelList
from app.services import Services
from specsem.registry import list_models

__all__ = ["router"]

router = APIRouter(prefix="/v1", tags=["Models"], dependencies=KEYED)


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
