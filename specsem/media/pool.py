"""Decoding in processes of their own: a file that crashes, hangs or bloats the decoder fails alone.

The parent opens the file and hands the decoder a descriptor; pixels come back in shared memory that the
parent made and sized, and that belongs to the returned arrays alone. File names never reach the decoder.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import select
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

import numpy as np
import numpy.typing as npt

from specsem import errors
from specsem.media._memory import Loan, Memory
from specsem.media._wire import Message, receive, send
from specsem.media.types import (
    Clip,
    Coverage,
    Limits,
    Manifests,
    MediaInfo,
    SamplePlan,
    Trail,
    TrustList,
    UInt8,
    Window,
)

__all__ = ["Death", "DecoderPool", "Scan"]

Death = Literal["wall", "cpu", "memory", "crash", "cancelled", "manifests"]
"""Why a worker had to go before its time: a limit on time, on CPU time, on memory; it crashed or talked
nonsense; nobody wanted its answer any more; or any of it over signed manifests, when the clip was safe."""

StrPath = str | os.PathLike[str]
_T = TypeVar("_T")

_STARTUP_S = 60.0
_START_ATTEMPTS = 4
_CANCEL_POLL_S = 0.02
_JOBS_PER_WORKER = 1000
"""A worker is replaced after so many, against what libraries leak."""
_SCAN_BUFFERS = 3
"""Windows of a scan that may be decoded ahead of the consumer."""
_WORKER_ENV = {
    "LC_ALL": "C.UTF-8",
    "OPENBLAS_NUM_THREADS": "1",  # NumPy must not start threads in it
    # An arena a thread would eat up the address space.
    "MALLOC_ARENA_MAX": "2",
    # Keep freed frame buffers: giving them back after every file costs 4,000 page faults a clip (10 ms).
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(256 << 20),
    "MALLOC_TOP_PAD_": str(16 << 20),
}
_WORKER_MODULE = "specsem.media._worker"
_ROOT = Path(__file__).resolve().parents[2]


class DecoderPool:
    """Up to ``workers`` decoder processes, started at once and reused. Thread-safe; a context manager.

    A call takes a free worker, waiting for one if need be, and blocks until its file is done. All take
    ``cancel``: an event that, once set, makes the call raise :class:`~specsem.errors.Cancelled` within a few
    hundredths of a second. Errors of a file are :class:`~specsem.errors.MediaError`.

    ``on_death`` is told of every worker that a file cost, in the thread of that file's call. Signed manifests
    are checked against ``trust_list``; without one, no signer is trusted.
    """

    def __init__(
        self,
        *,
        workers: int = 2,
        limits: Limits = Limits(),  # noqa: B008  frozen
        on_death: Callable[[Death], None] = lambda _cause: None,
        trust_list: TrustList | None = None,
    ) -> None:
        if workers < 1:
            raise ValueError("workers must be at least 1")
        self.limits = limits
        self.trust_list = trust_list
        self.on_death = on_death
        self.closed = False
        self.memory = Memory(keep=2 * workers + _SCAN_BUFFERS)
        # A worker dies with the thread that started it (PR_SET_PDEATHSIG): so one thread starts them all, and
        # lives as long as the pool.
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="decoder-starter")
        self._live: set[_Worker] = set()
        self._lock = threading.Condition()
        self._idle: deque[Future[_Worker]] = deque()
        """Taken from the right, where warm workers come back; new ones start at the left."""
        for _ in range(workers):
            self._replace()

    def probe(self, path: StrPath, *, cancel: threading.Event | None = None) -> MediaInfo:
        """Facts of a file, from its packets and its first frame."""
        with self._session(path, SamplePlan(crop_side=0, frame_side=0), cancel) as session:
            session.begin("probe")
            done = session.finish()
            return session.parse(lambda: MediaInfo(**done["info"]))

    def decode(self, path: StrPath, plan: SamplePlan, *, cancel: threading.Event | None = None) -> Clip:
        """Windows spread over the file (window mode, whatever ``plan.thorough`` says)."""
        with self._session(path, plan, cancel) as session:
            loan = self.memory.lend(plan.window_bytes * plan.windows)
            session.begin("decode", loan)
            told = session.next("clip")
            clip = session.parse(lambda: _clip(told, _windows(told["windows"], plan, loan.view)))
            return session.with_manifests(clip)

    def scan(self, path: StrPath, plan: SamplePlan, *, cancel: threading.Event | None = None) -> Scan:
        """Every window of the file, one after the other, in constant memory."""
        return Scan(self._session(path, plan, cancel))

    def read_frames(
        self, path: StrPath, max_frames: int, start: int = 0, *, cancel: threading.Event | None = None
    ) -> tuple[UInt8, npt.NDArray[np.float64]]:
        """:func:`specsem.media.read_frames`, in a decoder process."""
        with self._session(path, SamplePlan(), cancel) as session:
            session.begin("frames", start=start, count=max_frames)
            return session.receive_frames(max_frames)

    def close(self) -> None:
        """Kill all workers. Calls under way raise Cancelled, further ones RuntimeError."""
        self.closed = True
        self._starter.shutdown(wait=True)  # workers on order start first, to be killed with the others
        with self._lock:
            live = list(self._live)
        for worker in live:
            worker.kill()
            worker.process.wait()
        while self._idle:
            self._bury(self._idle.pop().result())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- workers --------------------------------------------------------------------------------------------

    def pids(self) -> list[int]:
        """Process ids of the workers that live now."""
        with self._lock:
            return [worker.process.pid for worker in self._live]

    def _start(self) -> _Worker:
        worker = _Worker(self.limits, self.trust_list.anchors if self.trust_list else b"")
        with self._lock:
            self._live.add(worker)
        return worker

    def _bury(self, worker: _Worker) -> None:
        worker.kill()
        worker.bury()
        with self._lock:
            self._live.discard(worker)

    def _session(self, path: StrPath, plan: SamplePlan, cancel: threading.Event | None) -> _Session:
        file = _open_regular(path, self.limits)
        try:
            worker = self._take(cancel)
        except BaseException:
            os.close(file)
            raise
        return _Session(self, worker, file, plan, cancel)

    def _take(self, cancel: threading.Event | None) -> _Worker:
        """A worker that is ready, when one is free. One that died between two jobs is no file's fault."""
        for _ in range(_START_ATTEMPTS):
            future = self._next_idle(cancel)
            try:
                worker = future.result()
            except OSError:  # no memory, no process
                self._replace()
                continue
            try:
                if worker.process.poll() is None and worker.await_ready(cancel):
                    return worker
            except BaseException:
                self._give(worker, fit=False)
                raise
            self._give(worker, fit=False)
        raise errors.SpecSemError("The decoder process does not start.")

    def _next_idle(self, cancel: threading.Event | None) -> Future[_Worker]:
        with self._lock:
            while True:
                if self.closed:
                    raise RuntimeError("the decoder pool is closed")
                if cancel is not None and cancel.is_set():
                    raise errors.Cancelled("The request was cancelled.")
                if self._idle:
                    return self._idle.pop()
                self._lock.wait(_CANCEL_POLL_S if cancel is not None else 0.5)

    def _give(self, worker: _Worker, *, fit: bool) -> None:
        """Back from a job. ``fit``: it answered to the end and may be used again."""
        worker.jobs += 1
        if fit and worker.jobs < _JOBS_PER_WORKER and not self.closed:
            idle: Future[_Worker] = Future()
            idle.set_result(worker)
            with self._lock:
                self._idle.append(idle)
                self._lock.notify()
        else:
            self._bury(worker)
            self._replace()

    def _replace(self) -> None:
        with self._lock, contextlib.suppress(RuntimeError):  # closed
            self._idle.appendleft(self._starter.submit(self._start))
            self._lock.notify()


