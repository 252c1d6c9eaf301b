"""Keys that sign: made once whoever is at it, never weaker than asked, kept after rotation."""

import json
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from joserfc.jwk import OKPKey, RSAKey
from sqlalchemy import Engine, text

from app.audit import Trail
from app.settings import Settings
from app.signing import (
    PublicKeys,
    SignatureRefused,
    Signer,
    SigningKeyUnusable,
    check_signature,
    load_signer,
    read_public_keys,
)
from specsem.errors import FileUnusable

RFC_8037 = {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    settings = Settings(data_dir=tmp_path / "data")
    settings.make_data_dir()
    return settings


@pytest.fixture
def keys(database: Engine) -> PublicKeys:
    with database.execution_options(writes=True).begin() as connection:
        connection.execute(text("DELETE FROM signing_keys"))
        connection.execute(text("DELETE FROM audit_trail"))
    return PublicKeys(database)


def signer() -> Signer:
    return Signer(OKPKey.generate_key("Ed25519"))


def test_a_key_is_made_once_and_is_private(settings: Settings) -> None:
    first = load_signer(settings)
    assert load_signer(settings).kid == first.kid
    files = list(settings.data_dir.iterdir())
    assert [path.name for path in files] == ["signing-key.pem"]
    assert stat.S_IMODE(files[0].stat().st_mode) == 0o600


def test_who_makes_one_at_the_same_moment_ends_with_the_same(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody sees the others' key before making one: all link theirs, and one succeeds."""
    together = threading.Barrier(8)

    def none_yet(_: Path) -> bool:
        together.wait(30)
        return False

    monkeypatch.setattr(Path, "exists", none_yet)
    with ThreadPoolExecutor(8) as racing:
        found = {one.kid for one in racing.map(load_signer, [settings] * 8)}
    assert len(found) == 1
    assert len(list(settings.data_dir.iterdir())) == 1


def test_the_operator_s_key_is_used_as_openssl_writes_it(settings: Settings, tmp_path: Path) -> None:
    key = OKPKey.generate_key("Ed25519")
    (tmp_path / "own.pem").write_bytes(key.as_pem(private=True))
    own = settings.model_copy(update={"signing_key_file": tmp_path / "own.pem"})
    assert load_signer(own).kid == key.thumbprint()
    assert list(settings.data_dir.iterdir()) == []


@pytest.mark.parametrize("what", ["nothing", "public", "x25519", "rsa", "text", "folder"])
def test_what_is_no_signing_key_is_refused(what: str, settings: Settings, tmp_path: Path) -> None:
    path = tmp_path / what
    if what == "folder":
        path.mkdir()
    elif what != "nothing":
        path.write_bytes(
            {
                "public": lambda: OKPKey.generate_key("Ed25519").as_pem(private=False),
                "x25519": lambda: OKPKey.generate_key("X25519").as_pem(private=True),
                "rsa": lambda: RSAKey.generate_key(2048).as_pem(private=True),
                "text": lambda: b"no key",
            }[what]()
        )
    with pytest.raises(SigningKeyUnusable):
        load_signer(settings.model_copy(update={"signing_key_file": path}))


def test_the_thumbprint_is_that_of_the_standard() -> None:
    """RFC 8037, appendix A.3."""
    assert OKPKey.import_key(RFC_8037).thumbprint() == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


def test_a_signature_fits_what_was_signed_and_nothing_else() -> None:
    mine = signer()
    signature = mine.sign(b"payload")
    assert signature == mine.sign(b"payload")
    assert check_signature(signature, b"payload") == mine.kid
    head, _, tail = signature.split(".")
    other = signer().sign(b"payload")
    last = {"A": "B", "Q": "R", "g": "h", "w": "x"}[tail[-1]]  # the same bytes, written in another way
    for forged in (
        f"{head}.cGF5bG9hZA.{tail}",
        f"{other.split('.')[0]}..{tail}",
        f"{head}..{tail[:-1]}{last}",
        f"{head}..",
        f"..{tail}",
        "",
        f"{head}..{tail}.",
        "\udc80..a",
    ):
        with pytest.raises(SignatureRefused):
            check_signature(forged, b"payload")
    with pytest.raises(SignatureRefused):
        check_signature(signature, b"payloaD")


def test_keys_are_kept_after_rotation_and_gone_once_withdrawn(keys: PublicKeys, database: Engine) -> None:
    old, new = signer(), signer()
    for one in (old, old, new):
        keys.add(one)
    listed = keys.key_set()["keys"]
    assert [key["kid"] for key in listed] == [old.kid, new.kid]
    assert all(OKPKey.import_key(key).thumbprint() == key["kid"] for key in listed)
    assert all("d" not in key for key in listed)
    keys.withdraw(old.kid)
    keys.withdraw(old.kid)
    assert [key["kid"] for key in keys.key_set()["keys"]] == [new.kid]
    with pytest.raises(SigningKeyUnusable, match="withdrawn"):
        keys.add(old)
    with pytest.raises(SigningKeyUnusable, match="no such key"):
        keys.withdraw("A" * 43)
    told = [json.loads(link.entry)["event"] for link in Trail(database).links()]
    assert told == ["signing_key_added"] * 2 + ["signing_key_withdrawn"]


def test_keys_to_trust_are_read_from_a_file_or_named(tmp_path: Path) -> None:
    kid = OKPKey.import_key(RFC_8037).thumbprint()
    file = tmp_path / "keys.json"
    file.write_text(json.dumps({"keys": [RFC_8037, {"kty": "RSA"}]}))
    assert read_public_keys(str(file)) == read_public_keys(kid) == {kid}
    for content in ("", "[]", "{}", '{"keys": [1]}', '{"keys": [{"kty": "OKP"}]}'):
        file.write_text(content)
        with pytest.raises(FileUnusable):
            read_public_keys(str(file))
    with pytest.raises(FileUnusable):
        read_public_keys("nowhere")
