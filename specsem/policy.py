"""Policies: what is to be done about a video, by rules over its answer.

A policy is data: a name, a version, and rules of which the first that applies decides (`decide`). A rule acts
on a score only at a stated false-positive rate, and that rate must be one that the model's calibration
supports: a share of camera clips of which no clip was a false alarm is known no better than about 3/n of n
clips. What promises more is refused (`require_supported`), never rounded.
"""

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from specsem.calibration import verdict_at
from specsem.errors import FileUnusable, PolicyRefused, UnknownPolicy
from specsem.intervals import exact_upper95
from specsem.result import (
    Action,
    ActionThreshold,
    C2paStatus,
    Decision,
    Finding,
    Reason,
    ScoredFile,
    Threshold,
    Verdict,
)
from specsem.text import plural

__all__ = [
    "NAME",
    "SURFACE",
    "Policy",
    "PolicyBook",
    "PolicyFile",
    "Rule",
    "When",
    "decide",
    "json_schema",
    "refusals",
    "require_supported",
    "threshold_of",
]

NAME = r"^[a-z0-9][a-z0-9-]{0,63}$"
SURFACE = r"^[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}$"
SCHEMA_ID = "urn:specsem:policies:1"
SHIPPED = "policies.json"
MAX_FILE_BYTES = 1024**2
CLAIMS: frozenset[C2paStatus] = frozenset({"trusted", "valid", "invalid"})
"""What a manifest can be if there is one. That none is there, or is read, is evidence of nothing."""


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def _has_some(entries: list[str]) -> list[str]:
    if not entries:
        raise ValueError("name at least one, or leave it out")
    return entries


_Some = AfterValidator(_has_some)
Surface = Annotated[str, Field(pattern=SURFACE)]


class When(_Record):
    """The conditions of a rule. All that are given must hold; of a list, one entry must fit."""

    max_fpr: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="The score is one that at most this share of camera videos reaches, by the upper 95% "
        "confidence bound on the calibration's camera clips. It never holds for a video outside of the "
        "model's domain, where no rate was measured.",
    )
    verdict: Annotated[list[Verdict], _Some] | None = Field(
        None, description="The verdict at the policy's operating point."
    )
    reasons: Annotated[list[Reason], _Some] | None = Field(
        None, description="Why the verdict is inconclusive."
    )
    c2pa: Annotated[list[C2paStatus], _Some] | None = Field(
        None, description="What signed manifests are worth: `provenance.c2pa.status` of the answer."
    )
    source_types: Annotated[list[str], _Some] | None = Field(
        None,
        description="What these manifests say: the last part of an IPTC digital source type, such as "
        "`trainedAlgorithmicMedia`. Only with `c2pa`, which says whose word counts.",
    )
    stable: bool | None = Field(
        None,
        description="Whether the verdict outlived cheap deliveries. Holds neither way where `stability` was "
        "not asked for.",
    )
    min_duration_s: float | None = Field(
        None, ge=0, description="The video is so long or longer, in seconds."
    )
    max_duration_s: float | None = Field(None, gt=0, description="The video is shorter, in seconds.")
    surface: Annotated[list[Surface], _Some] | None = Field(
        None, description="Where it is to appear, as the request says: `surface`."
    )
    tenant: Annotated[list[str], _Some] | None = Field(
        None, description="Whose video it is, as the key says; `` is the tenant without a name."
    )

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if all(getattr(self, name) is None for name in When.model_fields):
            raise ValueError("a rule needs a condition; what applies to the rest is the policy's `otherwise`")
        if self.source_types and not self.c2pa:
            raise ValueError("`source_types` needs `c2pa`: anybody can write what nobody signed")
        low, high = self.min_duration_s, self.max_duration_s
        if low is not None and high is not None and low >= high:
            raise ValueError("`min_duration_s` must be below `max_duration_s`")
        return self


class Rule(_Record):
    """What is to be done where the conditions hold."""

    name: str = Field(pattern=NAME, description="Answers name the rule that decided.")
    when: When
    then: Action
    because: str = Field("", max_length=300, description="A sentence of yours for the people who read it.")

    @model_validator(mode="after")
    def _rests_on_something(self) -> Self:
        claimed = self.when.c2pa is not None and CLAIMS.issuperset(self.when.c2pa)
        if self.then in {"label", "block"} and self.when.max_fpr is None and not claimed:
            raise ValueError(
                f"`{self.then}` has to rest on a stated false-positive rate (`max_fpr`) or on a manifest "
                "that is there (`c2pa`: trusted, valid, invalid)"
            )
        return self


