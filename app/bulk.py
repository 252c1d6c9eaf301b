"""Many files at once: ``specsem bulk``, on Ray Data: actors that decode, actors that score.

Each answer is a line of the journal (``results.parquet.journal``) before anything else is done with it. What
is in there, or in the results already, isn't scored again: a run that was killed goes on where it was. At the
end the journal becomes the Parquet file. A file that can't be scored is a row with its code.
"""

from app.ray_setup import cluster  # first: Ray reads what it sets when it is imported

# isort: split
import contextlib
import json
import logging
import os
import signal
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray
import ray.data

from specsem.errors import FileUnusable, LimitsExceeded, MediaError, NotFound, SpecSemError
from specsem.files import failed, find_sources
from specsem.media import Clip, DecoderPool, Limits, SamplePlan
from specsem.pipeline import assemble, file_sha256
from specsem.policy import Policy, PolicyBook, decide, require_supported
from specsem.provenance import read_trust_list
from specsem.registry import get_model
from specsem.result import FailedFile, ScoredFile

if TYPE_CHECKING:
    from specsem.scorer import ClipVerdict

__all__ = ["COLUMNS", "Tally", "bulk", "list_files"]

logger = logging.getLogger("specsem.app")

CHUNK = 4
"""Files of one task: so many are done again where an actor is lost, and at most so many are one forward."""
ROW_GROUP = 10_000
COPY_BYTES = 1024**2

COLUMNS = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        ("sha256", pa.string()),
        ("verdict", pa.string()),
        ("score", pa.float64()),
        ("logit", pa.float64()),
        ("reasons", pa.list_(pa.string())),
        ("error_code", pa.string()),
        ("error_message", pa.string()),
        ("duration_s", pa.float64()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("codec", pa.string()),
        pa.field("answer", pa.string(), nullable=False),  # all of it, as `specsem score --json` prints it
    ]
)
MADE_BY = b"specsem"
"""Key of the file's metadata under which it says what made it."""


@dataclass(slots=True)
class Tally:
    """What became of the files of a run, those done before included."""

    files: int = 0
    before: int = 0
    scored: int = 0
    failed: int = 0

    @property
    def done(self) -> int:
        """Files with a row."""
        return self.scored + self.failed


# -- which files --------------------------------------------------------------------------------------------


def list_files(source: str) -> dict[str, str]:
    """Name -> where it is, in order. ``source``: a manifest (JSON lines), a folder, or the URL of either.

    Names of a manifest are as it has them, relative to itself; those of a folder relative to the folder, all
    files below it but hidden ones.

    Raises:
        FileUnusable: it can't be read, or is no manifest.
    """
    if "://" in source:
        return _listed_elsewhere(source)
    path = Path(source)
    if path.is_dir():
        found = [entry for entry in find_sources([path]) if entry.kind == "found"]
        return {os.fspath(entry.path.relative_to(path)): os.fspath(entry.path) for entry in found}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise FileUnusable(f"{source} is no folder, and no manifest that can be read.") from error
    return {name: name if "://" in name else os.fspath(path.parent / name) for name in _names(source, lines)}


def _listed_elsewhere(url: str) -> dict[str, str]:
    try:
        system, root = fsspec.url_to_fs(url)
        if system.isdir(root):
            found = sorted(system.find(root))
            names = [path.removeprefix(root).lstrip("/") for path in found]
            return {
                name: system.unstrip_protocol(path)
                for name, path in zip(names, found, strict=True)
                if not any(part.startswith(".") for part in name.split("/"))
            }
        lines = system.cat_file(root).decode("utf-8").splitlines()
    except ImportError as error:  # s3fs, gcsfs
        raise FileUnusable(f"{url}: {error}.") from error
    except Exception as error:  # whatever that store raises
        raise FileUnusable(f"{url} can't be read ({type(error).__name__}).") from error
    base = url.rpartition("/")[0]
    return {name: name if "://" in name else f"{base}/{name}" for name in _names(url, lines)}


