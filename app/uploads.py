"""Streaming uploads: counted, hashed and written while they arrive, each into one private folder.

Starlette's own forms spool the whole body before a route runs, so a limit there comes too late. Here
python-multipart's parser (already what FastAPI stands on) is fed chunk by chunk, and the answer to one byte
too many goes out while the rest is still on the way.
"""

import asyncio
import fcntl
import functools
import secrets
import shutil
import unicodedata
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from io import FileIO
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from app.admission import Permit
from app.digests import Digests
from app.disconnect import to_the_end
from app.problems import Problem, too_large
from app.settings import Settings

__all__ = [
    "FORM_OVERHEAD_BYTES",
    "Inbox",
    "Pace",
    "Sink",
    "Upload",
    "arriving_chunks",
    "check_announced_length",
    "clean_name",
    "content_type",
    "disk_full",
]

MEDIA_FILE = "media"
BUFFER_BYTES = 1024 * 1024
SMALL_BYTES = 64 * 1024
"""So much is sooner written, and removed again, than handed to a thread."""
FORM_OVERHEAD_BYTES = 64 * 1024  # boundaries, part headers and the small fields
MAX_PARTS = 16
MAX_FIELD_BYTES = 4096
MAX_NAME_CHARACTERS = 200
PRIVATE = 0o700


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that arrived whole. ``name`` is the client's, for showing only; ``path`` owes nothing to it."""

    folder: Path
    path: Path
    name: str
    bytes: int
    sha256: str
    fields: dict[str, str]


@dataclass(frozen=True, slots=True)
class Pace:
    """How slowly a body may arrive."""

    idle_s: float
    """Within so many seconds there must come ..."""
    min_bytes_per_s: int
    """... so many bytes for each of them, and be it one."""
    timeout_s: float
    """All of it, whatever its pace."""

    @classmethod
    def of(cls, settings: Settings) -> "Pace":
        """As configured."""
        return cls(settings.upload_idle_s, settings.upload_min_bytes_per_s, settings.upload_timeout_s)

    @property
    def bytes_each_idle(self) -> float:
        """What must arrive in ``idle_s``."""
        return max(1.0, self.min_bytes_per_s * self.idle_s)


def content_type(request: Request) -> tuple[str, dict[bytes, bytes]]:
    """The body's media type in lower case, empty where none was sent, and its parameters."""
    return _parsed_type(request.headers.get("content-type"))


@functools.lru_cache(maxsize=64)  # each request asks several times
def _parsed_type(header: str | None) -> tuple[str, dict[bytes, bytes]]:
    kind, options = parse_options_header(header)
    return kind.decode("latin-1"), options


def check_announced_length(request: Request, max_bytes: int) -> int | None:
    """The Content-Length in bytes, or None where the body is chunked.

    Raises:
        Problem: ``limits_exceeded`` (413) before a byte is read; 415 for a compressed body.
    """
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Problem("unsupported_media_type", "Send the file as it is: compressed bodies are not accepted.")
    announced = request.headers.get("content-length")
    if announced is None:
        return None
    if not announced.isascii() or not announced.isdigit() or len(announced) > 18:
        raise Problem("malformed_body", "The Content-Length is not a number.")
    length = int(announced)
    is_form = content_type(request)[0] == "multipart/form-data"
    if length > max_bytes + (FORM_OVERHEAD_BYTES if is_form else 0):
        raise too_large(max_bytes)
    return length


def clean_name(name: str) -> str:
    """A client's file name fit for showing: no folders, no control or bidi characters, at most 200 long."""
    last = PurePosixPath(name.replace("\\", "/")).name
    shown = "".join(char for char in last if unicodedata.category(char)[0] != "C")
    shown = shown.strip()[:MAX_NAME_CHARACTERS]
    return shown if shown.strip(".") else "video"


