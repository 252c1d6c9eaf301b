"""Signed manifests (C2PA) of a file, by c2pa-python. Runs in the decoder's process, after decoding.

The reader is somebody else's code on a stranger's bytes, and slow on some (quadratic in the top-level boxes
of an MP4): the pool gives it its own limit of time, and kills the process where it passes it.

It makes no connection. Fetching manifests from addresses that files name is on by default in c2pa; it is off
here, and so are all other ways to the network.
"""

import json
import os
from collections.abc import Iterator
from typing import Any

from specsem.media._wire import iso_time, plain
from specsem.media.types import Manifests

try:
    import c2pa
except Exception:  # noqa: BLE001  without its native library it raises whatever it likes
    c2pa = None

__all__ = ["ManifestReader"]

Tree = dict[str, Any]

_FORMATS = {"mp4": "video/mp4", "avi": "video/avi", "gif": "image/gif"}
"""Media types for c2pa by our names of containers; it reads no other container of moving pictures."""
_OFFLINE: Tree = {
    "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False},
    # Identity assertions may name servers to be asked for keys.
    "core": {"allowed_network_hosts": [], "decode_identity_assertions": False},
    "builder": {"thumbnail": {"enabled": False}},
}
_REMOTE = "must fetch remote manifests from url"
"""So c2pa begins to say that the manifest is elsewhere."""
_STATES = {"Trusted": "trusted", "Valid": "valid"}
_UNTRUSTED = "signingCredential.untrusted"
_MOST = 50
"""Actions, and source types, that are passed on."""
_MOST_REASONS = 3


class ManifestReader:
    """``anchors``: PEM certificates of the trust list; empty: nobody is trusted."""

    def __init__(self, anchors: bytes = b"") -> None:
        self._anchors = anchors.decode("ascii", "replace")
        self._context: Any = None

    def read(self, fd: int, container: str) -> Manifests:
        """What the manifests of the file behind ``fd`` claim; ``container`` as in ``MediaInfo``.

        Raises whatever c2pa makes of a hostile file beyond its own errors.
        """
        if c2pa is None:
            return Manifests("failed", "c2pa-python is not installed")
        if container not in _FORMATS:
            return Manifests("unsupported")
        if self._context is None:
            trust = {"trust": {"trust_anchors": self._anchors}} if self._anchors else {}
            self._context = c2pa.Context.from_dict({**_OFFLINE, **trust})
        with os.fdopen(os.dup(fd), "rb") as file:
            file.seek(0)
            try:
                with c2pa.Reader(_FORMATS[container], file, context=self._context) as reader:
                    store = json.loads(reader.json())
            except c2pa.C2paError.ManifestNotFound:
                return Manifests("absent")
            except c2pa.C2paError as error:
                return _unread(str(error))
        return _claims(store, trusting=bool(self._anchors))


def _unread(error: str) -> Manifests:
    _, remote, address = error.partition(_REMOTE)
    if remote:
        return Manifests("not_checked", plain(f"it is kept at {address.strip()}"))
    return Manifests("failed", plain(error))


def _claims(store: Tree, *, trusting: bool) -> Manifests:
    manifests = _oldest_first(store)
    active: Tree = store["manifests"][store["active_manifest"]]
    signature: Tree = active.get("signature_info") or {}
    status = _STATES.get(store.get("validation_state", ""), "invalid")
    if status == "trusted" and not trusting:  # by some list that came with c2pa: none of the operator's
        status = "valid"
    return Manifests(
        status=status,
        reason=", ".join(_failures(store)[:_MOST_REASONS]) if status == "invalid" else "",
        signer=_joined(signature.get("common_name"), signature.get("issuer"), by=", "),
        signed_at=iso_time(signature.get("time")),
        claim_generator=_claim_generator(active),
        actions=_distinct(action for manifest in manifests for action in _actions(manifest)),
        digital_source_types=_distinct(
            str(address).rstrip("/").rpartition("/")[2]
            for manifest in manifests
            for part in ("assertions", "ingredients")
            for address in _source_types(manifest.get(part))
        ),
    )


def _oldest_first(store: Tree) -> list[Tree]:
    """All manifests: those that nothing refers to, then each before the ones that it is an ingredient of."""
    manifests: dict[str, Tree] = store["manifests"]
    seen: dict[str, None] = {}
    ahead = [store["active_manifest"]]
    while ahead:
        label = ahead.pop()
        if label in manifests and label not in seen:
            seen[label] = None
            ahead += [i.get("active_manifest") for i in manifests[label].get("ingredients") or ()]
    loose = sorted(manifests.keys() - seen.keys())
    return [manifests[label] for label in (*loose, *reversed(seen))]


def _actions(manifest: Tree) -> Iterator[str]:
    for assertion in manifest.get("assertions") or ():
        data = assertion.get("data")
        if str(assertion.get("label")).startswith("c2pa.actions") and isinstance(data, dict):
            yield from (action.get("action") for action in data.get("actions") or ())


def _source_types(tree: object) -> Iterator[object]:
    """Every digital source type in it: of actions, of IPTC metadata, of whatever says one."""
    if isinstance(tree, list):
        for item in tree:
            yield from _source_types(item)
    elif isinstance(tree, dict):
        for key, value in tree.items():
            if key.rpartition(":")[2].lower() == "digitalsourcetype" and isinstance(value, str):
                yield value
            else:
                yield from _source_types(value)


def _claim_generator(manifest: Tree) -> str | None:
    for info in manifest.get("claim_generator_info") or ():
        return _joined(info.get("name"), info.get("version"), by=" ")
    return _plain_or_none(manifest.get("claim_generator"))


def _failures(store: Tree) -> list[str]:
    codes = _distinct(status.get("code") for status in store.get("validation_status") or ())
    return [code for code in codes if code != _UNTRUSTED]


def _distinct(texts: Iterator[Any]) -> list[str]:
    return list(dict.fromkeys(plain(text) for text in texts if text))[:_MOST]


def _joined(*parts: object, by: str) -> str | None:
    return _plain_or_none(by.join(dict.fromkeys(str(part) for part in parts if part)))


def _plain_or_none(text: object) -> str | None:
    return (plain(text) or None) if text else None
