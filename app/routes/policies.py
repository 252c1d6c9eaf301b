"""``/v1/policies``: what is done about which answers."""

import contextlib
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Path
from fastapi.responses import JSONResponse

from app.problems import Problem
from app.routes._openapi import KEYED, problems
from app.schemas import Measured, PolicyInfo, PolicyList, PolicyRule
from app.services import Parts, Services, Tenant
from specsem.errors import PolicyRefused, UnknownPolicy
from specsem.policy import Policy, Rule, json_schema, refusals, threshold_of
from specsem.registry import ModelRecord
from specsem.result import Threshold

__all__ = ["router"]

router = APIRouter(prefix="/v1", tags=["Policies"], dependencies=KEYED)

CONDITION = "as-is"
Reference = Annotated[
    str,
    Path(description="Its name, or `name@version`; without a version, the highest.", examples=["default"]),
]


class SchemaResponse(JSONResponse):
    """A JSON Schema."""

    media_type = "application/schema+json"


@router.get("/policies", summary="Policies", responses=problems("not_ready"))
def policies(parts: Services, tenant: Tenant) -> PolicyList:
    """Every policy with its rules, the false-positive rates behind them with the active model, and what its
    thresholds did to clips that the model had not seen."""
    return PolicyList(policies=[_info(parts, policy, tenant) for policy in parts.jobs.decider.book.policies])


@router.get("/policies/{name}", summary="A policy", responses=problems("policy_not_found", "not_ready"))
def get(name: Reference, parts: Services, tenant: Tenant) -> PolicyInfo:
    """Its rules, and what stands behind them."""
    try:
        policy = parts.jobs.decider.book.policy(name)
    except UnknownPolicy:
        raise Problem("policy_not_found", "There is no policy of this name and version.") from None
    return _info(parts, policy, tenant)


@router.get(
    "/policies.schema.json",
    summary="How policies are written",
    response_class=SchemaResponse,
    responses=problems(),
)
async def schema() -> dict[str, Any]:
    """The JSON Schema of a file of policies."""
    return json_schema()


def _info(parts: Parts, policy: Policy, tenant: str) -> PolicyInfo:
    points = parts.engine.policies
    return PolicyInfo(
        name=policy.name,
        version=policy.version,
        active=policy == parts.jobs.decider.active,
        description=policy.description,
        sha256=policy.sha256,
        operating_point=policy.operating_point,
        threshold=points.get(policy.operating_point),
        # A calibration that was fitted here was measured on nothing.
        measured=None
        if parts.engine.calibration.version
        else _measured(parts.engine.record, policy.operating_point),
        rules=[
            _rule(rule, points, tenant)
            for rule in policy.rules
            if rule.when.tenant is None or tenant in rule.when.tenant
        ],
        otherwise=policy.otherwise,
        refused=refusals(policy, points),
    )


def _rule(rule: Rule, points: Mapping[str, Threshold], tenant: str) -> PolicyRule:
    """As this tenant sees it: who else it is for is nobody's business."""
    when = rule.when
    if when.tenant is not None:
        when = when.model_copy(update={"tenant": [tenant]})
    threshold = None
    if when.max_fpr is not None:
        with contextlib.suppress(PolicyRefused):  # `refused` says so
            threshold = threshold_of(when.max_fpr, points)
    return PolicyRule(name=rule.name, when=when, then=rule.then, because=rule.because, threshold=threshold)


def _measured(record: ModelRecord, operating_point: str) -> Measured | None:
    """From the cross-validation that lies beside the weights."""
    found = record.validation().get(CONDITION, {})
    rates = found.get("policies", {}).get(operating_point)
    if rates is None:
        return None
    has_interval = rates["recall"] == found["tpr_at_threshold"]  # worked out for the default thresholds only
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
