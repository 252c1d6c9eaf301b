"""A decoder process that a file can make misbehave: as a broken decoder would, by its first word, and as a
broken reader of signed manifests would, by its last.
"""

import ctypes
import os
import sys
import time

from specsem.media import _decode, _manifests, _worker

_really = _decode.decode_windows
_really_read = _manifests.ManifestReader.read


def decode_windows(fd, *args):  # type: ignore[no-untyped-def]
    misbehave(os.pread(fd, 16, 0).split(b" ")[0])
    return _really(fd, *args)


def read(self, fd, container):  # type: ignore[no-untyped-def]
    misbehave(os.pread(fd, 16, os.fstat(fd).st_size - 16).rpartition(b"free")[2])
    return _really_read(self, fd, container)


def misbehave(word: bytes) -> None:
    if word == b"crash":
        ctypes.string_at(0)
    if word == b"hang":
        ctypes.CDLL(None).sleep(600)
    if word == b"spin":
        while True:
            time.time()
    if word == b"bloat":
        hoard = []
        while True:
            hoard.append(bytearray(64 << 20))
    if word == b"exit":
        os._exit(0)
    if word == b"write":
        with open("/tmp/specsem-should-not-be-there", "wb") as file:  # noqa: S108, PTH123
            file.write(b"x")
    if word == b"raise":
        raise RuntimeError("a bug of ours")
    if word == b"modules":
        names = [name for name in ("torch", "fastapi", "pydantic", "scipy") if name in sys.modules]
        raise _worker.SpecSemError("loaded: " + " ".join(names))


_decode.decode_windows = decode_windows
_manifests.ManifestReader.read = read  # type: ignore[method-assign]

if __name__ == "__main__":
    _worker.main(sys.argv[1:])