def _names(source: str, lines: Sequence[str]) -> Iterator[str]:
    """What a manifest names; the files of a group one by one."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            names = entry["group"] if "group" in entry else [entry["path"]]
            if not all(isinstance(name, str) for name in names):
                raise TypeError
        except (ValueError, KeyError, TypeError) as error:
            raise FileUnusable(f"{source}, line {number}: an entry has a path.") from error
        yield from names


# -- the actors ---------------------------------------------------------------------------------------------


class Decode:
    """Decodes one file after the other, in a process of its own below this one."""

    def __init__(self, plan: SamplePlan, limits: Limits, trust_list: Path | None) -> None:
        logging.getLogger("ray.data").setLevel(logging.ERROR)  # it tells that clips are no columns of Arrow's
        self._plan = plan
        self._limits = limits
        self._pool = DecoderPool(
            workers=1, limits=limits, trust_list=read_trust_list(trust_list) if trust_list else None
        )

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """``name, at`` -> ``name, sha256, clip, answer``: a clip, or the answer that there is none."""
        try:
            with self._at_hand(row["at"]) as path:
                clip = self._pool.decode(path, self._plan)
                return {"name": row["name"], "sha256": file_sha256(path), "clip": clip, "answer": ""}
        except SpecSemError as error:
            answer = failed(row["name"], error)
        except OSError:
            answer = failed(row["name"], NotFound("There is no such file, or it can't be read."))
        except Exception:  # a defect of ours must not take the other files along
            logger.exception("a file failed")
            answer = failed(row["name"], SpecSemError("SpecSem failed on this file; the file may be fine."))
        return {"name": row["name"], "sha256": "", "clip": None, "answer": answer.model_dump_json()}

    @contextlib.contextmanager
    def _at_hand(self, at: str) -> Iterator[Path]:
        """The file itself, or a private copy of one that is elsewhere, while the block runs."""
        if "://" not in at:
            yield Path(at)
            return
        with tempfile.TemporaryDirectory(prefix="specsem-") as folder:
            path = Path(folder, "media")
            try:
                with fsspec.open(at, "rb") as there, path.open("wb") as here:
                    left = self._limits.max_bytes
                    while chunk := there.read(COPY_BYTES):
                        left -= len(chunk)
                        if left < 0:
                            raise LimitsExceeded("The file is larger than what is accepted.")
                        here.write(chunk)
            except FileNotFoundError:
                raise NotFound("There is no such file.") from None
            except MediaError:
                raise
            except Exception as error:  # whatever that store raises
                raise NotFetched(f"The file can't be fetched ({type(error).__name__}).") from error
            yield path


class NotFetched(MediaError):
    """The store that has the file didn't give it."""

    code = "fetch_failed"


class Score:
    """Scores the decoded files of a chunk together."""

    def __init__(self, model: str, device: str, policy: Policy) -> None:
        from specsem.scorer import Scorer  # noqa: PLC0415 - torch takes seconds to import

        self._policy = policy
        self._scorer = Scorer(model, device=device, operating_point=policy.operating_point)
        self._scorer.warm_up()

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """``name, sha256, clip, answer`` -> ``answer``, each as JSON and none empty."""
        answers = [str(answer) for answer in batch["answer"]]
        here = [number for number, clip in enumerate(batch["clip"]) if clip is not None]
        verdicts = self._verdicts([batch["clip"][number] for number in here])
        for number, verdict in zip(here, verdicts, strict=True):
            name, clip = str(batch["name"][number]), batch["clip"][number]
            answer: ScoredFile | FailedFile
            if verdict is None:
                answer = failed(name, SpecSemError("SpecSem failed on this file; the file may be fine."))
            else:
                answer = assemble(
                    path=name,
                    sha256=str(batch["sha256"][number]),
                    clip=clip,
                    verdict=verdict,
                    record=self._scorer.record,
                    timing_ms={"decode": clip.decode_ms},
                )
                decision = decide(self._policy, answer, self._scorer.calibration.policies)
                answer = answer.model_copy(update={"decision": decision})
            answers[number] = answer.model_dump_json()
        return {"answer": np.array(answers, dtype=object)}

    def _verdicts(self, clips: Sequence[Clip]) -> "list[ClipVerdict | None]":
        """One a clip; None where even alone it fails."""
        if not clips:
            return []
        try:
            return list(self._scorer.score_batch(clips))
        except Exception:
            logger.exception("a batch of %d failed", len(clips))
            return [None] if len(clips) == 1 else [self._verdicts([clip])[0] for clip in clips]


