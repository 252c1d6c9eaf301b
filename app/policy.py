"""What the service decides: by the active policy, with another in its shadow (see ``specsem.policy``)."""

import logging
from collections.abc import Iterator

from pydantic import ValidationError

from app.engines import Engine
from app.jobs.database import database_of
from app.jobs.store import JobStore
from app.observability.telemetry import Telemetry
from app.settings import Settings
from specsem.errors import PolicyRefused
from specsem.policy import Policy, decide, require_supported
from specsem.replay import Stored
from specsem.result import Decision, ScoredFile

__all__ = ["Decider", "stored_answers"]

logger = logging.getLogger("specsem.app")


class Decider:
    """Decides on answers, new ones and stored ones alike. Safe from any thread."""

    def __init__(self, settings: Settings, engine: Engine, telemetry: Telemetry | None = None) -> None:
        """Reads the file of policies.

        Raises:
            FileUnusable, PolicyRefused: it can't be used.
            UnknownPolicy: there is none of the name that the settings say.
        """
        self.book = settings.policies()
        self.active = self.book.policy(settings.policy)
        self.shadow = self.book.policy(settings.policy_shadow) if settings.policy_shadow else None
        self.refused = ""
        """Why the model can't keep what they promise, once that is known."""
        self._engine = engine
        self._metrics = (telemetry or Telemetry()).metrics
        self._surfaces = frozenset(surface for policy in self.policies for surface in policy.surfaces)

    @property
    def policies(self) -> list[Policy]:
        """The active one, and the one in its shadow."""
        return [self.active, *([] if self.shadow is None else [self.shadow])]

    def require_supported(self) -> None:
        """Look whether the model that is loaded can keep what the policies promise.

        Raises:
            PolicyRefused: it can't, with the reason.
        """
        try:
            for policy in self.policies:
                require_supported(policy, self._engine.policies)
        except PolicyRefused as error:
            self.refused = error.message
            raise

    def decide(self, answer: ScoredFile, *, tenant: str, surface: str) -> ScoredFile:
        """The answer with the active policy's decision. What the shadow says is logged and counted."""
        decision = self._decision(self.active, answer, tenant, surface)
        if decision is not None:
            named = surface if surface in self._surfaces else "other" if surface else ""
            self._metrics.decision(decision.action, named)
            if self.shadow is not None:
                self._evaluate_shadow(self.shadow, decision, answer, tenant)
        return answer.model_copy(update={"decision": decision})

    def _evaluate_shadow(self, shadow: Policy, decision: Decision, answer: ScoredFile, tenant: str) -> None:
        other = self._decision(shadow, answer, tenant, decision.surface)
        if other is None:
            return
        self._metrics.shadow_decision(decision.action, other.action)
        logger.info(
            "%s decided %s, %s would decide %s",
            self.active,
            decision.action,
            shadow,
            other.action,
            extra={
                "policy": str(self.active),
                "action": decision.action,
                "rule": decision.rule,
                "shadow_policy": str(shadow),
                "shadow_action": other.action,
                "shadow_rule": other.rule,
                "surface": decision.surface,
                "score": round(answer.score, 4),
            },
        )

    def _decision(self, policy: Policy, answer: ScoredFile, tenant: str, surface: str) -> Decision | None:
        try:
            return decide(policy, answer, self._engine.policies, tenant=tenant, surface=surface)
        except PolicyRefused as error:  # it was supported at the start: the calibration has changed since
            logger.error("nothing was decided: %s", error.message)
            return None


def stored_answers(settings: Settings, tenant: str | None = None) -> Iterator[Stored]:
    """The answers that the service keeps, whether it runs or not, of one tenant or of all.

    Raises:
        DataDirUnusable, StoreUnusable: its data folder or its database can't be used.
    """
    with database_of(settings) as engine:
        for row in JobStore(engine).answers(tenant):
            yield Stored(row.id, _read(row.result or ""), row.tenant, row.surface)


def _read(result: str) -> ScoredFile | None:
    try:
        return ScoredFile.model_validate_json(result)
    except ValidationError:  # of another version
        return None
