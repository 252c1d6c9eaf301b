"""``/v1/drift`` and ``/v1/calibrations``: for those who run the service, over all tenants."""

from typing import Annotated

from fastapi import APIRouter, Query

from app.calibrations import described
from app.routes._openapi import KEYED, problems
from app.services import Services
from specsem.records import CalibrationInfo, CalibrationList, Drift

__all__ = ["router"]

router = APIRouter(prefix="/v1", tags=["Drift"], dependencies=KEYED)


@router.get("/drift", summary="Scores by week, and what operators found", responses=problems("not_ready"))
async def drift(
    parts: Services,
    weeks: Annotated[int, Query(ge=1, le=104, description="How far back.")] = 12,
) -> Drift:
    """Counts and shares of all tenants, of the model in use. Needs a key with the scope `admin`, where keys
    are needed at all."""
    return await parts.drift.look(weeks)


@router.get("/calibrations", summary="Calibrations of the model in use", responses=problems("not_ready"))
def calibrations(parts: Services) -> CalibrationList:
    """The model's own, and those fitted from feedback; `specsem calibrations` activates them."""
    found = described(parts.engine.record, parts.engine.shipped, parts.calibrations)
    return CalibrationList(calibrations=[CalibrationInfo.model_validate(one) for one in found])