# -- what is known already ----------------------------------------------------------------------------------


@dataclass(slots=True)
class _Results:
    """The Parquet file, and the journal of what is not in it yet."""

    out: Path
    made_by: dict[str, str]
    """Model, its checksum and the policy: answers of others don't belong into the same file."""
    known: dict[str, bool] = field(default_factory=dict)
    """Names with a row -> whether they were scored."""

    @property
    def journal(self) -> Path:
        return self.out.with_name(self.out.name + ".journal")

    def open(self) -> None:
        """Read what is there. Raises ``FileUnusable``: it is something else, or of another model."""
        if self.out.exists():
            try:
                file = pq.ParquetFile(self.out)
                self._check(json.loads(file.schema_arrow.metadata[MADE_BY]))
                for batch in file.iter_batches(columns=["path", "verdict"]):
                    for name, verdict in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                        self.known[name] = verdict is not None
            except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
                raise FileUnusable(f"{self.out} is there, and is no result of a bulk run.") from error
        if self.journal.exists():
            self._repair()
            with self.journal.open(encoding="utf-8") as file:
                self._check(json.loads(file.readline()))
                for line in file:
                    answer = json.loads(line)
                    self.known[answer["path"]] = "error" not in answer
        else:
            try:
                self.append([json.dumps(self.made_by)])
            except OSError as error:
                raise FileUnusable(f"{self.journal} can't be written: {error.strerror}.") from error

    def append(self, lines: Iterable[str]) -> None:
        """Put lines into the journal, onto the disk itself."""
        with self.journal.open("a", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in lines)
            file.flush()
            os.fsync(file.fileno())

    def finish(self) -> None:
        """The journal becomes part of the Parquet file: all of it, or after a kill nothing yet."""
        part = self.out.with_name(self.out.name + ".part")
        schema = COLUMNS.with_metadata({MADE_BY: json.dumps(self.made_by)})
        with pq.ParquetWriter(part, schema, compression="zstd") as writer:
            for rows in _in_groups(self._rows(), ROW_GROUP):
                writer.write_table(pa.Table.from_pylist(rows, schema=schema))
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(self.out)
        self.journal.unlink()

    def _rows(self) -> Iterator[dict[str, Any]]:
        """Every row once: a kill between the last two steps of ``finish`` leaves some in both places."""
        seen: set[str] = set()
        if self.out.exists():
            for batch in pq.ParquetFile(self.out).iter_batches():
                for row in batch.to_pylist():
                    seen.add(row["path"])
                    yield row
        with self.journal.open(encoding="utf-8") as file:
            file.readline()
            for line in file:
                row = _row(line.rstrip("\n"))
                if row["path"] not in seen:
                    seen.add(row["path"])
                    yield row

    def _repair(self) -> None:
        """Take off a last line that was cut short."""
        with self.journal.open("rb+") as file:
            content_end = 0
            for line in file:
                if not line.endswith(b"\n"):
                    break
                content_end += len(line)
            file.truncate(content_end)
        if content_end == 0:
            self.append([json.dumps(self.made_by)])

    def _check(self, made_by: Mapping[str, str]) -> None:
        if dict(made_by) != self.made_by:
            raise FileUnusable(
                f"{self.out} was begun with {made_by['model']} {made_by['version']} and the policy "
                f"{made_by['policy']}: name another file, or remove it and its journal."
            )