class _Worker:
    """One decoder process and our end of its socket."""

    def __init__(self, limits: Limits, anchors: bytes) -> None:
        ours, theirs = socket.socketpair()
        with theirs, tempfile.TemporaryFile() as stdin:
            stdin.write(anchors)
            stdin.seek(0)
            arguments = [theirs.fileno(), os.getpid(), limits.memory_bytes]
            self.process = subprocess.Popen(
                [sys.executable, "-s", "-P", "-m", _WORKER_MODULE, *map(str, arguments)],
                stdin=stdin,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                cwd="/",
                env={"PYTHONPATH": str(_ROOT), **_WORKER_ENV},
            )
        self.sock = ours
        self.jobs = 0
        self._ready = False

    def await_ready(self, cancel: threading.Event | None) -> bool:
        """Wait for the imports of a new process; False if it died of them."""
        if not self._ready:
            try:
                self.wait(_STARTUP_S, cancel)
                receive(self.sock)
            except (EOFError, OSError, ValueError):
                return False
            self._ready = True
        return True

    def wait(self, seconds: float, cancel: threading.Event | None) -> None:
        """Until it has something to say. Raises TimeoutError, Cancelled.

        What is then read from the socket keeps to the same time.
        """
        end = time.monotonic() + seconds
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        while True:
            left_s = end - time.monotonic()
            if left_s <= 0:
                raise TimeoutError
            if cancel is not None and cancel.is_set():
                raise errors.Cancelled("The request was cancelled.")
            if poll.poll(1e3 * (left_s if cancel is None else min(left_s, _CANCEL_POLL_S))):
                self.sock.settimeout(left_s)
                return

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()

    def bury(self) -> int:
        """Reap it and free what it held; its exit status (-N: died of signal N)."""
        status = self.process.wait()
        self.sock.close()
        return status


