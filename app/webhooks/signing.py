"""Secrets and signatures of Standard Webhooks (symmetric, ``v1``): HMAC-SHA256 over id, time and body."""

import base64
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime

from standardwebhooks import Webhook

__all__ = ["new_secret", "signed_headers"]

SECRET_BYTES = 32
"""The specification wants 24 to 64."""


def new_secret() -> str:
    """A secret as both sides keep it: ``whsec_`` and base64."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode("ascii")


def signed_headers(
    event_id: str, payload: str, signing: Sequence[str], at: datetime | None = None
) -> list[tuple[str, str]]:
    """What proves where a message comes from. One signature for each secret that is valid; ``at`` is now."""
    at = at or datetime.now(UTC)
    signatures = [Webhook(secret).sign(event_id, at, payload) for secret in signing]
    return [
        ("webhook-id", event_id),
        ("webhook-timestamp", str(int(at.timestamp()))),
        ("webhook-signature", " ".join(signatures)),
    ]
