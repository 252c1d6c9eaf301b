"""Which frames of a file are looked at: the survey, the windows, the scan. Runs in the decoder's process.

**Window mode.** A file of up to :data:`_SHORT_FRAMES` frames is decoded whole and its windows are spread
evenly over its unbroken runs of frames. Of a longer one the true end is found first (seek far, read packets:
the header is not believed), then K targets are spread evenly over that time; a window begins at the key frame
at or before its target. Where several targets fall behind one key frame, decoding goes on from window to
window, throwing frames away in between only within :data:`_SKIP_FRAMES`: this bounds the cost of any file,
whatever its length. A demuxer that can't seek is read through (packets only) to learn where the key frames
are.

**A run** is an unbroken row of clean frames of one size: windows never reach across a decoding error, a frame
marked corrupt or a change of size. If a damaged file has no window of clean frames, the decoder's concealed
frames are taken (warning ``concealed_errors``).

**Times** are those of the file in seconds from its first displayed frame.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from av.packet import Packet
from av.video.reformatter import VideoReformatter

from specsem.errors import LimitsExceeded, MediaError, NoVideoStream, TooShort, Undecodable
from specsem.media._pixels import Converter, full_rgb
from specsem.media._source import Picture, Shot, Source, open_source
from specsem.media._trail import read_trail
from specsem.media.geometry import mirror_index
from specsem.media.types import Clip, Coverage, Limits, MediaInfo, SamplePlan, Trail, UInt8, Window

__all__ = ["Arrays", "decode_windows", "iter_rgb", "probe", "scan_windows"]

_SHORT_FRAMES = 64
_SKIP_FRAMES = 200
"""Frames thrown away between windows behind one key frame, in all, for up to half a megapixel each: windows
spread over eight seconds without a key frame. From there it falls steeply to none at one megapixel, where
throwing away costs too much: a quarter of a file of 720p must do."""
_THREADS = 2
"""Of a decoder: one frame is converted while the next is decoded. More gain little in short windows."""
_HEAD_BYTES = 64 * 1024 * 1024
_LANDING_PACKETS = 1000
"""Packets read after a seek in search of a key frame."""
_BRIEF_FRAMES = 4
"""Of a video with fewer frames than a window, down to so many, one window is made (warning ``brief``)."""
_REORDERED = 32
"""Packets by which decoding order may be off display order: 16 frames of two fields."""
_RESCUE_FRAMES = 600
"""Frames decoded from the start of a damaged long file when no target gave a window."""

Arrays = tuple[UInt8, UInt8]
"""``crops_TNHWC, frames_THWC`` of one window, to be filled."""
ArraySource = Callable[[int], Arrays]
"""Gives the arrays of the i-th window. Asked again for the same i, it may give the same ones."""


# -- survey -------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Survey:
    """What the packets say, before anything is decoded. Times in ticks."""

    head: list[Packet[Any]]
    whole: bool
    """The head is all there is."""
    timed: bool
    """Packets have timestamps; else they are counted."""
    start: int
    end: int
    fps: float | None
    """Of the head."""
    keys: list[tuple[int, int]] | None = None
    """Ordinal and time of every key frame, where the demuxer can't be trusted to seek; else None."""


def _ts(packet: Packet[Any]) -> int | None:
    return packet.pts if packet.pts is not None else packet.dts