class _Session:
    """One file on one worker: owns the descriptor, watches the clock, gives the worker back, fit or not."""

    def __init__(
        self, pool: DecoderPool, worker: _Worker, file: int, plan: SamplePlan, cancel: threading.Event | None
    ) -> None:
        self._pool, self._worker, self._file = pool, worker, file
        self.plan = plan
        self.memory = pool.memory
        self._cancel = cancel
        self._waited_s = 0.0
        self.allowed_s = pool.limits.wall_s
        self._fit = False
        self._death: Death = "cancelled"
        """Why the worker goes, unless it is fit at the end."""
        self._open = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """A worker that is still at it is killed and replaced."""
        if self._open:
            self._open = False
            os.close(self._file)
            self._pool._give(self._worker, fit=self._fit)
            if not self._fit and not self._pool.closed:
                self._pool.on_death(self._death)

    def begin(self, op: str, loan: Loan | None = None, **more: int) -> None:
        message = {"op": op, "limits": asdict(self._pool.limits), "plan": asdict(self.plan), **more}
        self._send(message, [self._file] if loan is None else [self._file, loan.fd])

    def grant(self, loan: Loan) -> None:
        """Let the worker fill this memory."""
        self._send({"op": "buffer"}, [loan.fd])

    def finish(self) -> Message:
        """The answer that ends the job."""
        return self.next("done")

    def next(self, *expected: str) -> Message:
        """The next answer. Raises what went wrong: the file's error, a dead worker, time, cancellation.

        Only the time spent here counts, not what the caller does between.
        """
        began = time.monotonic()
        try:
            self._worker.wait(self.allowed_s - self._waited_s, self._cancel)
            message, fds = receive(self._worker.sock)
        except TimeoutError:
            self._death = "wall"
            raise errors.DecodeTimeout(f"Decoding took longer than {self.allowed_s:g} s.") from None
        except (EOFError, OSError, ValueError):
            raise self._post_mortem() from None
        finally:
            self._waited_s += time.monotonic() - began
        for fd in fds:  # it has none to give
            os.close(fd)
        op = message.get("op")
        if op == "error":
            self._fit = not message.get("spent")
            self._death = "memory" if message.get("code") == errors.LimitsExceeded.code else "crash"
            raise errors.media_error(str(message.get("code")), str(message.get("message")))
        if op not in expected:
            raise self._confused()
        self._fit = op == "done"
        return message

    def with_manifests(self, clip: Clip) -> Clip:
        """The clip with what the worker finds of signed manifests: within their own time, or failed.

        Raises: Cancelled. Nothing else is worth the clip.
        """
        began = time.monotonic()
        self._waited_s, self.allowed_s = 0.0, self._pool.limits.c2pa_s
        try:
            done = self.finish()
            manifests = self.parse(lambda: Manifests(**done["manifests"]))
        except errors.MediaError as error:
            slow = isinstance(error, errors.DecodeTimeout)
            self._death = "manifests"
            manifests = Manifests("failed", "it took too long" if slow else "the reader broke down")
        waited_ms = (time.monotonic() - began) * 1e3
        return replace(clip, manifests=manifests, manifests_ms=waited_ms, trust_list=self._pool.trust_list)

    def receive_frames(self, max_frames: int) -> tuple[UInt8, npt.NDArray[np.float64]]:
        memory = Memory(keep=0)
        frames: list[UInt8] = []
        while (message := self.next("need", "done"))["op"] == "need":
            height, width = self.parse(partial(_height_width, message))
            if len(frames) == max_frames or not 0 < height * width <= self._pool.limits.max_pixels:
                raise self._confused()
            loan = memory.lend(height * width * 3)
            self.grant(loan)
            frames.append(np.ndarray((height, width, 3), np.uint8, loan.view))
        if not frames:
            return np.zeros((0, 0, 0, 3), np.uint8), np.zeros(0)
        return self.parse(lambda: (np.stack(frames), np.array(message["times"], np.float64)))

    def parse(self, read: Callable[[], _T]) -> _T:
        """What ``read`` makes of an answer. A worker that a file took over may say anything."""
        try:
            return read()
        except (KeyError, IndexError, TypeError, ValueError, AttributeError):
            raise self._confused() from None

    def _confused(self) -> errors.MediaError:
        self._fit = False
        self._death = "crash"
        return errors.Undecodable("The decoder lost the thread.")

    def _send(self, message: Message, fds: list[int]) -> None:
        try:
            send(self._worker.sock, message, fds)
        except OSError:
            raise self._post_mortem() from None

    def _post_mortem(self) -> errors.SpecSemError:
        """Why the worker is dead."""
        # It may have closed its socket only; and a dying process closes it before it can be reaped.
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._worker.process.wait(1.0)
        self._worker.kill()
        status = self._worker.process.wait()
        if self._pool.closed:
            return errors.Cancelled("The decoder pool was closed.")
        if status == -signal.SIGXCPU:
            self._death = "cpu"
            return errors.DecodeTimeout(f"Decoding took more than {self._pool.limits.cpu_s:g} s of CPU time.")
        self._death = "crash"
        return errors.Undecodable("The decoder died of this file.")


