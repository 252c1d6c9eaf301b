"""Where a file says that it comes from: reported beside the score, never mixed into it.

What the file claims is read in the decoder's process (:mod:`specsem.media`). Here it becomes the answer's
record, with one sentence for people; and here the operator's trust list is read.
"""

import hashlib
import re
from dataclasses import asdict
from datetime import UTC, date, datetime
from pathlib import Path

from specsem.errors import SpecSemError
from specsem.media import Clip, Manifests, TrustList
from specsem.result import C2pa, Provenance, Trail

__all__ = ["TrustListUnusable", "provenance_of", "read_trust_list"]

_MAX_LIST_BYTES = 8 * 1024**2
_DATE = re.compile(rb"\b(20\d\d-[01]\d-[0-3]\d)\b")
_BEGIN = b"-----BEGIN CERTIFICATE-----"
_WHOLLY = "trainedAlgorithmicMedia"
_PARTLY = "compositeWithTrainedAlgorithmicMedia"


class TrustListUnusable(SpecSemError):
    """The trust list can't be read, or holds no certificates."""

    code = "trust_list_unusable"


def read_trust_list(path: Path) -> TrustList:
    """Certificates in PEM, as the C2PA publishes them. What stands before the first may say their date
    (``2026-05-31``); else it is the day on which the file was last changed (UTC).

    Raises:
        TrustListUnusable: it can't be read, is too large, or is something else.
    """
    from cryptography import x509  # noqa: PLC0415  few have a list

    try:
        with path.open("rb") as file:
            content = file.read(_MAX_LIST_BYTES + 1)
            changed_s = path.stat().st_mtime
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise TrustListUnusable(f"The trust list {path} can't be read: {reason}.") from None
    if len(content) > _MAX_LIST_BYTES:
        raise TrustListUnusable(f"The trust list {path} has more than {_MAX_LIST_BYTES} bytes.")
    try:
        x509.load_pem_x509_certificates(content)
    except ValueError:
        raise TrustListUnusable(
            f"The trust list {path} holds no certificates in PEM, or broken ones."
        ) from None
    return TrustList(path.name, _date(content, changed_s), content, hashlib.sha256(content).hexdigest())


def _date(content: bytes, changed_s: float) -> date:
    for found in _DATE.findall(content.partition(_BEGIN)[0]):
        try:
            return date.fromisoformat(found.decode())
        except ValueError:  # 2026-19-39
            continue
    return datetime.fromtimestamp(changed_s, UTC).date()


def provenance_of(clip: Clip) -> Provenance:
    """What the file says of itself."""
    trail = Trail.model_validate(asdict(clip.trail)) if clip.trail is not None else None
    if clip.manifests is None:
        return Provenance(trail=trail)
    return Provenance(c2pa=_c2pa(clip.manifests, clip.info.container, clip.trust_list), trail=trail)


def _c2pa(found: Manifests, container: str, trust_list: TrustList | None) -> C2pa:
    claims = asdict(found)
    del claims["reason"]
    return C2pa.model_validate(
        {
            **claims,
            "detail": _detail(found, container, trust_list),
            "says_generated": not {_WHOLLY, _PARTLY}.isdisjoint(found.digital_source_types),
            "trust_list": str(trust_list) if trust_list is not None else None,
        }
    )


def _detail(found: Manifests, container: str, trust_list: TrustList | None) -> str:
    signer = found.signer or "somebody unnamed"
    sentences = {
        "absent": "There is no signed manifest. That is no evidence of anything: most files have none, and "
        "one is easily removed.",
        "unsupported": f"Signed manifests of {container} files are not read.",
        "failed": f"The signed manifests could not be read: {found.reason}.",
        "not_checked": f"The signed manifest was not checked: {found.reason}, and nothing is fetched.",
        "trusted": f"Signed by {signer}, who is on the trust list {trust_list}, and unchanged since.",
        "valid": f"Signed by {signer} and unchanged since. {_untrusted(trust_list)}",
        "invalid": f"The signature does not hold ({found.reason or 'no reason given'}): the file was changed "
        f"since, or {signer} did not sign it.",
    }
    return " ".join(filter(None, (sentences[found.status], _origin(found))))


def _untrusted(trust_list: TrustList | None) -> str:
    if trust_list is None:
        return "Whether to trust that name is open: there is no trust list here, and anybody can sign."
    return f"But that signer is not on the trust list {trust_list}, and anybody can sign."


def _origin(found: Manifests) -> str:
    """What it says about trained models."""
    if _WHOLLY in found.digital_source_types:
        return "It says that a trained model made the content, or an ingredient of it."
    if _PARTLY in found.digital_source_types:
        return "It says that a trained model made part of the content."
    return ""
