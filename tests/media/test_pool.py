"""The pool: what a file does to its decoder process stays with that file."""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import resource
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from specsem import errors
from specsem.media import Clip, Death, DecoderPool, Limits, SamplePlan
from specsem.media import pool as pool_module
from tests.integration.serving import children
from tests.media.corpus import encode

PLAN = SamplePlan(windows=2, crop_side=64, frame_side=32)
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return encode(tmp_path_factory.mktemp("pool") / "video.mp4", frames=60, container="mp4")


@pytest.fixture(scope="module")
def pool() -> Iterator[DecoderPool]:
    with DecoderPool(workers=2) as pool:
        yield pool


@pytest.fixture
def deaths() -> list[Death]:
    """What the odd pool tells of its workers."""
    return []


@pytest.fixture
def odd_pool(monkeypatch: pytest.MonkeyPatch, deaths: list[Death]) -> Iterator[DecoderPool]:
    """One worker that files can make misbehave, with tight limits."""
    monkeypatch.setattr(pool_module, "_WORKER_MODULE", "tests.media.misbehaving")
    limits = Limits(wall_s=20.0, cpu_s=1.0, memory_bytes=512 << 20)
    with DecoderPool(workers=1, limits=limits, on_death=deaths.append) as pool:
        yield pool


def same(a: Clip, b: Clip) -> bool:
    return a.info == b.info and all(
        np.array_equal(v.crops_TNHWC, w.crops_TNHWC) and np.array_equal(v.frames_THWC, w.frames_THWC)
        for v, w in zip(a.windows, b.windows, strict=True)
    )


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def confined(pid: int) -> bool:
    """Whether the worker has given up what it doesn't need: it is ready."""
    return "NoNewPrivs:\t1" in status(pid) and resource.prlimit(pid, resource.RLIMIT_NOFILE)[1] <= 64


def status(pid: int) -> str:
    return Path(f"/proc/{pid}/status").read_text()