class Policy(_Record):
    """Rules, of which the first that applies decides."""

    name: str = Field(pattern=NAME)
    version: int = Field(ge=1, description="A change is another version: answers name it.")
    description: str = Field("", max_length=1000)
    operating_point: str = Field(
        "default",
        description="Which of the model's thresholds give the verdict: a name in its calibration.",
    )
    rules: list[Rule] = Field([], max_length=100)
    otherwise: Literal["allow", "review"] = Field("allow", description="Where no rule applies.")

    @model_validator(mode="after")
    def _names_are_distinct(self) -> Self:
        names = [rule.name for rule in self.rules]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"two rules are named {min(twice)!r}")
        return self

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"

    @property
    def sha256(self) -> str:
        """Of what it says: tells two apart that claim to be the same version."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()

    @property
    def surfaces(self) -> frozenset[str]:
        """All that its rules name."""
        return frozenset(surface for rule in self.rules for surface in rule.when.surface or ())


class PolicyFile(_Record):
    """A file of policies."""

    schema_: str | None = Field(None, alias="$schema", description="For editors; it isn't read.")
    policies: list[Policy] = Field(min_length=1, max_length=100)

    @model_validator(mode="after")
    def _versions_are_distinct(self) -> Self:
        _check_distinct(self.policies)
        return self


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a `PolicyFile`."""
    schema = PolicyFile.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": SCHEMA_ID, **schema}


def _check_distinct(policies: Sequence[Policy]) -> None:
    names = [str(policy) for policy in policies]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"{min(twice)} is there twice; a change is another version")


class PolicyBook:
    """Every policy that is there: those that ship, and those of a file."""

    def __init__(self, policies: Sequence[Policy]) -> None:
        self.policies = sorted(policies, key=lambda policy: (policy.name, policy.version))

    @classmethod
    def read(cls, path: Path | None = None) -> "PolicyBook":
        """What ships, and what a file adds.

        Raises:
            FileUnusable: the file can't be read.
            PolicyRefused: it holds something else, or another version 1 of what ships.
        """
        shipped = PolicyFile.model_validate_json(files("specsem").joinpath(SHIPPED).read_bytes()).policies
        added = _read(path) if path is not None else []
        try:
            _check_distinct([*shipped, *added])
        except ValueError as error:
            raise PolicyRefused(f"The file of policies can't be used: {error}.") from None
        return cls([*shipped, *added])

    def policy(self, reference: str) -> Policy:
        """The policy of this name, in its highest version; or the version that ``name@version`` says.

        Raises:
            UnknownPolicy: there is none.
        """
        found = [policy for policy in self.policies if reference in {policy.name, str(policy)}]
        if not found:
            known = ", ".join(map(str, self.policies))
            raise UnknownPolicy(f"No policy is named {reference!r}; there are: {known}.")
        return found[-1]


def _read(path: Path) -> list[Policy]:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise FileUnusable(f"The file of policies {path} can't be read: {reason}.") from None
    if len(content) > MAX_FILE_BYTES:
        raise FileUnusable(f"The file of policies {path} has more than {MAX_FILE_BYTES} bytes.")
    try:
        return PolicyFile.model_validate_json(content).policies
    except ValidationError as error:
        found = [_in_words(entry["loc"], entry["msg"]) for entry in error.errors(include_url=False)]
        more = f"; and {len(found) - 3} more" if len(found) > 3 else ""
        raise PolicyRefused(f"{path} holds no policies: {'; '.join(found[:3])}{more}.") from None


def _in_words(place: tuple[int | str, ...], message: str) -> str:
    where = ".".join(map(str, place))
    return f"{where}: {message}" if where else message


# -- what a calibration supports ----------------------------------------------------------------------------


def threshold_of(max_fpr: float, points: Mapping[str, Threshold]) -> ActionThreshold:
    """The lowest of the model's thresholds that keeps to this rate by its upper 95% bound.

    ``points`` are the calibration's operating points by name.

    Raises:
        PolicyRefused: none does, with the reason: too few clips, or no threshold that is strict enough.
    """
    kept = [point for point in points.values() if point.calibration_n and point.fpr_upper95 <= max_fpr]
    if kept:
        return _acting(min(kept, key=lambda point: point.value), max_fpr)
    clips = max((point.calibration_n for point in points.values()), default=0)
    if clips == 0:
        raise PolicyRefused(
            f"A false-positive rate of {max_fpr:.4g} can't be promised: the model's was never measured."
        )
    best = exact_upper95(0, clips)
    if max_fpr < best:
        raise PolicyRefused(
            f"A false-positive rate of {max_fpr:.4g} can't be promised: no false alarm at all among the "
            f"calibration's {plural(clips, 'camera clip')} supports {_bound(best)} at best (about 3/{clips}, "
            "with 95% confidence)."
        )
    strictest = min(point.fpr_upper95 for point in points.values() if point.calibration_n)
    raise PolicyRefused(
        f"A false-positive rate of {max_fpr:.4g} can't be promised: the strictest of the model's thresholds "
        f"is known to keep to {_bound(strictest)} ({plural(clips, 'camera clip')}, with 95% confidence)."
    )


