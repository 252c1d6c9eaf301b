"""Forms in which an outcome is written to a stream: our own, and that of ROOST's Osprey.

Osprey (github.com/roostorg/osprey) reads actions from its topic ``osprey.actions_input``: a JSON object of
``send_time`` (RFC 3339) and ``data`` with ``action_id`` (a whole number), ``action_name`` and ``data``, which
its rules read by JSON paths. Each outcome is one such action.
"""

import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Literal

from app.connectors.interface import Outcome

__all__ = ["ACTION_NAME", "FORMS", "Form", "FormName", "action_id", "osprey_action", "outcome_record"]

ACTION_NAME = "video_scored"

Form = Callable[[Outcome], bytes]
"""The bytes of a record."""
FormName = Literal["outcome", "osprey"]


def outcome_record(outcome: Outcome) -> bytes:
    """As all connectors write it."""
    return _json(outcome.record())


def osprey_action(outcome: Outcome) -> bytes:
    """As Osprey reads it; its time is when the job ended."""
    ended = outcome.job.finished_at if outcome.job is not None else None
    action = {
        "action_id": str(action_id(outcome.delivery.id)),
        "action_name": ACTION_NAME,
        "data": _features(outcome),
    }
    sent = (ended or datetime.now(UTC)).astimezone(UTC)
    return _json({"send_time": sent.isoformat().replace("+00:00", "Z"), "data": action})


def action_id(delivery_id: str) -> int:
    """A positive number of 63 bits, the same whenever a delivery's outcome is sent."""
    return int.from_bytes(hashlib.sha256(delivery_id.encode()).digest()[:8], "big") >> 1


def _features(outcome: Outcome) -> dict[str, Any]:
    """What rules ask for, flat and always there; the rest of the answer stays with the job."""
    job = outcome.job
    answer = (job.result if job is not None else None) or {}
    decision, model = answer.get("decision") or {}, answer.get("model") or {}
    return {
        "event_type": ACTION_NAME,
        "video": {"name": outcome.delivery.name, "sha256": job.sha256 if job is not None else None},
        "about": dict(outcome.delivery.about),
        "specsem": {
            "delivery": outcome.delivery.id,
            "job": job.id if job is not None else None,
            "verdict": answer.get("verdict"),
            "score": answer.get("score"),
            "reasons": answer.get("reasons", []),
            "action": decision.get("action"),
            "policy": decision.get("policy"),
            "policy_version": decision.get("version"),
            "model": model.get("name"),
            "model_version": model.get("version"),
            "error": outcome.error.code if outcome.error is not None else None,
        },
    }


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


FORMS: dict[FormName, Form] = {"outcome": outcome_record, "osprey": osprey_action}