def wait_until(condition: object, seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():  # type: ignore[operator]
            return True
        time.sleep(0.02)
    return False


def test_workers_are_reused_and_agree(pool: DecoderPool, video: Path) -> None:
    first = pool.decode(video, PLAN)
    assert wait_until(lambda: len(pool.pids()) == 2)
    pids = set(pool.pids())
    for _ in range(5):
        assert same(first, pool.decode(video, PLAN))
    assert set(pool.pids()) == pids
    assert first.decode_ms > 0
    assert not first.windows[0].crops_TNHWC.flags.writeable


def test_probe(pool: DecoderPool, video: Path) -> None:
    info = pool.probe(video)
    assert (info.container, info.codec, info.width, info.height) == ("mp4", "h264", 128, 96)
    assert info.fps == pytest.approx(25)
    assert info.duration_s == pytest.approx(2.4)


def test_threads_share_it(pool: DecoderPool, video: Path) -> None:
    reference = pool.decode(video, PLAN)
    with ThreadPoolExecutor(6) as threads:
        clips = list(threads.map(lambda _: pool.decode(video, PLAN), range(18)))
    assert all(same(reference, clip) for clip in clips)


def test_pixels_outlive_worker_and_pool(video: Path) -> None:
    with DecoderPool(workers=1) as pool:
        clip = pool.decode(video, PLAN)
        before = clip.windows[0].crops_TNHWC.copy()
        pool.decode(video, SamplePlan(windows=1, crop_side=32, frame_side=0))
    assert np.array_equal(clip.windows[0].crops_TNHWC, before)


def test_memory_is_lent_to_one_clip_at_a_time(video: Path) -> None:
    with DecoderPool(workers=1) as pool:
        clips = [pool.decode(video, PLAN) for _ in range(4)]
        views = [clip.windows[1].crops_TNHWC[3:, 0] for clip in clips]
        expected = views[0].copy()
        del clips
        for _ in range(3):
            pool.decode(video, PLAN)
            with pool.scan(video, PLAN) as scan:
                assert not np.array_equal(next(scan).crops_TNHWC[3:, 0], expected)
        assert all(np.array_equal(view, expected) for view in views)


def test_no_pixels_wanted(pool: DecoderPool, video: Path) -> None:
    clip = pool.decode(video, SamplePlan(crop_side=0, frame_side=0))
    assert clip.windows[0].crops_TNHWC.shape == (8, 0, 0, 0, 3)
    assert clip.windows[0].frames_THWC.shape == (8, 0, 0, 3)
    assert clip.windows[0].boxes_N4.shape == (0, 4)
    with pool.scan(video, SamplePlan(crop_side=0, frame_side=0)) as scan:
        assert len(list(scan)) == 8


@pytest.mark.parametrize("make", ["missing", "folder", "pipe", "device", "empty", "nul", "unreadable"])
def test_paths_that_are_no_video(make: str, pool: DecoderPool, tmp_path: Path) -> None:
    path: str | Path = tmp_path / "x"
    code = "not_a_video"
    match make:
        case "missing":
            code = "not_found"
        case "folder":
            path = tmp_path
        case "pipe":
            os.mkfifo(path)
        case "device":
            path = "/dev/zero"
        case "empty":
            (tmp_path / "x").touch()
        case "nul":
            path, code = "a\0b", "not_found"
        case _:
            path, code = tmp_path / ("n" * 300), "not_found"
    with pytest.raises(errors.MediaError) as caught:
        pool.decode(path, PLAN)
    assert caught.value.code == code
    assert "/" not in caught.value.message


@pytest.mark.parametrize(
    ("word", "error", "cause"),
    [
        ("crash", errors.Undecodable, "crash"),
        ("exit", errors.Undecodable, "crash"),
        ("raise", errors.Undecodable, "crash"),
        ("bloat", errors.LimitsExceeded, "memory"),
        ("spin", errors.DecodeTimeout, "cpu"),
        ("write", errors.Undecodable, "crash"),
    ],
)
def test_misbehaviour_hits_its_own_file_only(  # noqa: PLR0917 - fixtures
    word: str,
    error: type[Exception],
    cause: Death,
    odd_pool: DecoderPool,
    deaths: list[Death],
    video: Path,
    tmp_path: Path,
) -> None:
    (tmp_path / "bad").write_text(word + " " * 20)
    (before,) = odd_pool.pids() or [0]
    with pytest.raises(error):
        odd_pool.decode(tmp_path / "bad", PLAN)
    assert len(odd_pool.decode(video, PLAN).windows) == 2
    assert deaths == [cause]
    assert len(odd_pool.pids()) == 1
    assert before not in odd_pool.pids(), "the worker must be replaced"
    assert not alive(before)
    if word == "write":
        leftover = Path("/tmp/specsem-should-not-be-there")  # noqa: S108
        assert not leftover.exists() or leftover.stat().st_size == 0
        leftover.unlink(missing_ok=True)


def test_hanging_worker_times_out(monkeypatch: pytest.MonkeyPatch, video: Path, tmp_path: Path) -> None:
    monkeypatch.setattr(pool_module, "_WORKER_MODULE", "tests.media.misbehaving")
    (tmp_path / "bad").write_text("hang" + " " * 20)
    deaths: list[Death] = []
    with DecoderPool(workers=1, limits=Limits(wall_s=5.0), on_death=deaths.append) as pool:
        pool.decode(video, PLAN)
        began = time.monotonic()
        with pytest.raises(errors.DecodeTimeout):
            pool.decode(tmp_path / "bad", PLAN)
        assert 4.5 < time.monotonic() - began < 15
        assert pool.decode(video, PLAN).windows
    assert deaths == ["wall"]


def test_child_loads_no_more_than_it_needs(odd_pool: DecoderPool, tmp_path: Path) -> None:
    (tmp_path / "ask").write_text("modules" + " " * 20)
    with pytest.raises(errors.MediaError) as caught:
        odd_pool.decode(tmp_path / "ask", PLAN)
    assert caught.value.message == "loaded: "


def test_killed_in_mid_job(monkeypatch: pytest.MonkeyPatch, video: Path, tmp_path: Path) -> None:
    monkeypatch.setattr(pool_module, "_WORKER_MODULE", "tests.media.misbehaving")
    (tmp_path / "bad").write_text("hang" + " " * 20)
    with DecoderPool(workers=2) as pool, ThreadPoolExecutor(2) as threads:
        together = threading.Barrier(2)  # both have started: one that dies before that is no file's fault
        list(threads.map(lambda _: (together.wait(10), pool.decode(video, PLAN)), range(2)))
        victims = set(pool.pids())
        doomed = threads.submit(pool.decode, tmp_path / "bad", PLAN)
        assert len(pool.decode(video, PLAN).windows) == 2, "the other worker goes on"
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
        assert isinstance(doomed.exception(timeout=20), errors.Undecodable)
        # The one that was idle died as well: that is no file's fault.
        assert wait_until(lambda: not any(alive(pid) for pid in victims))
        assert len(pool.decode(video, PLAN).windows) == 2
        assert len(pool.decode(video, PLAN).windows) == 2
        assert victims.isdisjoint(pool.pids()) or wait_until(lambda: victims.isdisjoint(pool.pids()), 1)


def test_cancel(odd_pool: DecoderPool, deaths: list[Death], video: Path, tmp_path: Path) -> None:
    (tmp_path / "bad").write_text("hang" + " " * 20)
    odd_pool.decode(video, PLAN)
    cancel = threading.Event()
    threading.Timer(0.3, cancel.set).start()
    began = time.monotonic()
    with pytest.raises(errors.Cancelled):
        odd_pool.decode(tmp_path / "bad", PLAN, cancel=cancel)
    assert time.monotonic() - began < 3
    assert odd_pool.decode(video, PLAN).windows
    assert deaths == ["cancelled"]


def test_cancel_while_waiting_for_a_worker(odd_pool: DecoderPool, tmp_path: Path, video: Path) -> None:
    (tmp_path / "bad").write_text("hang" + " " * 20)
    stop, cancel = threading.Event(), threading.Event()
    with ThreadPoolExecutor(1) as threads:
        busy = threads.submit(odd_pool.decode, tmp_path / "bad", PLAN, cancel=stop)
        time.sleep(0.2)
        threading.Timer(0.2, cancel.set).start()
        with pytest.raises(errors.Cancelled):
            odd_pool.decode(video, PLAN, cancel=cancel)
        stop.set()
        assert isinstance(busy.exception(timeout=20), errors.Cancelled)


def test_close_frees_everything(video: Path) -> None:
    gc.collect()
    before = set(os.listdir("/proc/self/fd"))  # noqa: PTH208
    pool = DecoderPool(workers=2)
    pool.decode(video, PLAN)
    pids = pool.pids()
    pool.close()
    pool.close()
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids), "not reaped"
    with pytest.raises(RuntimeError):
        pool.decode(video, PLAN)
    del pool
    gc.collect()
    assert len(set(os.listdir("/proc/self/fd")) - before) == 0  # noqa: PTH208