def _survey(source: Source, short: int) -> _Survey:
    """Read the head (just over ``short`` packets) and find the true end."""
    head: list[Packet[Any]] = []
    size, whole = 0, True
    for packet in source.packets():
        head.append(packet)
        size += packet.size
        if len(head) > short or size > _HEAD_BYTES:
            whole = False
            break
    if not head:
        raise Undecodable("The video stream is empty.")
    shown = [p for p in head if not p.is_discard and _ts(p) is not None] or [
        p for p in head if _ts(p) is not None
    ]
    if not shown:
        return _survey_untimed(source, head, whole)
    times = sorted(t for p in shown if (t := _ts(p)) is not None)
    first_key = next((p for p in head if p.is_keyframe), head[0])
    # Pictures before the first key frame's (open GOP) can't be decoded.
    start = t if not first_key.is_discard and (t := _ts(first_key)) is not None else times[0]
    span = times[-1] - times[0]
    fps = (len(times) - 1) / (span * source.tick_s) if span else None
    gap = max(1, span // max(1, len(times) - 1)) if span else 0
    end = max(t + (p.duration or gap) for p in shown if (t := _ts(p)) is not None)
    survey = _Survey(head, whole, True, start, end, fps)
    if not whole:
        _find_end(source, survey, gap)
    return survey


def _survey_untimed(source: Source, head: list[Packet[Any]], whole: bool) -> _Survey:
    source.warnings.add("no_timestamps")
    survey = _Survey(head, whole, False, 0, len(head) * source.nominal_ticks, source.nominal_rate)
    if not whole:
        _read_through(source, survey, 0)
    return survey


def _find_end(source: Source, survey: _Survey, gap: int) -> None:
    """The end by seeking far behind it and reading on; if that fails, by reading all packets."""
    second = max(1, round(1 / source.tick_s))
    far = survey.start + 48 * 3600 * second
    near = survey.start + round(((source.header_duration_s or 0.0) - 1.0) * second)
    if source.seekable_keyframes:
        # Near first: far behind the end, MPEG-TS loses the last frame.
        for target in (near, far):
            if target <= survey.start or not source.seek(target):
                continue
            end = max(
                (t + (p.duration or gap) for p in source.packets() if (t := _ts(p)) is not None), default=0
            )
            # A demuxer that claims to seek but stays in the head has a broken index.
            if end >= survey.end and _landing(source, survey.start) is not None:
                survey.end = end
                return
    _read_through(source, survey, gap)


def _read_through(source: Source, survey: _Survey, gap: int) -> None:
    """Learn the end and every key frame from all packets, without decoding."""
    source.warnings.add("not_seekable")
    source.rewind()
    survey.keys = []
    clock = 0
    for ordinal, packet in enumerate(source.packets()):
        ts = _ts(packet)
        clock = ordinal * source.nominal_ticks if not survey.timed else clock if ts is None else ts
        survey.end = max(survey.end, clock + (packet.duration or gap or source.nominal_ticks))
        if ordinal == 0 or (packet.is_keyframe and source.seekable_keyframes):
            survey.keys.append((ordinal, clock))
        source.refuse_frames(ordinal)


def _landing(source: Source, ts: int) -> tuple[int, int] | None:
    """Where to seek for the last key frame at or before ``ts``, and its time; None if there is no way.

    Containers without an index land on any packet: there one seeks further back and reads on. If that does
    not help, the next key frame behind ``ts``.
    """
    behind = None
    for back_s in (0, 2, 10):
        seek_to = ts - round(back_s / source.tick_s)
        if not source.seek(seek_to):
            break
        before = None
        for packet in itertools.islice(source.packets(), _LANDING_PACKETS):
            key = _ts(packet)
            if not packet.is_keyframe or key is None:
                continue
            if key > ts:
                behind = behind or (seek_to, key)
                break
            before = (seek_to, key)
            if back_s == 0:
                break
        if before is not None:
            return before
    return behind


# -- frames in a row ----------------------------------------------------------------------------------------


class _Run:
    """Pictures of successive packets that begin at a key frame."""

    def __init__(self, source: Source, packets: Iterable[Packet[Any]], *, concealed: bool = False) -> None:
        self._source = source
        self._packets = iter(packets)
        self._concealed = concealed
        self._ready: deque[Picture | None] = deque()
        self._key_ts: int | None = None
        self._started = False
        self._ended = False
        self._after: int | None = None
        self._fed: list[int] = []
        self._shown: int | None = None

    def __iter__(self) -> Iterator[Picture | None]:
        """Pictures in display order; None where decoding failed in between."""
        while self._ready or not self._ended:
            while self._ready:
                picture = self._ready.popleft()
                if picture is None or self._wanted(picture):
                    self._shown = self._shown if picture is None else picture.shot.ts
                    yield picture
            if not self._ended:
                self._feed()

    def skip(self, n: int, timed: bool) -> None:
        """Throw away about ``n`` frames, at the least cost."""
        if n <= 0:
            return
        if not timed:
            for _ in itertools.islice(self, n):
                pass
            return
        latest = max((p.shot.ts for p in self._ready if p is not None), default=None)
        self._source.skip_unreferenced(True)
        for _ in range(n):
            ts = self._feed()
            latest = ts if latest is None else latest if ts is None else max(ts, latest)
        self._source.skip_unreferenced(False)
        # Frames up to here may have holes; behind the last packet fed, all come out.
        self._after = latest

    def end_after(self, n: int) -> None:
        """Feed only what the next ``n`` frames need, then drain the decoder.

        Else it holds frames back until later packets, which nobody wants, push them out.
        """
        ahead = list(itertools.islice(self._packets, n + _REORDERED))
        times = [_ts(packet) for packet in ahead]
        if None not in times:
            past = max((t for t in (self._after, self._shown) if t is not None), default=None)
            known = [t for t in (*self._fed, *times) if t is not None and (past is None or t > past)]
            if past is None and times:
                known = [t for t in known if t >= (times[0] or 0)]  # without leading pictures
            needed = sorted(known)[:n]
            used = [i for i, t in enumerate(times) if needed and t is not None and t <= needed[-1]]
            ahead = ahead[: used[-1] + 1] if used else []
            self._packets = iter(ahead)
        else:
            self._packets = itertools.chain(ahead, self._packets)

    def _feed(self) -> int | None:
        """Decode one packet, or the rest at the end; its timestamp."""
        damage = self._source.damage
        packet = next(self._packets, None)
        if packet is None:
            self._ended = True
            self._ready.extend(self._source.decode(None))
            return None
        if self._key_ts is None:
            self._key_ts = _ts(packet)
        pictures = self._source.decode(packet)
        if not pictures and self._source.damage > damage and not self._concealed:
            self._ready.append(None)
        self._ready.extend(pictures)
        ts = _ts(packet)
        if ts is not None:
            self._fed.append(ts)
        return ts

    def _wanted(self, picture: Picture) -> bool:
        if not self._started:
            # Leading pictures of an open GOP refer to frames before the key frame: they come out broken.
            early = self._key_ts is not None and picture.shot.ts < self._key_ts
            if early and not picture.frame.key_frame:
                return False
            self._started = True
        return self._after is None or picture.shot.ts > self._after


@dataclass(slots=True)
class _Clock:
    """Ticks to seconds, and the rate at which frames came."""

    start: int
    tick_s: float
    nominal_ticks: int
    gaps: int = 0
    span: int = 0

    def seconds(self, ts: int) -> float:
        return max(0, ts - self.start) * self.tick_s

    def count(self, earlier: Shot, later: Shot) -> None:
        """Two frames in a row."""
        self.gaps += 1
        self.span += later.ts - earlier.ts

    @property
    def fps(self) -> float | None:
        return self.gaps / (self.span * self.tick_s) if self.span > 0 else None

    def display_ticks(self, shots: Sequence[Shot]) -> int:
        """Display time of the last frame: its own, else the median distance of those before."""
        if shots[-1].duration:
            return shots[-1].duration
        gaps = [b.ts - a.ts for a, b in itertools.pairwise(shots)]
        return round(statistics.median(gaps)) if gaps else self.nominal_ticks


class _Job:
    """State shared by the ways to look at one file."""

    def __init__(self, source: Source, plan: SamplePlan, arrays: ArraySource, *, concealed: bool) -> None:
        self.source = source
        self.plan = plan
        self.arrays = arrays
        self.concealed = concealed
        self.converter = Converter(plan)
        self.first: Shot | None = None
        self.pixel_format = ""
        source.clear_frames()
        self.survey = _survey(source, max(_SHORT_FRAMES, 2 * plan.windows * plan.frames))
        self.clock = _Clock(self.survey.start, source.tick_s, source.nominal_ticks)
        self._refuse()

    def _refuse(self) -> None:
        survey, limits = self.survey, self.source.limits
        duration_s = self.clock.seconds(survey.end)
        if duration_s > limits.max_duration_s:
            raise LimitsExceeded(f"The video is longer than {limits.max_duration_s:g} s.")
        if survey.fps is not None:
            if survey.fps > limits.max_fps * 1.01:
                raise LimitsExceeded(f"The video has more than {limits.max_fps:g} frames a second.")
            self.source.refuse_frames(int(duration_s * survey.fps))

    def usable(self, picture: Picture) -> bool:
        good = picture.clean or self.concealed
        if good and self.first is None:
            self.first, self.pixel_format = picture.shot, picture.frame.format.name
        return good

    def write(self, picture: Picture, arrays: Arrays, row: int) -> None:
        self.converter.write(picture.frame, picture.shot.shape[2], arrays[0][row], arrays[1][row])

    def window(self, shots: Sequence[Shot], arrays: Arrays, end: int | None = None) -> Window:
        """``end``: when the next frame is shown, if known."""
        last = shots[-1]
        if end is None:
            end = last.ts + self.clock.display_ticks(shots)
        return Window(
            start_s=self.clock.seconds(shots[0].ts),
            end_s=self.clock.seconds(end),
            crops_TNHWC=arrays[0],
            frames_THWC=arrays[1],
            boxes_N4=self.converter.boxes(*last.shape),
        )

    def info(self, duration_s: float, fps: float | None, frames_scored: int) -> MediaInfo:
        if self.first is None:
            raise Undecodable("No frame of the video can be decoded.")
        width, height, turn = self.first.shape
        width, height = turn.size(width, height)
        return MediaInfo(
            container=self.source.container_name,
            codec=self.source.codec_name,
            width=width,
            height=height,
            fps=fps,
            duration_s=duration_s,
            frames_scored=frames_scored,
            pixel_format=self.pixel_format,
            rotation=turn.degrees,
        )

    def trail(self, fd: int) -> Trail | None:
        """None where it can't be read: no fact of it is worth the score."""
        try:
            return read_trail(self.source, fd, self.survey.head, self.pixel_format)
        except Exception:  # noqa: BLE001
            return None

    def warnings(self, duration_s: float) -> list[str]:
        found = self.source.warnings | self.converter.warnings
        if self.source.damage:
            found.add("partly_corrupt")
        if self.concealed:
            found.add("concealed_errors")
        claimed_s = self.source.header_duration_s
        if claimed_s is not None and abs(claimed_s - duration_s) > max(1.0, 0.1 * duration_s):
            found.add("header_duration_wrong")
        return sorted(found)

    def refuse_empty(self) -> MediaError:
        """The error for a file that gave no window."""
        frames = self.source.frames_out
        if frames == 0:
            return Undecodable("No frame of the video can be decoded.")
        if self.source.damage:
            return Undecodable(f"Of {frames} frames no {self.plan.frames} in a row can be decoded.")
        if frames == 1 and self.source.container_name == "gif":
            return NoVideoStream("The file is a still picture.")
        return TooShort(f"The video has {frames} frames, a window needs {self.plan.frames}.")


# -- window mode --------------------------------------------------------------------------------------------


def decode_windows(fd: int, plan: SamplePlan, limits: Limits, arrays: ArraySource) -> Clip:
    """Up to ``plan.windows`` windows of the file behind ``fd`` (``plan.thorough`` is ignored).

    ``arrays(i)`` is asked for i below ``plan.windows``. Raises a MediaError.
    """
    began = time.perf_counter()
    source = open_source(fd, limits, threads=_THREADS)
    try:
        job, windows = _attempt(source, plan, arrays, concealed=False)
        if source.damage:
            # What threads make of damage may depend on their timing: once more without.
            source.threads = 1
            source.rewind()
            job, windows = _attempt(source, plan, arrays, concealed=False)
        if not windows and source.damage:
            source.rewind()
            job, windows = _attempt(source, plan, arrays, concealed=True)
        frames_scored = len(windows) * plan.frames
        if not windows:
            window, frames_scored = _brief(job, job.arrays(0))
            windows = [window]
        duration_s = max(job.clock.seconds(job.survey.end), *(w.end_s for w in windows))
        analysed_s = sum(w.end_s - w.start_s for w in windows)
        return Clip(
            info=job.info(duration_s, job.clock.fps, frames_scored),
            windows=windows,
            coverage=_coverage(analysed_s, duration_s),
            warnings=job.warnings(duration_s),
            decode_ms=(time.perf_counter() - began) * 1e3,
            trail=job.trail(fd),
        )
    finally:
        source.close()


def _attempt(
    source: Source, plan: SamplePlan, arrays: ArraySource, *, concealed: bool
) -> tuple[_Job, list[Window]]:
    job = _Job(source, plan, arrays, concealed=concealed)
    return job, _short(job) if job.survey.whole else _long(job)


def _coverage(analysed_s: float, duration_s: float) -> Coverage:
    return Coverage(analysed_s, duration_s, min(1.0, analysed_s / duration_s) if duration_s > 0 else 1.0)


def _brief(job: _Job, slot: Arrays | None) -> tuple[Window, int]:
    """The window of a video with fewer frames than that, filled up by playing it back and forth; its frames.

    Raises the error for a file that gave no window, if there are too few even for this.
    """
    source, T = job.source, job.plan.frames
    if slot is None or source.damage or not _BRIEF_FRAMES <= source.frames_out < T:
        raise job.refuse_empty()
    source.rewind()
    row: list[Shot] = []
    for picture in _Run(source, source.packets()):
        if picture is None or not job.usable(picture) or (row and row[0].shape != picture.shot.shape):
            raise job.refuse_empty()
        job.write(picture, slot, len(row))
        row.append(picture.shot)
    for array in slot:
        array[len(row) :] = array[mirror_index(len(row), T, len(row))]
    for earlier, later in itertools.pairwise(row):
        job.clock.count(earlier, later)
    source.warnings.add("brief")
    return job.window(row, slot), len(row)


def _short(job: _Job) -> list[Window]:
    """Decode all, keep the windows. A second time if the frames are not as many as the packets promised."""
    T, K = job.plan.frames, job.plan.windows
    guess = _spread([sum(not p.is_discard for p in job.survey.head)], K, T)
    windows, runs = _collect(job, job.survey.head, guess)
    starts = _spread(runs, K, T)
    if starts != guess:
        job.source.rewind()
        windows, _ = _collect(job, job.source.packets(), starts)
    return windows


def _spread(runs: list[int], K: int, T: int) -> list[int]:
    """First frames (counted through all runs) of up to K windows of T frames over runs of these lengths."""
    if len(runs) == 1:
        n = min(K, runs[0] // T)
        room = runs[0] - T
        return [room // 2] if n == 1 else [i * room // (n - 1) for i in range(n)]
    slots, first = [], 0
    for length in runs:
        slots += [first + s for s in _spread([length], length // T, T)]
        first += length
    return slots if len(slots) <= K else [slots[(2 * i + 1) * len(slots) // (2 * K)] for i in range(K)]


def _collect(job: _Job, packets: Iterable[Packet[Any]], starts: list[int]) -> tuple[list[Window], list[int]]:
    """Windows at the given frames (usable ones, counted), and the lengths of all runs of usable frames."""
    T = job.plan.frames
    windows: list[Window] = []
    runs = [0]
    pending: list[Shot] = []
    previous: Shot | None = None
    index = 0
    for picture in _Run(job.source, packets, concealed=job.concealed):
        shot = picture.shot if picture is not None and job.usable(picture) else None
        if shot is None or (previous is not None and shot.shape != previous.shape):
            if runs[-1]:
                runs.append(0)
            pending, previous = [], None
        if picture is None or shot is None:
            continue
        if previous is not None:
            job.clock.count(previous, shot)
        previous = shot
        runs[-1] += 1
        if len(windows) < len(starts) and index >= starts[len(windows)]:
            slot = job.arrays(len(windows))
            job.write(picture, slot, len(pending))
            pending.append(shot)
            if len(pending) == T:
                windows.append(job.window(pending, slot))
                pending = []
        index += 1
    return windows, [r for r in runs if r] or [0]


@dataclass(slots=True)
class _Group:
    """Windows that are decoded from one key frame."""

    key: int
    """Time of the key frame."""
    seek_to: int
    """Where to seek to get there, or the packet's ordinal in a file that is read through."""
    targets: list[int]
    limit: int | None = None
    """Time at which the next group begins."""


def _long(job: _Job) -> list[Window]:
    groups = _groups(job)
    gaps = sum(len(g.targets) - 1 for g in groups)
    share = min(1.0, max(0.0, 2.0 - job.source.frame_pixels / 500_000))
    budget = int(_SKIP_FRAMES * share**3) // max(1, gaps)
    through = _reader(job) if job.survey.keys is not None else None
    windows: list[Window] = []
    for group, following in itertools.pairwise(groups):
        group.limit = following.key
    for group in groups:
        if through is not None:
            windows += _take_group(job, through(group), group, budget, len(windows), trim=False)
            continue
        found = _take_group(job, _packets_at(job, group), group, budget, len(windows), trim=True)
        if len(found) < len(group.targets):  # damage, or two packets a frame
            found = _take_group(job, _packets_at(job, group), group, budget, len(windows), trim=False)
        windows += found
    if not windows:
        job.source.rewind()
        run = _Run(job.source, job.source.packets(), concealed=job.concealed)
        window, _ = _take(job, iter(run), job.arrays(0), None, _RESCUE_FRAMES)
        windows = [window] if window is not None else []
    return windows


def _groups(job: _Job) -> list[_Group]:
    survey, K = job.survey, job.plan.windows
    length = survey.end - survey.start
    groups: list[_Group] = []
    for k in range(K):
        target = survey.start + (2 * k + 1) * length // (2 * K)
        if survey.keys is not None:
            seek_to, key = max((k for k in survey.keys if k[1] <= target), default=survey.keys[0])
        else:
            landing = _landing(job.source, target)
            if landing is None and not groups:
                landing = _landing(job.source, survey.start)
            seek_to, key = landing or (survey.start, survey.start)
        if groups and key <= groups[-1].key:
            groups[-1].targets.append(target)
        else:
            groups.append(_Group(key, seek_to, [target]))
    return groups


def _packets_at(job: _Job, group: _Group) -> Iterator[Packet[Any]]:
    job.source.seek(group.seek_to)
    packets = job.source.packets()
    return itertools.dropwhile(lambda p: not p.is_keyframe or (_ts(p) or 0) < group.key, packets)


def _reader(job: _Job) -> Callable[[_Group], Iterator[Packet[Any]]]:
    """Go through the packets once, decoding from the key frames that the groups ask for."""
    source = job.source
    source.rewind()
    numbered = enumerate(source.packets())

    def packets_at(group: _Group) -> Iterator[Packet[Any]]:
        for ordinal, packet in numbered:
            if ordinal >= group.seek_to:
                source.flush(None if job.survey.timed else group.key)
                yield packet
                break
        for _, packet in numbered:
            yield packet

    return packets_at


def _take_group(
    job: _Job, packets: Iterator[Packet[Any]], group: _Group, budget: int, done: int, *, trim: bool
) -> list[Window]:
    """The group's windows; ``budget`` frames may be thrown away between two, ``done`` are there before.

    ``trim``: feed no more packets than the last window needs, taking it that each is a frame.
    """
    T, clock = job.plan.frames, job.clock
    run = _Run(job.source, packets, concealed=job.concealed)
    pictures = iter(run)
    windows: list[Window] = []
    last: Shot | None = None
    for target in group.targets:
        if last is not None:
            rate = clock.fps or job.source.nominal_rate or 25.0
            ahead = int((target - last.ts) * clock.tick_s * rate) - 1
            # Behind frames thrown away a window may begin some B frames late: leave it room before the end.
            room = int((job.survey.end - last.ts) * clock.tick_s * rate) - 2 * T
            run.skip(min(budget, ahead, room), job.survey.timed)
        if trim and target is group.targets[-1]:
            run.end_after(T)
        window, last = _take(job, pictures, job.arrays(done + len(windows)), group.limit, 4 * T + 32)
        if window is None:
            break
        windows.append(window)
    return windows


def _take(
    job: _Job, pictures: Iterator[Picture | None], slot: Arrays, limit: int | None, patience: int
) -> tuple[Window | None, Shot | None]:
    """The next T usable frames in a row, among ``patience`` frames and before the time ``limit``.

    And the last frame of it.
    """
    T = job.plan.frames
    row: list[Shot] = []
    for picture in itertools.islice(pictures, patience):
        if picture is None or not job.usable(picture):
            row = []
            continue
        if limit is not None and picture.shot.ts >= limit:
            break
        if row and row[-1].shape != picture.shot.shape:
            row = []
        job.write(picture, slot, len(row))
        row.append(picture.shot)
        if len(row) == T:
            for earlier, later in itertools.pairwise(row):
                job.clock.count(earlier, later)
            return job.window(row, slot), row[-1]
    return None, None


# -- scan ---------------------------------------------------------------------------------------------------


def scan_windows(
    fd: int, plan: SamplePlan, limits: Limits, arrays: ArraySource, emit: Callable[[Window], None]
) -> Clip:
    """Hand every window of the file to ``emit``, in order and in constant memory; the clip without windows.

    Windows follow each other without a gap. Where a run of frames ends with less than T left, the last window
    reaches back into the one before. ``arrays(i)`` is asked for rising i. Raises a MediaError.
    """
    began = time.perf_counter()
    source = open_source(fd, limits, threads=_THREADS)
    try:
        scan = _Scan(source, plan, arrays, emit, concealed=False)
        scan.go()
        if not scan.emitted and source.damage:
            source.rewind()
            scan = _Scan(source, plan, arrays, emit, concealed=True)
            scan.go()
        job = scan.job
        frames_scored, analysed_s, covered_s = scan.emitted * plan.frames, scan.analysed_s, scan.covered_s
        if not scan.emitted:
            window, frames_scored = _brief(job, scan.slot)
            emit(window)
            analysed_s, covered_s = window.end_s - window.start_s, window.end_s
        # A last frame without a length gets that of its neighbours, whatever rate the header claims.
        duration_s = max(job.clock.seconds(scan.end), covered_s)
        return Clip(
            info=job.info(duration_s, job.clock.fps, frames_scored),
            windows=[],
            coverage=_coverage(analysed_s, duration_s),
            warnings=job.warnings(duration_s),
            decode_ms=(time.perf_counter() - began) * 1e3,
            trail=job.trail(fd),
        )
    finally:
        source.close()


class _Scan:
    def __init__(
        self,
        source: Source,
        plan: SamplePlan,
        arrays: ArraySource,
        emit: Callable[[Window], None],
        *,
        concealed: bool,
    ) -> None:
        self.source, self.plan, self._emit = source, plan, emit
        self.job = _Job(source, plan, arrays, concealed=concealed)
        self.emitted = 0
        self.analysed_s = 0.0
        self.end = self.job.survey.start
        self.covered_s = 0.0
        self._begin_run()
        self.slot: Arrays | None = None
        """Arrays being filled; kept when a run ends before they are full."""

    def _begin_run(self) -> None:
        self._row: list[Shot] = []
        self._full: tuple[list[Shot], Arrays] | None = None
        """The last complete window of this run, held until the next frame tells where it ends."""
        self._full_sent = True

    def go(self) -> None:
        source, job = self.source, self.job
        source.rewind()  # the survey has moved on
        previous: Shot | None = None
        for picture in _Run(source, source.packets(), concealed=job.concealed):
            source.refuse_frames(source.frames_out)
            if picture is not None:
                self._see(picture.shot)
            if picture is None or not job.usable(picture):
                self._finish(None)
                previous = None
                continue
            if previous is not None and previous.shape != picture.shot.shape:
                self._finish(picture.shot.ts)
            elif previous is not None:
                job.clock.count(previous, picture.shot)
            self._add(picture)
            previous = picture.shot
        self._finish(None)

    def _see(self, shot: Shot) -> None:
        """Time goes on with every frame, usable or not."""
        self.end = max(self.end, shot.ts + (shot.duration or self.source.nominal_ticks))
        if self.job.clock.seconds(self.end) > self.source.limits.max_duration_s:
            raise LimitsExceeded(f"The video is longer than {self.source.limits.max_duration_s:g} s.")

    def _add(self, picture: Picture) -> None:
        self._send_full(picture.shot.ts)
        if self.slot is None:
            self.slot = self.job.arrays(self.emitted)
        self.job.write(picture, self.slot, len(self._row))
        self._row.append(picture.shot)
        if len(self._row) == self.plan.frames:
            self._full, self._full_sent = (self._row, self.slot), False
            self._row, self.slot = [], None

    def _send_full(self, end: int | None) -> None:
        if self._full is not None and not self._full_sent:
            self._full_sent = True
            self._send(self.job.window(*self._full, end))

    def _send(self, window: Window) -> None:
        self._emit(window)
        self.emitted += 1
        self.analysed_s += max(0.0, window.end_s - max(window.start_s, self.covered_s))
        self.covered_s = max(self.covered_s, window.end_s)

    def _finish(self, end: int | None) -> None:
        """A run ends: cover what is left by a window that reaches back. ``end``: when the next run begins."""
        self._send_full(end)
        left = len(self._row)
        if left and self._full is not None and self.slot is not None:
            shots, before = self._full
            for new, old in zip(self.slot, before, strict=True):
                new[-left:] = new[:left].copy()
                new[:-left] = old[left:]
            self._send(self.job.window([*shots[left:], *self._row], self.slot, end))
            self.slot = None
        self._begin_run()


# -- probe and whole frames ---------------------------------------------------------------------------------


def probe(fd: int, limits: Limits) -> MediaInfo:
    """Facts of the file by its packets and its first frame. Raises a MediaError."""
    source = open_source(fd, limits)
    try:
        job = _Job(source, SamplePlan(crop_side=0, frame_side=0), lambda _: _no_arrays(), concealed=True)
        source.rewind()
        next(
            (p for p in _Run(source, source.packets(), concealed=True) if p is not None and job.usable(p)),
            None,
        )
        return job.info(job.clock.seconds(job.survey.end), job.survey.fps, 0)
    finally:
        source.close()


def _no_arrays() -> Arrays:
    raise AssertionError("probe() decodes no window")


def iter_rgb(fd: int, limits: Limits) -> Iterator[tuple[UInt8, float]]:
    """Every clean frame as displayed (HWC uint8 RGB, native resolution) with its time in seconds.

    Ends where the size changes. Raises a MediaError.
    """
    source = open_source(fd, limits)
    try:
        survey = _survey(source, _SHORT_FRAMES)
        clock = _Clock(survey.start, source.tick_s, source.nominal_ticks)
        scaler = VideoReformatter()
        source.rewind()
        shape = None
        for picture in _Run(source, source.packets()):
            if picture is None or not picture.clean:
                continue
            shot = picture.shot
            if shape is not None and shot.shape != shape:
                return
            shape = shot.shape
            yield full_rgb(scaler, picture.frame, shape[2]), clock.seconds(shot.ts)
    finally:
        source.close()
