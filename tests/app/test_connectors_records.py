"""Records of a stream: what they may say, and where they may lead."""

import json
from pathlib import Path
from typing import Any

import pytest

from app.connectors.interface import ConnectorUnusable, Delivery, Unfit
from app.connectors.records import MAX_RECORD_BYTES, Places, delivery_of


def delivery(record: Any, places: Places | None = None) -> Delivery:
    value = record if isinstance(record, bytes) else json.dumps(record).encode()
    return delivery_of(("kafka", "clips", 0, 7), value, places or Places(), None)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root" / "below").mkdir(parents=True)
    (tmp_path / "root" / "below" / "a.mp4").write_bytes(b"a")
    (tmp_path / "secret").write_bytes(b"s")
    (tmp_path / "root" / "link.mp4").symlink_to(tmp_path / "secret")
    return tmp_path / "root"


def test_a_record_says_where_a_video_is_and_what_travels_along(root: Path, tmp_path: Path) -> None:
    by_url = delivery({"url": "https://cdn.example.org/a.mp4?token=x", "about": {"post": 7}, "other": 1})
    assert (by_url.name, by_url.about) == ("https://cdn.example.org/a.mp4", {"post": 7})
    assert by_url.fetch(tmp_path) == "https://cdn.example.org/a.mp4?token=x"
    by_path = delivery({"path": "below/a.mp4", "name": "Mine"}, Places(root))
    assert by_path.name == "Mine"
    assert by_path.fetch(tmp_path) == root / "below" / "a.mp4"


def test_objects_are_those_of_buckets_that_were_named(tmp_path: Path) -> None:
    class Objects:
        def fetch(self, *which: Any) -> Path:
            return Path("/".join(map(str, which)))

        def close(self) -> None:
            pass

    places = Places(buckets={"clips"}, objects=Objects())  # type: ignore[arg-type]
    asked = delivery({"bucket": "clips", "key": "a b.mp4"}, places)
    assert asked.name == "s3://clips/a b.mp4"
    assert asked.fetch(tmp_path) == Path(f"clips/a b.mp4/None/{tmp_path}")
    with pytest.raises(Unfit, match="not taken here"):
        delivery({"bucket": "private", "key": "a.mp4"}, places).fetch(tmp_path)


@pytest.mark.parametrize(
    "path", ["../secret", "link.mp4", "below", "nowhere.mp4", "/etc/hostname", "a\0b", "x" * 3000]
)
def test_paths_lead_to_files_below_the_root_only(root: Path, tmp_path: Path, path: str) -> None:
    with pytest.raises(Unfit, match=r"^There is no such file\.$"):
        delivery({"path": path}, Places(root)).fetch(tmp_path)


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"\xff",
        b"[]",
        b"{",
        {},
        {"url": "file:///etc/passwd"},
        {"url": "https://a.example", "path": "a"},
        {"bucket": "clips"},
        {"key": "a.mp4"},
        {"url": 7},
        {"path": "a.mp4"},
        {"bucket": "clips", "key": "a"},
        b'{"path": "' + b"a" * MAX_RECORD_BYTES + b'"}',
    ],
)
def test_poison_is_a_delivery_that_says_what_is_wrong(record: Any, tmp_path: Path) -> None:
    poison = delivery(record)
    assert poison.name == "clips:0:7"
    with pytest.raises(Unfit):
        poison.fetch(tmp_path)


def test_a_record_is_the_same_wherever_it_is_read_and_another_place_is_another() -> None:
    value = b'{"url": "https://a.example"}'
    ids = {delivery_of(("kafka", "clips", 0, offset), value, Places(), None).id for offset in (1, 1, 2)}
    assert len(ids) == 2
    assert all(each.startswith("kafka-") and len(each) <= 255 for each in ids)


def test_a_root_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConnectorUnusable):
        Places(tmp_path / "nowhere")