def test_close_ends_calls_under_way(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(pool_module, "_WORKER_MODULE", "tests.media.misbehaving")
    (tmp_path / "bad").write_text("hang" + " " * 20)
    pool = DecoderPool(workers=1)
    with ThreadPoolExecutor(1) as threads:
        call = threads.submit(pool.decode, tmp_path / "bad", PLAN)
        time.sleep(1.0)
        pool.close()
        assert isinstance(call.exception(timeout=20), errors.Cancelled | RuntimeError)


def test_killed_parent_leaves_no_orphans(video: Path) -> None:
    script = textwrap.dedent(f"""
        import sys, time
        from specsem.media import DecoderPool, SamplePlan
        pool = DecoderPool(workers=2)
        from concurrent.futures import ThreadPoolExecutor
        while len(pool.pids()) < 2:
            with ThreadPoolExecutor(2) as threads:
                list(threads.map(pool.decode, [{str(video)!r}] * 2, [SamplePlan(windows=1)] * 2))
        print(*pool.pids(), flush=True)
        time.sleep(60)
    """)
    names = set(os.listdir("/dev/shm"))  # noqa: PTH208, S108
    with subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 2
        assert all(alive(pid) for pid in pids)
        # A worker still starting notices by itself; here both shall be at their work.
        assert wait_until(lambda: all(confined(pid) for pid in pids))
        # A worker that can't read its socket dies all the same.
        os.kill(pids[0], signal.SIGSTOP)
        parent.kill()
    assert wait_until(lambda: not any(alive(pid) for pid in pids)), "orphans"
    assert set(os.listdir("/dev/shm")) <= names  # noqa: PTH208, S108


def test_confinement(pool: DecoderPool, video: Path) -> None:
    pool.decode(video, PLAN)
    for pid in pool.pids():
        assert wait_until(lambda pid=pid: confined(pid))
        limits = {what: resource.prlimit(pid, what) for what in (resource.RLIMIT_CORE, resource.RLIMIT_FSIZE)}
        assert set(limits.values()) == {(0, 0)}
        assert resource.prlimit(pid, resource.RLIMIT_NOFILE)[1] <= 64
        assert resource.prlimit(pid, resource.RLIMIT_AS)[1] < 4 << 30
        assert "NoNewPrivs:\t1" in status(pid)
        assert len(Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")) <= 9


# -- scan -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def long_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return encode(
        tmp_path_factory.mktemp("pool") / "long.mp4", "mpeg4", frames=1501, container="mp4", size=(64, 64)
    )


def test_scan_covers_all(pool: DecoderPool, long_video: Path) -> None:
    with pool.scan(long_video, PLAN) as scan:
        windows = list(scan)
    assert len(windows) == 188
    for earlier, later in itertools.pairwise(windows[:-1]):
        assert later.start_s == pytest.approx(earlier.end_s, abs=1e-9)
    assert windows[0].start_s == 0
    # 1501 = 187 * 8 + 5: the last window reaches back by 3 frames.
    assert windows[-1].start_s == pytest.approx((1501 - 8) / 25)
    assert windows[-1].end_s == pytest.approx(1501 / 25)
    assert scan.clip.windows == []
    assert scan.clip.coverage.fraction == pytest.approx(1.0)
    assert scan.clip.info.frames_scored == 188 * 8


def test_scan_in_constant_memory(pool: DecoderPool, long_video: Path) -> None:
    """Neither side grows with the length: shared memory of the windows that are gone is gone."""
    plan = SamplePlan(crop_side=96, crops=8, frame_side=0)

    def shared_bytes() -> int:
        """Held by this process and its workers, mapped or only open; what others share is not ours."""
        sizes: dict[int, int] = {}
        for pid in (os.getpid(), *children(os.getpid())):
            for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
                if "memfd:specsem-window" in line:
                    span, _, _, _, inode, *_ = line.split()
                    start, end = (int(address, 16) for address in span.split("-"))
                    sizes[int(inode)] = end - start
            for fd in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(FileNotFoundError):  # it has just been closed
                    if "memfd:specsem-window" in str(fd.readlink()):
                        sizes[fd.stat().st_ino] = fd.stat().st_size
        return sum(sizes.values())

    before, peak = shared_bytes(), 0
    with pool.scan(long_video, plan) as scan:
        for n, _ in enumerate(scan):
            if n % 10 == 0:
                peak = max(peak, shared_bytes())
    assert plan.window_bytes <= peak - before < 10 * plan.window_bytes


def test_scan_waits_for_its_reader(pool: DecoderPool, long_video: Path) -> None:
    with pool.scan(long_video, PLAN) as scan:
        first = next(scan)
        time.sleep(0.3)
        second = next(scan)
        assert second.start_s == pytest.approx(first.end_s)
    assert pool.decode(long_video, PLAN).windows, "left early: the worker is replaced"
    assert list(scan) == []


def test_scan_windows_have_the_pixels_of_the_frames(pool: DecoderPool, video: Path) -> None:
    plan = SamplePlan(crop_side=64, crops=1, frame_side=0)
    frames, times = pool.read_frames(video, 60)
    with pool.scan(video, plan) as scan:
        windows = list(scan)
    assert len(windows) == 8
    for window in windows:
        first = int(np.argmin(np.abs(times - window.start_s)))
        expected = frames[first : first + 8, 16:80, 32:96]
        assert np.array_equal(window.crops_TNHWC[:, 0], expected)


def test_scan_cancelled(pool: DecoderPool, long_video: Path) -> None:
    cancel = threading.Event()
    scan = pool.scan(long_video, PLAN, cancel=cancel)
    next(scan)
    cancel.set()
    with pytest.raises(errors.Cancelled):
        list(scan)


def test_scan_of_a_bad_file(pool: DecoderPool, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"nothing")
    with pytest.raises(errors.NotAVideo), pool.scan(tmp_path / "x", PLAN) as scan:
        next(scan)
