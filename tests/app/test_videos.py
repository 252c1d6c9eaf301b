"""The store of videos: whole, private, expiring, and the same after a restart."""

import asyncio
import json
import threading
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from app.problems import Problem
from app.schemas import Video, VideoMedia
from app.uploads import Upload
from app.videos import VideoStore

MEDIA = VideoMedia(container="mp4", codec="h264", width=1, height=1, fps=None, duration_s=1.0)


def upload_in(folder: Path, data: bytes = b"0123456789") -> Upload:
    folder.mkdir()
    (folder / "media").write_bytes(data)
    return Upload(folder, folder / "media", "a.mp4", len(data), "0" * 64, {})


def test_it_keeps_what_it_was_given(tmp_path: Path) -> None:
    async def scenario() -> None:
        store = VideoStore(tmp_path / "videos", ttl_s=60, max_bytes=25)
        await store.open()
        video = await store.keep(upload_in(tmp_path / "a"), MEDIA)
        await store.keep(upload_in(tmp_path / "b"), MEDIA)  # the same bytes again are another video
        with pytest.raises(Problem, match="storage_full"):
            await store.keep(upload_in(tmp_path / "c"), MEDIA)
        again = VideoStore(tmp_path / "videos", ttl_s=60, max_bytes=25)
        await again.open()
        found, path = await again.get(video.id)
        assert found == video
        assert path.read_bytes() == b"0123456789"
        with pytest.raises(Problem, match="storage_full"):
            again.check_room(6)
        await again.delete(video.id)
        again.check_room(15)
        for forget in (again.get, again.delete):
            with pytest.raises(Problem, match="video_not_found"):
                await forget(video.id)
        assert len(list((tmp_path / "videos").iterdir())) == 1

    asyncio.run(scenario())


def test_who_leaves_while_it_is_stored_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        store = VideoStore(tmp_path / "videos", ttl_s=60, max_bytes=10)
        await store.open()
        begun, may_go_on = threading.Event(), threading.Event()
        move = store._move

        def slow(folder: Path, video: Video) -> None:
            begun.set()
            may_go_on.wait(5)
            move(folder, video)

        monkeypatch.setattr(store, "_move", slow)
        keeping = asyncio.ensure_future(store.keep(upload_in(tmp_path / "a"), MEDIA))
        await asyncio.to_thread(begun.wait, 5)
        keeping.cancel()
        await asyncio.sleep(0.01)
        may_go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await keeping
        assert list((tmp_path / "videos").iterdir()) == []
        store.check_room(10)

    asyncio.run(scenario())


def test_what_has_expired_is_gone(tmp_path: Path) -> None:
    async def scenario() -> None:
        store = VideoStore(tmp_path / "videos", ttl_s=0.05, max_bytes=100)
        await store.open()
        video = await store.keep(upload_in(tmp_path / "a"), MEDIA)
        await asyncio.sleep(0.06)
        with pytest.raises(Problem, match="video_not_found"):
            await store.get(video.id)
        await store.sweep()
        assert list((tmp_path / "videos").iterdir()) == []

    asyncio.run(scenario())


def test_a_broken_record_harms_nobody(tmp_path: Path) -> None:
    async def scenario() -> None:
        root = tmp_path / "videos"
        store = VideoStore(root, ttl_s=60, max_bytes=100)
        await store.open()
        video = await store.keep(upload_in(tmp_path / "a"), MEDIA)
        record = json.loads((root / video.id / "video.json").read_text())
        (root / video.id / "video.json").write_text(json.dumps(record | {"from_the_future": 1}))
        (root / "not-ours").mkdir()
        await store.sweep()
        with pytest.raises(Problem, match="video_not_found"):
            await store.get(video.id)
        assert (root / video.id / "media").exists()  # another version may read it
        assert (root / "not-ours").exists()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "video_id",
    ["..", "../uploads", "%2e%2e", "..%2fuploads", "0" * 31, "0" * 33, "G" * 32, "0" * 32 + "\n", "A" * 32],
)
def test_an_id_is_never_a_path(tmp_path: Path, client: TestClient, video_id: str) -> None:
    store = VideoStore(tmp_path / "videos", ttl_s=60, max_bytes=100)
    with pytest.raises(Problem, match="video_not_found"):
        asyncio.run(store.get(video_id))
    answer = client.post("/v1/score", json={"video": video_id})
    assert (answer.status_code, answer.json()["code"]) == (404, "video_not_found")