class Scan(Iterator[Window]):
    """The windows of one file, in order; at most a few are decoded ahead. A context manager: close it early
    or read it to the end. Not thread-safe. Then :attr:`clip` has the facts (its ``windows`` are empty).
    """

    clip: Clip
    """Set when the last window has been read."""

    def __init__(self, session: _Session) -> None:
        self._session = session
        self._plan = session.plan
        self._wall_s = session.allowed_s
        self._granted: deque[Loan] = deque()
        try:
            session.begin("scan")
            for _ in range(_SCAN_BUFFERS):
                self._grant()
        except BaseException:
            session.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop; a worker that has not finished is killed and replaced."""
        self._session.close()

    def __next__(self) -> Window:
        if not self._session._open:
            raise StopIteration
        try:
            message = self._session.next("window", "clip")
            if message["op"] == "clip":
                clip = self._session.parse(lambda: _clip(message, []))
                self.clip = self._session.with_manifests(clip)
                self.close()
                raise StopIteration
            view = self._granted.popleft().view
            (window,) = self._session.parse(lambda: _windows([message["window"]], self._plan, view))
            # The clock runs with the video: so much time for every minute of it that was really decoded.
            self._session.allowed_s = self._wall_s * (1.0 + window.end_s / 60.0)
            self._grant()
        except StopIteration:
            raise
        except BaseException:
            self.close()
            raise
        return window

    def _grant(self) -> None:
        loan = self._session.memory.lend(self._plan.window_bytes)
        self._session.grant(loan)
        self._granted.append(loan)


def _open_regular(path: StrPath, limits: Limits) -> int:
    """A descriptor of a regular file. A pipe or a device is refused without blocking on it."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except (OSError, ValueError):
        raise errors.NotFound("There is no such file, or it can't be read.") from None
    try:
        facts = os.fstat(fd)
        if not stat.S_ISREG(facts.st_mode):
            raise errors.NotAVideo("The path is not a regular file.")
        if facts.st_size == 0:
            raise errors.NotAVideo("The file is empty.")
        if facts.st_size > limits.max_bytes:
            raise errors.LimitsExceeded(f"The file has more than {limits.max_bytes} bytes.")
    except BaseException:
        os.close(fd)
        raise
    return fd


def _height_width(facts: Message) -> tuple[int, int]:
    return int(facts["shape"][0]), int(facts["shape"][1])


def _windows(facts: list[dict[str, Any]], plan: SamplePlan, view: mmap.mmap | bytes) -> list[Window]:
    """Windows that lie one behind the other in shared memory; ValueError if there are more than fit."""
    return [
        Window(
            float(window["start_s"]),
            float(window["end_s"]),
            *plan.window_arrays(view, i * plan.window_bytes),
            np.array(window["boxes"], np.float32).reshape(-1, 4),
        )
        for i, window in enumerate(facts)
    ]


def _clip(facts: Message, windows: list[Window]) -> Clip:
    return Clip(
        info=MediaInfo(**facts["info"]),
        windows=windows,
        coverage=Coverage(**facts["coverage"]),
        warnings=[str(w) for w in facts["warnings"]],
        decode_ms=float(facts["decode_ms"]),
        trail=Trail(**facts["trail"]) if facts["trail"] is not None else None,
    )
