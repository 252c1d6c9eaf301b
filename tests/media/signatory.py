"""Signs videos as cameras and generators do (C2PA), with certificates that are made here and now."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import c2pa
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

__all__ = ["Signatory", "actions", "ingredient"]

_SOURCE_TYPES = "http://cv.iptc.org/newscodes/digitalsourcetype/"
_OFFLINE = {
    "verify": {"verify_after_sign": False, "remote_manifest_fetch": False},
    "builder": {"thumbnail": {"enabled": False}},
}
_Issued = tuple[x509.Certificate, ec.EllipticCurvePrivateKey]


def actions(*done: str | tuple[str, str]) -> dict[str, Any]:
    """An assertion: each an action, or an action with its digital source type."""
    listed = []
    for action in done:
        name, source_type = action if isinstance(action, tuple) else (action, "")
        entry: dict[str, Any] = {"action": name}
        if source_type:
            entry["digitalSourceType"] = _SOURCE_TYPES + source_type
        if name == "c2pa.opened":
            entry["parameters"] = {"ingredientIds": ["parent"]}
        listed.append(entry)
    return {"label": "c2pa.actions", "data": {"actions": listed}}


def ingredient(relationship: str = "parentOf") -> dict[str, str]:
    """What is said of a file that the new one was made from."""
    return {"title": "before.mp4", "relationship": relationship, "label": "parent"}


class Signatory:
    """Somebody with a certificate of an authority of its own."""

    def __init__(self, name: str = "Camera 7", organisation: str = "Lens House") -> None:
        self._organisation = organisation
        root = self._issue("Root", None)
        self._certificate, self._key = self._issue(name, root)
        self.anchor = _pem(root[0])
        """The authority's certificate in PEM, for a trust list."""

    def sign(
        self,
        content: bytes,
        *assertions: Mapping[str, Any],
        mime: str = "video/mp4",
        ingredients: Iterable[tuple[Mapping[str, str], bytes]] = (),
        elsewhere: str = "",
    ) -> bytes:
        """The file with a manifest in it; ``elsewhere``: only with the address where one is said to be."""
        manifest = {"claim_generator_info": [{"name": "Test Maker", "version": "1.0"}], "title": "clip"}
        definition = json.dumps({**manifest, "assertions": list(assertions)})
        out = io.BytesIO()
        with c2pa.Builder(definition, context=c2pa.Context.from_dict(_OFFLINE)) as builder:
            for facts, before in ingredients:
                builder.add_ingredient(json.dumps(facts), mime, io.BytesIO(before))
            if elsewhere:
                builder.set_remote_url(elsewhere)
                builder.set_no_embed()
            builder.sign(self._signer(), mime, io.BytesIO(content), out)
        return out.getvalue()

    def _signer(self) -> c2pa.Signer:
        key = self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        chain = _pem(self._certificate) + self.anchor
        return c2pa.Signer.from_info(c2pa.C2paSignerInfo(b"es256", chain, key, None))

    def _issue(self, name: str, issuer: _Issued | None) -> _Issued:
        """A certificate as the C2PA wants them; without an issuer, that of an authority."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = self._name(name)
        by, by_key = issuer or (None, key)
        now = datetime.now(UTC)
        unused = (
            "content_commitment key_encipherment data_encipherment key_agreement encipher_only decipher_only"
        )
        usage = dict.fromkeys(unused.split(), False)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(by.subject if by else subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=30))
            .add_extension(x509.BasicConstraints(ca=by is None, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(by_key.public_key()), critical=False
            )
            .add_extension(
                x509.KeyUsage(digital_signature=True, key_cert_sign=by is None, crl_sign=by is None, **usage),
                critical=True,
            )
        )
        if by:
            email = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])
            builder = builder.add_extension(email, critical=False)
        return builder.sign(by_key, hashes.SHA256()), key

    def _name(self, name: str) -> x509.Name:
        return x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, self._organisation),
                x509.NameAttribute(NameOID.COMMON_NAME, name),
            ]
        )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
