"""Memory shared with decoder processes: anonymous, sized by the parent, used again once nobody looks at it.

Fresh pages cost more than anything else about isolation (8 ms for the 14 MB of a clip on a virtual machine),
so a buffer whose arrays are all gone goes to the next clip of the same size.
"""

from __future__ import annotations

import mmap
import os
import tempfile
import weakref
from collections import deque

__all__ = ["Loan", "Memory"]


class Memory:
    """Keeps up to ``keep`` idle buffers. Thread-safe."""

    def __init__(self, keep: int) -> None:
        self._idle: deque[_Buffer] = deque(maxlen=keep)

    def lend(self, size: int) -> Loan:
        """A buffer of ``size`` bytes with arbitrary content, the caller's until it drops the loan's view."""
        for _ in range(len(self._idle)):
            try:
                buffer = self._idle.popleft()
            except IndexError:  # another thread was faster
                break
            if buffer.size == size:
                return Loan(buffer, self._idle)
            self._idle.append(buffer)
        return Loan(_Buffer(size), self._idle)


class Loan:
    """``view``: the bytes, read-only. Arrays on it keep the buffer lent after the loan itself is gone."""

    def __init__(self, buffer: _Buffer, home: deque[_Buffer]) -> None:
        self._buffer = buffer
        self.fd = buffer.fd
        self.view: mmap.mmap | bytes = b""
        if buffer.size:
            # NumPy's views refer to the mapping itself, whatever object led to it: its end is theirs.
            self.view = mmap.mmap(buffer.fd, buffer.size, mmap.MAP_SHARED, mmap.PROT_READ)
            weakref.finalize(self.view, home.append, buffer).atexit = False


class _Buffer:
    """A nameless file in memory: nothing is left behind whoever is killed."""

    def __init__(self, size: int) -> None:
        self.size = size
        if hasattr(os, "memfd_create"):
            self.fd = os.memfd_create("specsem-window", os.MFD_CLOEXEC)
        else:
            with tempfile.TemporaryFile() as file:
                self.fd = os.dup(file.fileno())
        try:
            # The worker may not grow any file.
            os.ftruncate(self.fd, size)
        except BaseException:
            os.close(self.fd)
            raise

    def __del__(self) -> None:
        os.close(self.fd)
