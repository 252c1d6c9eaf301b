"""The store of videos: whole, private, expiring, and the same after a restart."""

import asyncio
import json
import threading
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from app.problems import Problem
from app.room import Room
from app.schemas import VideoMedia
from app.uploads import Upload
from app.videos import StoredVideo, VideoStore

MEDIA = VideoMedia(container="mp4", codec="h264", width=1, height=1, fps=None, duration_s=1.0)


def upload_in(folder: Path, data: bytes = b"0123456789") -> Upload:
    folder.mkdir()
    (folder / "media").write_bytes(data)
    return Upload(folder, folder / "media", "a.mp4", len(data), "0" * 64, {})


def test_it_keeps_what_it_was_given(tmp_path: Path) -> None:
    async def scenario() -> None:
        room = Room(max_bytes=25)
        store = VideoStore(tmp_path / "videos", ttl_s=60, room=room)
        await store.open()
        video = await store.keep("", upload_in(tmp_path / "a"), MEDIA)
        await store.keep("", upload_in(tmp_path / "b"), MEDIA)  # the same bytes again are another video
        room.check("", 5)
        with pytest.raises(Problem, match="storage_full"):
            room.check("", 6)
        room = Room(max_bytes=25)
        again = VideoStore(tmp_path / "videos", ttl_s=60, room=room)
        await again.open()
        found, path = await again.get("", video.id)
        assert found == video
        assert path.read_bytes() == b"0123456789"
        with pytest.raises(Problem, match="storage_full"):
            room.check("", 6)
        await again.delete("", video.id)
        room.check("", 15)
        for forget in (again.get, again.delete):
            with pytest.raises(Problem, match="video_not_found"):
                await forget("", video.id)
        assert len(list((tmp_path / "videos").iterdir())) == 1

    asyncio.run(scenario())


def test_each_tenant_has_its_own(tmp_path: Path) -> None:
    async def scenario() -> None:
        room = Room(max_tenant_bytes=15)
        store = VideoStore(tmp_path / "videos", ttl_s=60, room=room)
        await store.open()
        video = await store.keep("one", upload_in(tmp_path / "a"), MEDIA)
        assert (await store.get("one", video.id))[0].tenant == "one"
        for foreign in (store.get, store.delete):
            with pytest.raises(Problem, match="video_not_found"):
                await foreign("two", video.id)
        room.check("two", 15)
        with pytest.raises(Problem, match="quota_exceeded"):
            room.check("one", 6)
        await store.delete("one", video.id)
        assert room.taken("one") == 0

    asyncio.run(scenario())


def test_a_record_from_before_tenants_is_read(tmp_path: Path) -> None:
    async def scenario() -> None:
        store = VideoStore(tmp_path / "videos", ttl_s=60, room=Room())
        await store.open()
        video = await store.keep("", upload_in(tmp_path / "a"), MEDIA)
        record = tmp_path / "videos" / video.id / "video.json"
        old = json.loads(record.read_text())
        del old["tenant"]
        record.write_text(json.dumps(old))
        assert (await store.get("", video.id))[0] == video

    asyncio.run(scenario())


def test_who_leaves_while_it_is_stored_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        room = Room(max_bytes=10)
        store = VideoStore(tmp_path / "videos", ttl_s=60, room=room)
        await store.open()
        begun, may_go_on = threading.Event(), threading.Event()
        move = store._move

        def slow(folder: Path, video: StoredVideo) -> None:
            begun.set()
            may_go_on.wait(5)
            move(folder, video)

        monkeypatch.setattr(store, "_move", slow)
        keeping = asyncio.ensure_future(store.keep("", upload_in(tmp_path / "a"), MEDIA))
        await asyncio.to_thread(begun.wait, 5)
        keeping.cancel()
        await asyncio.sleep(0.01)
        may_go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await keeping
        assert list((tmp_path / "videos").iterdir()) == []
        room.check("", 10)

    asyncio.run(scenario())


def test_what_has_expired_is_gone(tmp_path: Path) -> None:
    async def scenario() -> None:
        room = Room()
        store = VideoStore(tmp_path / "videos", ttl_s=0.05, room=room)
        await store.open()
        video = await store.keep("", upload_in(tmp_path / "a"), MEDIA)
        await asyncio.sleep(0.06)
        with pytest.raises(Problem, match="video_not_found"):
            await store.get("", video.id)
        await store.sweep()
        assert list((tmp_path / "videos").iterdir()) == []
        assert room.taken("") == 0

    asyncio.run(scenario())


def test_a_broken_record_harms_nobody(tmp_path: Path) -> None:
    async def scenario() -> None:
        root = tmp_path / "videos"
        store = VideoStore(root, ttl_s=60, room=Room())
        await store.open()
        video = await store.keep("", upload_in(tmp_path / "a"), MEDIA)
        record = json.loads((root / video.id / "video.json").read_text())
        (root / video.id / "video.json").write_text(json.dumps(record | {"from_the_future": 1}))
        (root / "not-ours").mkdir()
        await store.sweep()
        with pytest.raises(Problem, match="video_not_found"):
            await store.get("", video.id)
        assert (root / video.id / "media").exists()  # another version may read it
        assert (root / "not-ours").exists()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "video_id",
    ["..", "../uploads", "%2e%2e", "..%2fuploads", "0" * 31, "0" * 33, "G" * 32, "0" * 32 + "\n", "A" * 32],
)
def test_an_id_is_never_a_path(tmp_path: Path, client: TestClient, video_id: str) -> None:
    store = VideoStore(tmp_path / "videos", ttl_s=60, room=Room())
    with pytest.raises(Problem, match="video_not_found"):
        asyncio.run(store.get("", video_id))
    answer = client.post("/v1/score", json={"video": video_id})
    assert (answer.status_code, answer.json()["code"]) == (404, "video_not_found")