class Inbox:
    """Where files arrive: one folder per server process, one folder inside it per upload.

    A process holds a lock on its folder, so that the next one to start knows which are left over.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._lock: BinaryIO | None = None
        self._own = root

    def open(self) -> None:
        """Make this process's folder and remove what dead ones left behind."""
        self._root.parent.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
        self._root.mkdir(mode=PRIVATE, exist_ok=True)
        for lock_path in self._root.glob("*.lock"):
            with lock_path.open("ab") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    continue  # its process lives
                shutil.rmtree(lock_path.with_suffix(""), ignore_errors=True)
                lock_path.unlink(missing_ok=True)
        while self._lock is None:
            self._own = self._root / secrets.token_hex(8)
            lock_path = self._own.with_suffix(".lock")
            lock = lock_path.open("ab")
            fcntl.flock(lock, fcntl.LOCK_EX)
            if lock_path.exists():
                self._lock = lock
            else:  # a process that started just now took it for a left-over: once more
                lock.close()
        self._own.mkdir(mode=PRIVATE)

    def close(self) -> None:
        """Remove this process's folder and whatever is in it."""
        shutil.rmtree(self._own, ignore_errors=True)
        if self._lock is not None:
            self._own.with_suffix(".lock").unlink(missing_ok=True)
            self._lock.close()
            self._lock = None

    @asynccontextmanager
    async def receive(
        self, request: Request, *, max_bytes: int, permit: Permit, name: str, pace: Pace
    ) -> AsyncIterator[Upload]:
        """The file of a multipart form (field ``file``) or of a raw body, which is shown as ``name``.

        Its folder goes when the block ends, however it ends, unless somebody has moved it away.

        Raises:
            Problem: 413 as soon as the limit is passed, 408 when it stalls, 400 or 422 for a bad form, 400
                where the body isn't what its digest says.
            starlette.requests.ClientDisconnect: the client left.
        """
        kind, options = content_type(request)
        digests = Digests.announced(request.headers)
        folder = self._own / secrets.token_hex(16)
        try:
            folder.mkdir(mode=PRIVATE)
        except OSError as error:
            raise disk_full() from error
        try:
            with FileIO(folder / MEDIA_FILE, "x") as file:
                sink = Sink(file, max_bytes, permit)
                chunks = digests.checked(arriving_chunks(request, pace))
                if kind == "multipart/form-data":
                    fields = await _read_form(chunks, options, sink)
                else:
                    sink.name = name
                    fields = {}
                    async for chunk in chunks:
                        sink.take(chunk)
                        await sink.flush_if_full()
                await sink.flush()
            if sink.bytes == 0:
                raise Problem("not_a_video", "The file is empty.")
            yield Upload(
                folder=folder,
                path=folder / MEDIA_FILE,
                name=clean_name(sink.name),
                bytes=sink.bytes,
                sha256=sink.digest(),
                fields=fields,
            )
        finally:
            await _remove(folder, permit.bytes)


async def _remove(folder: Path, size: int) -> None:
    """Remove an upload's folder, if it is still there, and the so many bytes in it."""
    if size <= SMALL_BYTES:
        _remove_now(folder)
    else:
        # In a thread: gigabytes take their time. Shielded: who leaves twice still leaves nothing.
        await asyncio.shield(asyncio.to_thread(_remove_now, folder))


def _remove_now(folder: Path) -> None:
    try:
        (folder / MEDIA_FILE).unlink(missing_ok=True)
        folder.rmdir()
    except OSError:  # moved away, or more is in it
        shutil.rmtree(folder, ignore_errors=True)


def disk_full() -> Problem:
    """The disk itself refuses (503)."""
    return Problem("storage_full", "The upload could not be written to disk.")


async def arriving_chunks(request: Request, pace: Pace) -> AsyncIterator[bytes]:
    """The body as it arrives, at its pace. Only the client's time counts: a slow disk is no fault of its."""
    stream = request.stream()
    loop = asyncio.get_running_loop()
    deadline = loop.time() + pace.timeout_s
    left_s, owed = pace.idle_s, pace.bytes_each_idle
    while True:
        asked = loop.time()
        try:
            async with asyncio.timeout_at(min(asked + left_s, deadline)):
                chunk = await anext(stream)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise Problem("upload_timeout", "The upload stalled or took too long.") from None
        left_s -= loop.time() - asked
        owed -= len(chunk)
        if owed <= 0:
            left_s, owed = pace.idle_s, pace.bytes_each_idle
        if chunk:
            yield chunk