def _row(answer: str) -> dict[str, Any]:
    said = json.loads(answer)
    error, media = said.get("error") or {}, said.get("media") or {}
    return {
        **{name: said.get(name) for name in ("path", "sha256", "verdict", "score", "logit", "reasons")},
        "error_code": error.get("code"),
        "error_message": error.get("message"),
        **{name: media.get(name) for name in ("duration_s", "width", "height", "codec")},
        "answer": answer,
    }


def _in_groups(rows: Iterator[dict[str, Any]], size: int) -> Iterator[list[dict[str, Any]]]:
    group: list[dict[str, Any]] = []
    for row in rows:
        group.append(row)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


# -- the run ------------------------------------------------------------------------------------------------


def bulk(
    source: str,
    out: Path,
    *,
    model: str,
    device: str = "auto",
    policy: str = "default",
    policy_file: Path | None = None,
    decoders: int = 1,
    scorers: int = 1,
    gpus: float = 0.0,
    address: str | None = None,
    trust_list: Path | None = None,
    on_start: Callable[[Tally], None] = lambda _tally: None,
    on_progress: Callable[[int], None] = lambda _files: None,
) -> Tally:
    """Score all files of ``source`` into ``out``, one row each.

    Args:
        source: See ``list_files``.
        policy: What decides; ``policy_file`` has policies beside those that ship.
        out: The Parquet file. Files that have a row in it keep that.
        decoders: Actors that decode; each keeps a core busy.
        scorers: Actors that score.
        gpus: GPUs of each scorer; 0.5 puts two on one.
        address: A Ray cluster to join, which then reads all files at the same paths; None: one of our own.
        on_start: Told how many files there are, and have a row already.
        on_progress: Told that so many more have theirs.

    Raises:
        FileUnusable: the source can't be read, or ``out`` is something else.
        ModelError, UnknownPolicy, PolicyRefused: the model or the policy can't be used.
    """
    from specsem.scorer import Judge  # noqa: PLC0415 - torch takes seconds to import

    files = list_files(source)
    record = get_model(model)
    record.verified_weights()
    decides = PolicyBook.read(policy_file).policy(policy)
    judge = Judge(record, operating_point=decides.operating_point)
    require_supported(decides, judge.calibration.policies)
    made_by = {"model": record.name, "version": record.version, "sha256": record.sha256}
    results = _Results(out, {**made_by, "policy": str(decides)})
    results.open()
    todo = [{"name": name, "at": at} for name, at in files.items() if name not in results.known]
    known = [results.known[name] for name in files if name in results.known]
    tally = Tally(len(files), len(known), sum(known), len(known) - sum(known))
    on_start(tally)
    if todo:
        with cluster(ray, address, cpus=decoders + scorers):
            signal.signal(signal.SIGTERM, _terminated)  # Ray has just put its own there
            logging.getLogger("ray.data").setLevel(logging.ERROR)
            rows = (
                ray.data.from_items(todo, override_num_blocks=-(-len(todo) // CHUNK))
                .map(
                    Decode,  # type: ignore[arg-type]
                    fn_constructor_args=(judge.plan, Limits(), trust_list),
                    compute=ray.data.ActorPoolStrategy(size=decoders),
                    num_cpus=1,
                )
                .map_batches(
                    Score,
                    fn_constructor_args=(model, device, decides),
                    batch_size=CHUNK,
                    compute=ray.data.ActorPoolStrategy(size=scorers),
                    num_cpus=1,
                    num_gpus=gpus,
                )
            )
            for batch in rows.iter_batches(batch_size=None, prefetch_batches=0):
                answers = [str(answer) for answer in batch["answer"]]
                results.append(answers)
                bad = sum("error" in json.loads(answer) for answer in answers)
                tally.failed += bad
                tally.scored += len(answers) - bad
                on_progress(len(answers))
    results.finish()
    return tally


def _terminated(number: int, _frame: object) -> NoReturn:
    raise SystemExit(128 + number)