def _acting(point: Threshold, max_fpr: float) -> ActionThreshold:
    return ActionThreshold(
        value=point.value,
        max_fpr=max_fpr,
        fpr_upper95=point.fpr_upper95,
        calibration_n=point.calibration_n,
    )


def _bound(rate: float) -> str:
    """Rounded up: who writes it into a policy is not refused for the digits that are missing."""
    return f"{math.ceil(rate * 1e5) / 1e5:g}"


def refusals(policy: Policy, points: Mapping[str, Threshold]) -> list[str]:
    """What a model with these operating points can't keep of a policy, a sentence each; empty if it can."""
    found = []
    if policy.operating_point not in points:
        found.append(
            f"The model has no operating point {policy.operating_point!r}; it has: {', '.join(points)}."
        )
    for rule in policy.rules:
        if rule.when.max_fpr is not None:
            try:
                threshold_of(rule.when.max_fpr, points)
            except PolicyRefused as error:
                found.append(f"Rule {rule.name!r}: {error.message}")
    return found


def require_supported(policy: Policy, points: Mapping[str, Threshold]) -> None:
    """Raises ``PolicyRefused`` where ``refusals`` finds something."""
    if found := refusals(policy, points):
        raise PolicyRefused(f"The policy {policy} can't be used with this model. {' '.join(found)}")


# -- a decision ---------------------------------------------------------------------------------------------


def decide(
    policy: Policy,
    answer: ScoredFile,
    points: Mapping[str, Threshold],
    *,
    tenant: str = "",
    surface: str = "",
) -> Decision:
    """What a policy makes of an answer. Needs nothing but the answer: one that was stored is decided anew.

    The verdict is that of the policy's operating point, whichever the answer was given at. This is what the
    scorer would say, but for one reason: whether windows contradict one another (``unstable``) was looked at
    by the answer's own thresholds.

    Args:
        policy: One that `require_supported` lets pass.
        answer: By the model that ``points`` belong to; its own ``decision`` is not looked at.
        points: The operating points of the model's calibration.
        tenant: Whose video it is.
        surface: Where it is to appear.

    Raises:
        PolicyRefused: the policy asks for what the model's calibration doesn't support.
    """
    if policy.operating_point not in points:
        require_supported(policy, points)
    threshold = points[policy.operating_point]
    outside = [reason for reason in answer.reasons if reason != "between_thresholds"]
    verdict, reasons = verdict_at(threshold, answer.score, outside)
    case = _Case(answer, verdict, reasons, outside, tenant, surface)
    for rule in policy.rules:
        acts_from = _acts_from(rule.when, case, threshold, points)
        found = list(_conditions(rule.when, case, acts_from))
        if all(found):
            said = [Finding(code="policy_says", text=rule.because, figures={})] if rule.because else []
            return Decision(
                action=rule.then,
                policy=policy.name,
                version=policy.version,
                rule=rule.name,
                threshold=acts_from,
                reasons=[*filter(None, found), *said],
                surface=surface,
            )
    return Decision(
        action=policy.otherwise,
        policy=policy.name,
        version=policy.version,
        rule=None,
        threshold=None,
        reasons=list(_no_rule(policy, case)),
        surface=surface,
    )


@dataclass(frozen=True, slots=True)
class _Case:
    """What the conditions look at."""

    answer: ScoredFile
    verdict: Verdict
    reasons: list[Reason]
    outside: Sequence[Reason]
    """Those after which no rate holds."""
    tenant: str
    surface: str


def _acts_from(
    when: When, case: _Case, own: Threshold, points: Mapping[str, Threshold]
) -> ActionThreshold | None:
    """The threshold that a rule asks for, itself or by the verdict ``generated``."""
    if when.max_fpr is not None:
        return threshold_of(when.max_fpr, points)
    if when.verdict and "generated" in when.verdict and case.verdict == "generated":
        return _acting(own, own.max_fpr)
    return None


