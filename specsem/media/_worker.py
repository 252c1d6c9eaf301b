"""The decoder's process: takes one job at a time from its socket, is confined first, dies with its parent.

Run as ``python -m specsem.media._worker SOCKET_FD PARENT_PID MEMORY_BYTES``, with the certificates of the
trust list on standard input. It imports PyAV, NumPy and c2pa only.

Jobs (see :mod:`specsem.media._wire`): ``{"op": "probe" | "decode" | "scan" | "frames", "limits": {...},
"plan": {...}}`` with the file's descriptor and, for ``decode``, shared memory for all windows. ``scan`` and
``frames`` get theirs by ``{"op": "buffer"}`` messages. Answers: ``window``, then ``done``; or ``error``. Of
``decode`` and ``scan``, ``clip`` comes before ``done``, which has the signed manifests: whatever they do to
the process, the clip is safe by then.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import mmap
import os
import resource
import signal
import socket
import sys
from dataclasses import asdict
from typing import Any

import numpy as np

from specsem.errors import SpecSemError
from specsem.media import _decode
from specsem.media._manifests import ManifestReader
from specsem.media._wire import Message, receive, send
from specsem.media.types import Clip, Limits, MediaInfo, SamplePlan, Window

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_OPEN_FILES = 32


def confine(parent: int, memory_bytes: int) -> None:
    """Give up everything that decoding does not need. Called after all imports."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        if os.getppid() != parent:  # it died before the first prctl
            os._exit(1)
        mapped = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()  # noqa: SIM115, PTH123
        _limit(resource.RLIMIT_AS, mapped + memory_bytes)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_FSIZE, 0)
    _limit(resource.RLIMIT_NOFILE, _OPEN_FILES)


def _limit(what: int, value: int) -> None:
    with contextlib.suppress(ValueError, OSError):  # already lower, or not known here
        resource.setrlimit(what, (value, value))


def _allow_cpu(seconds: float) -> None:
    """Move the soft limit on: so many seconds of CPU from now on, then SIGXCPU kills us."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    soft = int(used.ru_utime + used.ru_stime + seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))


class Buffers:
    """Shared memory that the parent sends, mapped while it is written."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def wait(self) -> mmap.mmap | bytearray:
        """The next one that the parent grants; blocks until it does."""
        message, fds = receive(self._sock)
        if message.get("op") != "buffer" or len(fds) != 1:
            raise EOFError("the parent lost the thread")
        return map_shared(fds[0])


def map_shared(fd: int) -> mmap.mmap | bytearray:
    """Map all of a shared memory file and close the descriptor."""
    try:
        # All pages in one go: a fault for each costs more.
        size = os.fstat(fd).st_size
        if not size:
            return bytearray()
        return mmap.mmap(fd, size, mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0))
    finally:
        os.close(fd)


class Job:
    """One file."""

    def __init__(
        self, sock: socket.socket, message: Message, fds: list[int], manifests: ManifestReader
    ) -> None:
        self.sock = sock
        self.manifests = manifests
        self.limits = Limits(**message["limits"])
        self.plan = SamplePlan(**message["plan"])
        self.message = message
        self.fds = fds

    def probe(self) -> Message:
        return {"info": asdict(_decode.probe(self.fds[0], self.limits))}

    def decode(self) -> Message:
        plan, step = self.plan, self.plan.window_bytes
        shared = map_shared(self.fds.pop())
        clip = _decode.decode_windows(
            self.fds[0], plan, self.limits, lambda i: plan.window_arrays(shared, i * step)
        )
        return self.finish(clip, {"windows": [window_message(w) for w in clip.windows]})

    def scan(self) -> Message:
        plan, buffers = self.plan, Buffers(self.sock)

        def emit(window: Window) -> None:
            _allow_cpu(self.limits.cpu_s)
            send(self.sock, {"op": "window", "window": window_message(window)})

        def arrays(_: int) -> _decode.Arrays:
            return plan.window_arrays(buffers.wait())

        return self.finish(_decode.scan_windows(self.fds[0], plan, self.limits, arrays, emit), {})

    def finish(self, clip: Clip, more: Message) -> Message:
        """Hand the clip over, then see to what may cost us our life."""
        send(self.sock, {"op": "clip", **clip_message(clip), **more})
        return {"manifests": asdict(self.manifests.read(self.fds[0], clip.info.container))}

    def frames(self) -> Message:
        """Whole frames, one buffer each; the parent learns the size from ``need`` messages."""
        times: list[float] = []
        buffers = Buffers(self.sock)
        first, count = int(self.message["start"]), int(self.message["count"])
        for i, (rgb, pts_s) in enumerate(_decode.iter_rgb(self.fds[0], self.limits)):
            if i < first:
                continue
            if len(times) == count:
                break
            send(self.sock, {"op": "need", "shape": rgb.shape})
            shared = buffers.wait()
            np.ndarray(rgb.shape, np.uint8, shared)[...] = rgb
            times.append(pts_s)
        return {"times": times}


def window_message(window: Window) -> Message:
    return {"start_s": window.start_s, "end_s": window.end_s, "boxes": window.boxes_N4.tolist()}


def clip_message(clip: Clip) -> Message:
    info: MediaInfo = clip.info
    return {
        "info": asdict(info),
        "coverage": asdict(clip.coverage),
        "warnings": clip.warnings,
        "decode_ms": clip.decode_ms,
        "trail": asdict(clip.trail) if clip.trail is not None else None,
    }


def serve(sock: socket.socket, manifests: ManifestReader) -> None:
    """Do jobs until the parent closes the socket."""
    while True:
        message, fds = receive(sock)
        try:
            if message["op"] == "buffer":
                continue  # granted to the job before, which did not need it
            answer = do_job(sock, message, fds, manifests)
        finally:
            for fd in fds:
                os.close(fd)
        send(sock, answer)


def do_job(sock: socket.socket, message: Message, fds: list[int], manifests: ManifestReader) -> Message:
    """The answer to one job; a file's fault becomes an ``error`` answer, a lost parent an exception."""
    try:
        job = Job(sock, message, fds, manifests)
        _allow_cpu(job.limits.cpu_s)
        run: dict[str, Any] = {
            "probe": job.probe,
            "decode": job.decode,
            "scan": job.scan,
            "frames": job.frames,
        }
        return {"op": "done", **run[message["op"]]()}
    except (EOFError, ConnectionError):
        raise
    except SpecSemError as error:
        return {"op": "error", "code": error.code, "message": error.message}
    except MemoryError:
        return {
            "op": "error",
            "code": "limits_exceeded",
            "message": "Decoding needs too much memory.",
            "spent": True,
        }
    except Exception:  # noqa: BLE001  whatever a broken file makes of us, only this file fails
        return {"op": "error", "code": "undecodable", "message": "The video can't be decoded.", "spent": True}


def main(arguments: list[str]) -> None:
    fd, parent, memory_bytes = map(int, arguments)
    sock = socket.socket(fileno=fd)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    manifests = ManifestReader(anchors=sys.stdin.buffer.read())
    confine(parent, memory_bytes)
    gc.freeze()
    with contextlib.suppress(EOFError, ConnectionError):
        send(sock, {"op": "ready"})
        serve(sock, manifests)


if __name__ == "__main__":
    main(sys.argv[1:])
