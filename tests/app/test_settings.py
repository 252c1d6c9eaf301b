"""Settings: from the environment, with limits in one place and no exposure without keys."""

from functools import partial
from pathlib import Path

import pytest
from pydantic import ValidationError
from sqlalchemy import make_url

from app.auth import check_exposure
from app.keys import open_keys
from app.main import create_app, run, work
from app.settings import ExposureRefused, Settings, is_loopback_address, is_loopback_name, parse_address

KEY = "k" * 32


def test_every_setting_has_a_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SPECSEM_PORT", "9001")
    monkeypatch.setenv("SPECSEM_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("SPECSEM_API_KEYS", f"{KEY}, {KEY[:-1]}x")
    monkeypatch.setenv("SPECSEM_ALLOWED_HOSTS", "a.example,b.example")
    settings = Settings()
    assert (settings.port, settings.data_dir) == (9001, tmp_path)
    assert settings.keys() == [KEY.encode(), (KEY[:-1] + "x").encode()]
    assert settings.allowed_hosts == ["a.example", "b.example"]


def test_arguments_win_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPECSEM_PORT", "9001")
    assert Settings(port=9002).port == 9002


def test_loopback_is_the_default() -> None:
    assert Settings.model_fields["host"].default == "127.0.0.1"
    assert Settings.model_fields["port"].default == 8000


def test_the_decoder_s_limits_come_from_here() -> None:
    limits = Settings(max_upload_bytes=7, max_side=8, decode_wall_s=9, c2pa_timeout_s=10).limits
    assert (limits.max_bytes, limits.max_side, limits.wall_s, limits.c2pa_s) == (7, 8, 9, 10)


def test_keys_never_show() -> None:
    assert KEY not in repr(Settings(api_keys=[KEY]))


def test_a_short_key_is_refused() -> None:
    with pytest.raises(ValidationError, match="shorter than 16"):
        Settings(api_keys=["secret"])


def test_keys_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# the moderators\n{KEY}  # until May\n\n")
    assert Settings(api_keys_file=file).keys() == [KEY.encode()]
    file.write_text("short\n")
    with pytest.raises(ExposureRefused, match="under 16"):
        Settings(api_keys_file=file).keys()
    with pytest.raises(ExposureRefused, match="can't be read"):
        Settings(api_keys_file=tmp_path / "missing").keys()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org", "", "::ffff:10.0.0.1"])  # noqa: S104
def test_exposure_without_a_key_is_refused(host: str, tmp_path: Path) -> None:
    settings = Settings(host=host, data_dir=tmp_path / "data")
    worker = partial(work, settings.model_copy(update={"worker_host": host, "worker_port": 0}))
    for start in (
        partial(check_exposure, settings, host),
        partial(create_app, settings),
        partial(run, settings),
        worker,
    ):
        with pytest.raises(ExposureRefused, match="SPECSEM_API_KEYS"):
            start()
    assert not settings.data_dir.exists()
    check_exposure(Settings(api_keys=[KEY], data_dir=tmp_path), host)


def test_a_stored_key_allows_exposure_while_it_can_be_used(tmp_path: Path) -> None:
    settings = Settings(host="0.0.0.0", data_dir=tmp_path)  # noqa: S104
    with open_keys(settings) as store:
        _, row = store.create()
        check_exposure(settings, settings.host)
        store.revoke(row.prefix)
        with pytest.raises(ExposureRefused, match="specsem keys create"):
            check_exposure(settings, settings.host)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost", "LOCALHOST"])
def test_loopback_needs_no_key(host: str) -> None:
    check_exposure(Settings(), host)


def test_the_database_s_password_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("p@ss/word \n")
    settings = Settings(database_url="postgresql://specsem@database:5433/jobs", database_password_file=file)
    url = make_url(settings.database_address or "")
    assert (url.password, url.username, url.host, url.port) == ("p@ss/word ", "specsem", "database", 5433)
    assert "p@ss" not in repr(settings)
    assert Settings(database_password_file=file).database_address is None
    assert Settings(database_url="nonsense", database_password_file=file).database_address == "nonsense"


def test_a_file_of_a_password_must_hold_one(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    for name, reason in (("missing", "No such file"), ("empty", "is empty"), (".", "Is a directory")):
        with pytest.raises(ValidationError, match=reason):
            Settings(database_password_file=tmp_path / name)


@pytest.mark.parametrize("wrong", ["*", "proxy.example", "10.0.0.1/8", "10.0.0.0/33", "fe80::1%eth0/64"])
def test_a_trusted_proxy_is_an_address_or_a_network(wrong: str) -> None:
    with pytest.raises(ValidationError, match="trusted_proxies"):
        Settings(trusted_proxies=f"10.0.0.1, {wrong}")
    assert Settings(trusted_proxies="10.0.0.1, fd00::/8").trusted_proxies == ["10.0.0.1/32", "fd00::/8"]


@pytest.mark.parametrize("wrong", ["", "fast", "0/minute", "-1/minute", "5 per fortnight"])
def test_a_rate_is_so_many_in_so_long(wrong: str) -> None:
    for name in ("key_rate", "key_failures"):
        with pytest.raises(ValidationError, match="is no rate"):
            Settings(**{name: wrong})


def test_addresses_are_read_as_what_they_are() -> None:
    assert str(parse_address("::ffff:10.0.0.1")) == "10.0.0.1"
    assert str(parse_address("fe80::1%eth0")) == "fe80::1"
    assert parse_address("10.0.0") is None


def test_replicas_are_in_order() -> None:
    assert Settings(ray_replicas=2, ray_max_replicas=2).ray_max_replicas == 2
    with pytest.raises(ValidationError, match="SPECSEM_RAY_MAX_REPLICAS is less"):
        Settings(ray_replicas=3, ray_max_replicas=2)


def test_what_counts_as_loopback() -> None:
    assert is_loopback_address("::ffff:127.0.0.1")
    assert is_loopback_address("fe80::1%lo") is False
    assert is_loopback_name("[::1]")
    assert is_loopback_name("app.localhost.")
    assert not is_loopback_name("localhost.evil.example")
    assert not is_loopback_name("127.0.0.1.evil.example")
    assert not is_loopback_name("2130706433")
