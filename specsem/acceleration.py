"""The fastest way that works here to run a network, found out at the warm-up by trying.

On a GPU a forward of a few windows is bound by launching its kernels one by one. A CUDA graph launches them
all by one call, at a fixed batch size; ``torch.compile`` makes fewer of them. Either may fail (a driver, a
missing compiler, an operation that can't be captured) or not pay. So each is tried, its answer held against
the plain forward's and its time taken; what fails, says something else or is no faster is not used.
"""

import logging
import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

__all__ = ["PLAIN", "Acceleration", "Backend", "FastestForward", "Forward", "Pixels", "backends_for"]

log = logging.getLogger(__name__)

Pixels = tuple[Tensor, Tensor, Tensor]
"""``crops_BTNHWC, frames_BTHWC, boxes_BN4``."""
Forward = Callable[[Tensor, Tensor, Tensor], Tensor]
"""``Pixels`` to what is said of them, (B, K): a row of numbers a window, the logit first."""
Backend = Callable[[Forward, Pixels], Forward]
"""Makes of a forward a faster one for pixels of these shapes. May raise whatever it likes."""
Acceleration = Literal["auto", "full", "off"]
"""What may be tried: ``auto`` what costs a second or two at the start (CUDA graphs), ``full`` also
``torch.compile``, which takes a minute or more and needs a C++ compiler, ``off`` nothing."""

PLAIN = "plain"
TOLERANCE = 0.02
"""By how much a logit may differ: 0.005 of a score at most, for its slope is 1/4 where it is steepest."""
WORTH_IT = 0.95
"""A way must take less than so much of the plain forward's time."""
_ROUNDS = 5


class FastestForward:
    """A forward that runs each batch in the way that was fastest at its size. Thread-safe once warmed up.

    A batch runs padded to the next larger size, for a row depends on its own window only. Beyond the largest
    size, before the warm-up and where nothing beats it, the plain forward runs.
    """

    def __init__(
        self,
        plain: Forward,
        backends: Mapping[str, Backend],
        *,
        sizes: Sequence[int],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._plain = plain
        self._backends = dict(backends)
        self._sizes = sorted(sizes)
        self._clock = clock
        self._chosen: dict[int, Forward] = {}
        self.ways: dict[int, str] = {}
        """The way in use by batch size; empty before the warm-up and without backends."""

    def warm_up(self, one: Pixels, sizes: Sequence[int] | None = None) -> None:
        """Choose the way for each size, or for ``sizes`` of them. ``one``: a window's pixels, on the device.

        It ends where the plain forward itself fails for want of memory, or of the device: what that means for
        batches is for the caller to see.
        """
        wanted = [size for size in self._sizes if sizes is None or size in sizes]
        for size in wanted if self._backends else ():
            if not self._backends:  # the last one failed at a smaller size
                self.ways[size] = PLAIN
                continue
            pixels = tuple(x.expand(size, *x.shape[1:]).contiguous() for x in one)
            crops, frames, boxes = pixels
            try:
                self._choose(size, (crops, frames, boxes))
            except (torch.OutOfMemoryError, torch.AcceleratorError):
                return

    def _choose(self, size: int, pixels: Pixels) -> None:
        expected = self._plain(*pixels)
        best_s, self.ways[size] = self._seconds(self._plain, pixels) * WORTH_IT, PLAIN
        for name, backend in list(self._backends.items()):
            try:
                forward = backend(self._plain, pixels)
                error = float((forward(*pixels)[:, 0] - expected[:, 0]).abs().max())
                took_s = self._seconds(forward, pixels)
            except Exception as failure:  # noqa: BLE001  whatever it is, the plain forward does the work
                log.warning("%s is not used: %s", name, _first_line(failure))
                del self._backends[name]
                continue
            if not error <= TOLERANCE:  # not a number is no answer either
                log.warning("%s is not used: a logit is off by %.3g", name, error)
                del self._backends[name]
            elif took_s < best_s:
                best_s, self.ways[size], self._chosen[size] = took_s, name, forward

    def _seconds(self, forward: Forward, pixels: Pixels) -> float:
        """Median of a few; the read-back of a number waits for the device."""
        times = []
        for _ in range(_ROUNDS):
            begin = self._clock()
            float(forward(*pixels)[0, 0])
            times.append(self._clock() - begin)
        return statistics.median(times)

    def __call__(self, crops_BTNHWC: Tensor, frames_BTHWC: Tensor, boxes_BN4: Tensor) -> Tensor:
        """What is said of each window, (B, K)."""
        B = len(frames_BTHWC)
        size = next((size for size in self._sizes if size >= B), 0)
        forward = self._chosen.get(size)
        if forward is not None:
            padded = (_padded(x, size) for x in (crops_BTNHWC, frames_BTHWC, boxes_BN4))
            try:
                return forward(*padded)[:B]
            except (torch.OutOfMemoryError, torch.AcceleratorError):
                raise  # the caller's to handle
            except Exception as failure:  # noqa: BLE001  as in the warm-up
                log.warning("%s is not used any more: %s", self.ways[size], _first_line(failure))
                self.ways[size] = PLAIN
                self._chosen.pop(size, None)
        return self._plain(crops_BTNHWC, frames_BTHWC, boxes_BN4)


def _padded(x_BX: Tensor, size: int) -> Tensor:
    missing = size - len(x_BX)
    return x_BX if missing == 0 else torch.cat([x_BX, x_BX.new_zeros(missing, *x_BX.shape[1:])])


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]


def backends_for(device: torch.device, acceleration: Acceleration) -> dict[str, Backend]:
    """What may be tried on this device."""
    if acceleration == "off":
        return {}
    backends: dict[str, Backend] = {}
    if device.type == "cuda":
        graphs = CudaGraphs(device)
        backends["CUDA graph"] = graphs
        if acceleration == "full":
            backends["compiled CUDA graph"] = lambda plain, pixels: graphs(_compiled(plain, pixels), pixels)
    elif acceleration == "full":
        backends["compiled"] = _compiled
    return backends


def _compiled(plain: Forward, pixels: Pixels) -> Forward:
    compiled: Forward = torch.compile(plain, dynamic=False)
    compiled(*pixels)  # here, so that a missing compiler fails here
    return compiled


class CudaGraphs:
    """A backend: captures the forward of each size. All share one stream and one pool of memory.

    What is said is copied out on that stream, so that the next replay can't overtake the copy; the lock only
    covers the enqueuing.
    """

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._pool = torch.cuda.graph_pool_handle()
        self._lock = threading.Lock()

    def __call__(self, plain: Forward, pixels: Pixels) -> Forward:
        """See ``Backend``."""
        given = tuple(x.clone() for x in pixels)
        here = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(here)
        with torch.cuda.stream(self._stream):
            for _ in range(2):  # plans, workspaces and constants come into being outside of the capture
                plain(*given)
        here.wait_stream(self._stream)
        graph = torch.cuda.CUDAGraph()
        # Of other threads, allocations are no error then.
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
            said_BK = plain(*given)

        def replay(*now: Tensor) -> Tensor:
            with self._lock:
                caller = torch.cuda.current_stream(self._stream.device)
                self._stream.wait_stream(caller)
                with torch.cuda.stream(self._stream):
                    for old, new in zip(given, now, strict=True):
                        old.copy_(new)
                        new.record_stream(self._stream)
                    graph.replay()
                    copied_BK = said_BK.clone()
                copied_BK.record_stream(caller)
                caller.wait_stream(self._stream)
                return copied_BK

        return replay
