"""API keys: how they are made, stored and ended, on SQLite and on PostgreSQL."""

import re
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from sqlalchemy import Engine, text

from app import keys
from app.keys import KEY, KeyRefused, KeyStore, digest, is_usable, open_keys
from app.settings import Settings

NOW = 1_800_000_000.0


@pytest.fixture
def store(database: Engine) -> KeyStore:
    with database.execution_options(writes=True).begin() as connection:
        connection.execute(text("DELETE FROM api_keys"))
    return KeyStore(database)


def at(monkeypatch: pytest.MonkeyPatch, now: float) -> None:
    monkeypatch.setattr(keys, "time", SimpleNamespace(time=lambda: now))


def test_a_key_is_shown_once_and_stored_as_a_hash(store: KeyStore, database: Engine) -> None:
    key, row = store.create(name="moderators", tenant="acme")
    other, _ = store.create()
    found = KEY.fullmatch(key)
    assert found
    assert found[1] == row.prefix
    assert len(key.rpartition("_")[2]) * 4 == 256  # bits
    assert key != other
    with database.begin() as connection:
        stored = str(connection.execute(text("SELECT * FROM api_keys")).all())
    secret = key.rpartition("_")[2]
    assert digest(key) in stored
    assert secret not in stored
    assert secret not in str(store.listed())
    assert digest(key) not in str(store.listed())


def test_what_the_list_tells(store: KeyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    at(monkeypatch, NOW)
    _, row = store.create(
        name="queue", tenant="acme", scopes=["jobs", "score"], expires="2h", rate="5/minute", concurrency=3
    )
    assert store.listed() == [
        {
            "prefix": row.prefix,
            "state": "active",
            "name": "queue",
            "tenant": "acme",
            "scopes": ["score", "jobs"],
            "rate": "5/minute",
            "concurrency": 3,
            "created_at": "2027-01-15T08:00:00+00:00",
            "expires_at": "2027-01-15T10:00:00+00:00",
            "revoked_at": None,
            "last_used_at": None,
        }
    ]
    at(monkeypatch, NOW + 7200)
    assert store.listed()[0]["state"] == "expired"
    store.revoke(row.prefix)
    assert store.listed()[0]["state"] == "revoked"
    _, later = store.create()
    assert [key["prefix"] for key in store.listed()] == [later.prefix, row.prefix]


@pytest.mark.parametrize(
    ("text", "expires_at"),
    [
        ("90s", NOW + 90),
        ("12h", NOW + 43200),
        ("2w", NOW + 14 * 86400),
        ("2027-01-31", 1801353600.0),
        ("2027-01-31T00:00:00+02:00", 1801346400.0),
        (None, None),
    ],
)
def test_when_a_key_expires(
    store: KeyStore, monkeypatch: pytest.MonkeyPatch, text: str | None, expires_at: float | None
) -> None:
    at(monkeypatch, NOW)
    _, row = store.create(expires=text)
    assert row.expires_at == expires_at
    assert is_usable(row)
    if expires_at is not None:
        at(monkeypatch, expires_at)
        assert not is_usable(row)
        assert not store.has_usable()


@pytest.mark.parametrize(
    "wrong",
    [
        {"scopes": []},
        {"scopes": ["score", "all"]},
        {"tenant": "Acme Corp"},
        {"tenant": "a/../b"},
        {"tenant": "a" * 65},
        {"tenant": "a\n"},
        {"name": "\x1b[31m"},
        {"name": "n" * 101},
        {"rate": "fast"},
        {"expires": "soon"},
        {"expires": "0d"},
        {"expires": "2020-01-01"},
        {"expires": "999999999w"},
        {"expires": "9999-12-31T23:59:59-12:00"},
    ],
)
def test_a_key_that_can_t_be_made(store: KeyStore, wrong: dict[str, object]) -> None:
    with pytest.raises(KeyRefused):
        store.create(**wrong)  # type: ignore[arg-type]
    assert store.is_empty()


@pytest.mark.parametrize("form", ["{prefix}", "specsem_{prefix}", "{key}", " {key}\n"])
def test_a_key_is_revoked_by_its_prefix_or_as_a_whole(store: KeyStore, form: str) -> None:
    key, row = store.create()
    store.create()
    assert store.revoke(form.format(key=key, prefix=row.prefix)).prefix == row.prefix
    found = store.find(row.prefix)
    assert found is not None
    assert not is_usable(found)
    assert store.has_usable()  # the other one


def test_revoking_twice_keeps_the_first_time(store: KeyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    _, row = store.create()
    at(monkeypatch, NOW)
    store.revoke(row.prefix)
    at(monkeypatch, NOW + 60)
    assert store.revoke(row.prefix).revoked_at == NOW


@pytest.mark.parametrize("wrong", ["", "0" * 12, "x", "%", "\0", "specsem_"])
def test_only_a_key_that_is_there_is_revoked(store: KeyStore, wrong: str) -> None:
    store.create()
    with pytest.raises(KeyRefused, match="no such key"):
        store.revoke(wrong)
    assert store.has_usable()


def test_a_revoked_key_counts_until_it_is_forgotten(store: KeyStore) -> None:
    assert store.is_empty()
    _, row = store.create()
    store.revoke(row.prefix)
    assert not store.is_empty()
    assert not store.has_usable()
    store.revoke(row.prefix, forget=True)
    assert store.is_empty()


def test_the_last_use_is_written_once_a_minute(store: KeyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    _, row = store.create()

    def used(now: float) -> float | None:
        at(monkeypatch, now)
        found = store.find(row.prefix)
        assert found is not None
        store.note_use(found)
        again = store.find(row.prefix)
        assert again is not None
        return again.last_used_at

    assert [used(NOW), used(NOW + 59), used(NOW + 61)] == [NOW, NOW, NOW + 61]


def test_keys_are_made_before_there_is_a_service(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "new" / "data")
    with open_keys(settings) as store:
        key, _ = store.create()
    assert settings.data_dir.stat().st_mode & 0o777 == 0o700
    with open_keys(settings) as store:
        assert store.has_usable()
        assert key.encode() not in b"".join(path.read_bytes() for path in settings.data_dir.iterdir())


def test_a_key_is_known_again_by_a_scanner(store: KeyStore) -> None:
    key, _ = store.create()
    assert re.findall(
        r"specsem_[0-9a-f]{12}_[0-9a-f]{64}", f'curl -H "X-API-Key: {key}" # {time.time()}'
    ) == [key]