class Sink:
    """Counts, hashes and writes what arrives; the last two in a thread, a megabyte at a time."""

    def __init__(
        self,
        file: FileIO,
        max_bytes: int,
        permit: Permit,
        too_many: Callable[[int], Problem] = too_large,
    ) -> None:
        """``too_many`` makes the problem that is raised beyond ``max_bytes``."""
        self._file = file
        self._max_bytes = max_bytes
        self._permit = permit
        self._too_many = too_many
        self._buffer = bytearray()
        self._hash = sha256()
        self.bytes = 0
        self.name = ""

    def take(self, data: bytes) -> None:
        """Take a chunk over, which is written with the next flush. Raises ``Problem`` beyond a limit."""
        self.bytes += len(data)
        if self.bytes > self._max_bytes:
            raise self._too_many(self._max_bytes)
        self._permit.grow(self.bytes)
        self._buffer += data

    async def flush_if_full(self) -> None:
        """Flush where a megabyte waits."""
        if len(self._buffer) >= BUFFER_BYTES:
            await self.flush()

    async def flush(self) -> None:
        """Write what waits. Raises ``Problem`` ``storage_full``."""
        data, self._buffer = bytes(self._buffer), bytearray()
        try:
            if len(data) <= SMALL_BYTES:
                self._write(data)
            else:
                await to_the_end(asyncio.to_thread(self._write, data))
        except OSError as error:
            raise disk_full() from error

    def _write(self, data: bytes) -> None:
        self._hash.update(data)
        left = memoryview(data)
        while left:
            left = left[self._file.write(left) :]

    def digest(self) -> str:
        """SHA-256 of all that was flushed, in hexadecimal."""
        return self._hash.hexdigest()


@dataclass(slots=True)
class _Part:
    """One part of a form while it arrives."""

    headers: dict[str, str] = field(default_factory=dict)
    header_name: bytearray = field(default_factory=bytearray)
    header_value: bytearray = field(default_factory=bytearray)
    name: str = ""
    is_file: bool = False
    value: bytearray = field(default_factory=bytearray)


class _Form:
    """Receives the parser's callbacks. One file, in the field ``file``; other fields are small texts."""

    def __init__(self, boundary: bytes, sink: Sink) -> None:
        self._sink = sink
        self._part = _Part()
        self._parts = 0
        self.has_file = False
        self.complete = False
        self.fields: dict[str, str] = {}
        self.parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": self._header_field,
                "on_header_value": self._header_value,
                "on_header_end": self._header_end,
                "on_headers_finished": self._headers_finished,
                "on_part_data": self._data,
                "on_part_end": self._end,
                "on_end": self._complete,
            },
        )

    def _begin(self) -> None:
        self._part = _Part()
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise Problem("malformed_body", "The form has too many parts.")

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._part.header_name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._part.header_value += data[start:end]

    def _header_end(self) -> None:
        part = self._part
        part.headers[part.header_name.decode("latin-1").lower()] = part.header_value.decode("latin-1")
        part.header_name.clear()
        part.header_value.clear()

    def _headers_finished(self) -> None:
        part = self._part
        _, options = parse_options_header(part.headers.get("content-disposition"))
        part.name = options.get(b"name", b"").decode("utf-8", "replace")
        if part.name != "file":
            return
        if self.has_file:
            raise Problem("malformed_body", "The form has more than one file; send one a request.")
        part.is_file = self.has_file = True
        self._sink.name = options.get(b"filename", b"").decode("utf-8", "replace")

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._part.is_file:
            self._sink.take(data[start:end])
            return
        self._part.value += data[start:end]
        if len(self._part.value) > MAX_FIELD_BYTES:
            raise Problem(
                "malformed_body", "A field of the form is too long; the video goes in the field `file`."
            )

    def _end(self) -> None:
        if not self._part.is_file:
            self.fields[self._part.name] = self._part.value.decode("utf-8", "replace")

    def _complete(self) -> None:
        self.complete = True


async def _read_form(chunks: AsyncIterator[bytes], options: dict[bytes, bytes], sink: Sink) -> dict[str, str]:
    """Feed the form's parser; the file goes to ``sink``, the other fields are returned."""
    boundary = options.get(b"boundary", b"")
    received = 0
    try:
        if not boundary:
            raise Problem("malformed_body", "The form's Content-Type names no boundary.")
        form = _Form(boundary, sink)
        async for chunk in chunks:
            form.parser.write(chunk)
            received += len(chunk)
            if received - sink.bytes > FORM_OVERHEAD_BYTES:  # the parser skips what follows the last boundary
                raise Problem("malformed_body", "The form has too much in it that is not the file.")
            await sink.flush_if_full()
        form.parser.finalize()
    except FormParserError as error:
        raise Problem(
            "malformed_body", "The form could not be read: it does not keep to its boundary."
        ) from error
    if not form.complete:
        raise Problem("malformed_body", "The form ends too early.")
    if not form.has_file:
        raise Problem("missing_file", "The form has no field named `file`.")
    return form.fields