def _conditions(when: When, case: _Case, acts_from: ActionThreshold | None) -> Iterator[Finding | None]:
    """For each condition that is given, what it finds; None where it doesn't hold."""
    answer, c2pa, stability = case.answer, case.answer.provenance.c2pa, case.answer.stability
    if when.max_fpr is not None and acts_from is not None:
        high = answer.score >= acts_from.value and not case.outside
        yield _score_at_rate(answer.score, acts_from) if high else None
    if when.verdict is not None:
        yield _verdict(case, acts_from) if case.verdict in when.verdict else None
    if when.reasons is not None:
        given = [reason for reason in case.reasons if reason in when.reasons]
        text = f"The verdict is inconclusive: {', '.join(given)}."
        yield Finding(code="reason_is", text=text, figures={}) if given else None
    if when.c2pa is not None:
        claimed = [name for name in c2pa.digital_source_types if name in (when.source_types or ())]
        text = f"Its signed manifest is {c2pa.status}"
        text += f" and says {', '.join(claimed)}." if claimed else "."
        fits = c2pa.status in when.c2pa and (when.source_types is None or claimed)
        yield Finding(code="origin_is", text=text, figures={}) if fits else None
    if when.stable is not None:
        text = f"Delivery {'does not turn' if when.stable else 'turns'} the verdict into its opposite."
        fits = stability is not None and stability.stable == when.stable
        spread = {"spread": stability.spread} if stability is not None else {}
        yield Finding(code="delivery", text=text, figures=spread) if fits else None
    if when.min_duration_s is not None or when.max_duration_s is not None:
        yield _duration(answer.media.duration_s, when.min_duration_s, when.max_duration_s)
    if when.surface is not None:
        text = f"It is to appear on {case.surface}."
        yield Finding(code="surface_is", text=text, figures={}) if case.surface in when.surface else None
    if when.tenant is not None:
        text = f"It belongs to {case.tenant or 'the tenant without a name'}."
        yield Finding(code="tenant_is", text=text, figures={}) if case.tenant in when.tenant else None


def _score_at_rate(score: float, acts_from: ActionThreshold) -> Finding:
    return Finding(
        code="score_at_rate",
        text=f"The score is {score:.3f}; {acts_from.value:.3f} or more is reached by at most "
        f"{acts_from.fpr_upper95:.1%} of camera clips (95% confidence, {acts_from.calibration_n} clips that "
        f"the model had not seen), and the rule asks for at most {acts_from.max_fpr:.1%}.",
        figures={"score": score, "threshold": acts_from.value, **_evidence_base(acts_from)},
    )


def _verdict(case: _Case, acts_from: ActionThreshold | None) -> Finding:
    figures = {"score": case.answer.score}
    text = f"The verdict is {case.verdict}."
    if acts_from is not None:
        figures |= {"threshold": acts_from.value, **_evidence_base(acts_from)}
        text = (
            f"The verdict is {case.verdict}: the score is {case.answer.score:.3f}, and {acts_from.value:.3f} "
            f"or more is reached by at most {acts_from.fpr_upper95:.1%} of camera clips (95% confidence, "
            f"{acts_from.calibration_n} clips that the model had not seen)."
        )
    return Finding(code="verdict_is", text=text, figures=figures)


def _evidence_base(acts_from: ActionThreshold) -> dict[str, float]:
    return {
        "max_fpr": acts_from.max_fpr,
        "fpr_upper95": acts_from.fpr_upper95,
        "calibration_n": float(acts_from.calibration_n),
    }


def _duration(duration_s: float, low: float | None, high: float | None) -> Finding | None:
    if (low is not None and duration_s < low) or (high is not None and duration_s >= high):
        return None
    limits = [
        f"at least {low:g} s" if low is not None else "",
        f"under {high:g} s" if high is not None else "",
    ]
    return Finding(
        code="duration_is",
        text=f"It lasts {duration_s:.1f} s: {' and '.join(filter(None, limits))}.",
        figures={"duration_s": duration_s},
    )


def _no_rule(policy: Policy, case: _Case) -> Iterator[Finding]:
    why = f" ({', '.join(case.reasons)})" if case.reasons else ""
    yield Finding(
        code="no_rule",
        text=f"No rule of the policy applies: the verdict is {case.verdict}{why}, the score "
        f"{case.answer.score:.3f}.",
        figures={"score": case.answer.score},
    )
    if case.outside and any(rule.when.max_fpr is not None for rule in policy.rules):
        yield Finding(
            code="no_rate_holds",
            text=f"Its score is no ground to act on ({', '.join(case.outside)}): the rates were measured on "
            "other videos.",
            figures={},
        )
