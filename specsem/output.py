"""What the command line prints: JSON lines for machines, a report for people, a progress bar on stderr."""

import contextlib
import json
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
)
from rich.table import Column, Table
from rich.text import Text

from specsem.calibration import Calibration
from specsem.errors import PolicyRefused, SpecSemError
from specsem.policy import Policy, threshold_of
from specsem.registry import ModelRecord
from specsem.replay import Replayed, Skipped
from specsem.result import FailedFile, ScoredFile, Segment, Threshold, Trail
from specsem.text import plural, visible

__all__ = [
    "JsonLines",
    "PictureFolder",
    "ProgressBar",
    "Report",
    "Simulation",
    "calibration_facts",
    "calibrations_table",
    "keys_table",
    "models_table",
    "policies_table",
    "report_facts",
    "rules_table",
    "time_line",
]

if TYPE_CHECKING:
    from specsem.files import Source
    from specsem.views import Picture

STYLES = {"generated": "bold red", "authentic": "bold green", "inconclusive": "bold yellow"}
BARS = "▁▂▃▄▅▆▇█"
UNSEEN = "·"
LINE_EVERY_S = 30.0


class JsonLines:
    """One JSON object a line on standard output, each flushed at once."""

    def __init__(self) -> None:
        self.failures = 0

    def write(self, answer: ScoredFile | FailedFile) -> None:
        """Write one line."""
        self.failures += isinstance(answer, FailedFile)
        sys.stdout.buffer.write(answer.model_dump_json().encode() + b"\n")
        sys.stdout.buffer.flush()

    def close(self) -> None:
        """Nothing is left to say."""


class PictureFolder:
    """The views of files, each in a folder of its own under ``root``: the file's name, its number in front.

    Raises:
        SpecSemError: it can't be written to.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._count = 0

    def write(self, source: "Source", pictures: Sequence["Picture"]) -> None:
        """Write one file's, with a page of their captions."""
        self._count += 1
        folder = self._root / f"{self._count:03}-{visible(source.path.name)}"
        captions = "".join(f"{picture.view.name}.png\n{picture.view.caption}\n\n" for picture in pictures)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for picture in pictures:
                (folder / f"{picture.view.name}.png").write_bytes(picture.png)
            (folder / "captions.txt").write_text(captions, encoding="utf-8")
        except OSError as error:
            raise SpecSemError(
                f"The pictures can't be written to {self._root} ({error.strerror})."
            ) from error


class Report:
    """For people: a row a file, as it becomes known, and a sum; or one file with its details."""

    def __init__(self, *, details: bool) -> None:
        self._details = details
        self._counts: Counter[str] = Counter()
        # Rows are never cut or wrapped: a long path stays whole, for eyes and for grep.
        self._console = Console(soft_wrap=True, highlight=False, markup=False, emoji=False)

    @property
    def failures(self) -> int:
        """How many files could not be scored."""
        return self._counts["not scored"]

    def write(self, answer: ScoredFile | FailedFile) -> None:
        """Print one file."""
        if not self._details and not self._counts:
            self._print(f"{'VERDICT':<12}  SCORE  {'TIME LINE':<16}  FILE", "dim")
        if isinstance(answer, FailedFile):
            self._counts["not scored"] += 1
            self._print_failure(answer)
        else:
            self._counts[answer.verdict] += 1
            if self._details:
                self._print_details(answer)
            else:
                self._print_row(answer)

    def close(self) -> None:
        """Print the sum of more than one file."""
        if not self._details:
            counted = ", ".join(f"{count} {what}" for what, count in self._counts.most_common())
            self._print(f"\n{plural(self._counts.total(), 'file')}{': ' if counted else ''}{counted}")

    def _print(self, line: str | Text, style: str | None = None) -> None:
        self._console.print(line, style=style)

    def _print_failure(self, answer: FailedFile) -> None:
        line = Text.assemble((f"{'not scored':<12}", "magenta"), " " * 27 if not self._details else "  ")
        self._print(line + Text(f"{visible(answer.path)}  {answer.error.code}: {answer.error.message}"))

    def _print_row(self, answer: ScoredFile) -> None:
        line = Text.assemble((f"{answer.verdict:<12}", STYLES[answer.verdict]), f"  {answer.score:.3f}  ")
        line.append(f"{time_line(answer.segments, answer.media.duration_s, 16)}  {visible(answer.path)}")
        if answer.reasons:
            line.append(f"  ({', '.join(answer.reasons)})", "dim")
        self._print(line)

    def _print_details(self, answer: ScoredFile) -> None:
        media, threshold, coverage = answer.media, answer.threshold, answer.coverage
        peak = max(answer.segments, key=lambda segment: segment.score, default=None)
        size = f"{media.width}x{media.height}" + (f", {media.fps:.3g} fps" if media.fps else "")
        self._print(visible(answer.path))
        self._row("verdict", Text(answer.verdict, STYLES[answer.verdict]), f", score {answer.score:.3f} of 1")
        if answer.reasons:
            self._row("because", ", ".join(answer.reasons))
        self._row(
            "thresholds",
            f"generated from {threshold.value:.3f} up, authentic below {threshold.lower:.3f}; false alarms: "
            f"{threshold.max_fpr:.2%} wanted, at most {threshold.fpr_upper95:.2%} with 95% confidence "
            f"({plural(threshold.calibration_n, 'camera clip')})",
        )
        if decision := answer.decision:
            rule = f"by the rule {decision.rule}" if decision.rule else "as no rule applies"
            policy = f", {rule} of the policy {decision.policy}, version {decision.version}"
            self._row("decision", Text(decision.action, "bold"), policy)
        line = time_line(answer.segments, media.duration_s, 48)
        summit = f"  highest {peak.score:.3f} at {_clock(peak.start_s)}" if peak else ""
        self._row("time line", f"0:00 {line} {_clock(media.duration_s)}{summit}")
        self._row(
            "looked at",
            f"{coverage.analysed_s:.1f} s of {coverage.duration_s:.1f} s, "
            f"{plural(media.frames_scored, 'frame')}",
        )
        self._row(
            "media",
            f"{media.codec} in {media.container}, {size}, {media.duration_s:.1f} s",
        )
        self._row("origin", visible(answer.provenance.c2pa.detail or "not checked"))
        if (trail := answer.provenance.trail) and (written := _written(trail)):
            self._row("written", visible(written))
        self._row("model", f"{answer.model.name} {answer.model.version} ({answer.model.sha256[:12]})")
        for warning in answer.warnings:
            self._row("warning", warning)
        for finding in answer.findings:
            self._row("found", finding.text)

    def _row(self, label: str, *parts: str | Text) -> None:
        self._print(Text.assemble((f"  {label:<10}  ", "dim"), *parts))


class _Pace(ProgressColumn):
    """Rate and time left, from all that was done so far: files come in bursts, a moment says nothing."""

    def render(self, task: Task) -> Text:
        """As rich asks for it."""
        each_s: float | None = task.fields["each_s"]
        if each_s is None or task.total is None:
            return Text("")
        return Text(_pace(each_s, task.total - task.completed))


def _pace(each_s: float, left: float) -> str:
    rate = f"{each_s:.1f} s/file" if each_s >= 1 else f"{1 / each_s:.1f} files/s"
    return f"{rate}, {_clock(each_s * left)} left"


class ProgressBar(contextlib.AbstractContextManager["ProgressBar"]):
    """Files done, rate and time left on standard error, if that is a terminal.

    ``lines``: if it is none, a line of it now and then.
    """

    def __init__(self, total: int, *, lines: bool = False) -> None:
        console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            _Pace(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
            # Rows for the same terminal go above the bar; those for a pipe or a file are left alone.
            redirect_stdout=sys.stdout.isatty(),
            redirect_stderr=False,
        )
        self._task = self._progress.add_task("Loading the model", total=total, each_s=None)
        self._total = total
        self._began = self._said = 0.0
        self._done = 0
        self._lines = lines and not console.is_terminal

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def begin(self) -> None:
        """The clock starts."""
        self._began = self._said = time.monotonic()
        self._progress.update(self._task, description="Scoring")

    def advance(self, files: int = 1) -> None:
        """So many more files are done."""
        self._done += files
        self._show(self._done)

    def advance_within(self, fraction: float) -> None:
        """So much of the present file is done."""
        self._show(self._done + fraction)

    def _show(self, completed: float) -> None:
        each_s = (time.monotonic() - self._began) / completed if completed else None
        self._progress.update(self._task, completed=completed, each_s=each_s)
        if self._lines and each_s is not None and time.monotonic() - self._said >= LINE_EVERY_S:
            self._said = time.monotonic()
            print(
                f"{completed:.0f} of {self._total}, {_pace(each_s, self._total - completed)}", file=sys.stderr
            )


def time_line(segments: Sequence[Segment], duration_s: float, width: int) -> str:
    """The scores over the file's length, ``width`` characters; the highest where several share one.

    Full blocks are scores near 1, low ones near 0, and a dot is a stretch that was not looked at.
    """
    cells = [-1.0] * width
    for segment in segments:
        first, last = (
            min(width - 1, int(width * at_s / duration_s)) if duration_s > 0 else 0
            for at_s in (segment.start_s, max(segment.start_s, segment.end_s - 1e-6))
        )
        for cell in range(first, last + 1):
            cells[cell] = max(cells[cell], segment.score)
    return "".join(UNSEEN if score < 0 else BARS[min(7, int(score * 8))] for score in cells)


def _written(trail: Trail) -> str:
    """How the file was written, in one line."""
    facts = [
        *(f"{what} {text}" for what, text in (("encoder", trail.encoder), ("muxer", trail.muxer)) if text),
        f"made at {trail.created_at:%Y-%m-%d %H:%M:%S}" if trail.created_at else "",
        " ".join(filter(None, (trail.profile, trail.pixel_format))),
        f"frames {trail.gop}" if trail.gop else "",
        f"a key frame every {trail.keyframe_interval:g}" if trail.keyframe_interval else "",
        f"brands {' '.join(trail.brands)}" if trail.brands else "",
        plural(trail.edit_lists, "edit list") if trail.edit_lists else "",
        f"tracks {' + '.join(trail.tracks)}" if len(trail.tracks) > 1 else "",
        f"{plural(trail.trailing_bytes, 'byte')} behind its end" if trail.trailing_bytes else "",
    ]
    return ", ".join(filter(None, facts))


def models_table(records: Sequence[ModelRecord]) -> None:
    """Print the registered models."""
    table = Table(
        "name", "version", "weights", "licence", "sha256", "what it is", box=None, header_style="dim"
    )
    for record in records:
        weights = "present" if record.present else "not here"
        table.add_row(
            record.name, record.version, weights, record.licence, record.sha256[:12], record.summary
        )
    Console().print(table)


def policies_table(policies: Sequence[Policy]) -> None:
    """Print policies, a row each."""
    table = Table(
        "policy", "operating point", "rules", "otherwise", "what it is", box=None, header_style="dim"
    )
    for policy in policies:
        rules = ", ".join(f"{rule.name} -> {rule.then}" for rule in policy.rules)
        table.add_row(
            str(policy), policy.operating_point, rules, policy.otherwise, escape(policy.description)
        )
    Console().print(table)


def rules_table(policy: Policy, points: Mapping[str, Threshold]) -> None:
    """Print the rules of a policy, and from which score on they act with a model's operating points."""
    table = Table(
        "rule", "action", "from score", "false alarms", box=None, header_style="dim", title=str(policy)
    )
    for rule in policy.rules:
        acts = rates = "-"
        if rule.when.max_fpr is not None:
            try:
                threshold = threshold_of(rule.when.max_fpr, points)
                acts = f"{threshold.value:.4f}"
                rates = (
                    f"at most {threshold.fpr_upper95:.2%} of {threshold.calibration_n} camera clips, "
                    f"{threshold.max_fpr:.2%} allowed"
                )
            except PolicyRefused:
                rates = "refused"
        table.add_row(rule.name, rule.then, acts, rates)
    table.add_row("(otherwise)", policy.otherwise, "-", "-")
    Console().print(table)


class Simulation:
    """What would be decided of stored answers: a row for each that changes, and the counts."""

    def __init__(self, policy: Policy, against: Policy | None, *, as_json: bool) -> None:
        self._policy = policy
        self._against = against
        self._json = as_json
        self._pairs: Counter[tuple[str, str]] = Counter()
        self._skipped: Counter[str] = Counter()
        self._console = Console(soft_wrap=True, highlight=False, markup=False, emoji=False)

    def write(self, replayed: Replayed | Skipped) -> None:
        """Count one, and print it if something else would be done."""
        if isinstance(replayed, Skipped):
            self._skipped[replayed.why] += 1
            return
        now, was = replayed.now, replayed.was or "nothing"
        self._pairs[was, now.action] += 1
        if not replayed.changed:
            return
        if self._json:
            row = {"id": replayed.stored.id, "was": replayed.was, "now": now.action, "rule": now.rule}
            self._line(row | {"score": replayed.score})
            return
        rule = now.rule or "no rule applies"
        self._console.print(
            f"{was:<8} -> {now.action:<8} {replayed.score:.3f}  {visible(replayed.stored.id)}  ({rule})"
        )

    def close(self) -> None:
        """Print the counts."""
        changed = sum(count for (was, now), count in self._pairs.items() if was != now)
        if self._json:
            counts = [{"was": was, "now": now, "answers": n} for (was, now), n in sorted(self._pairs.items())]
            self._line(
                {
                    "policy": str(self._policy),
                    "against": None if self._against is None else str(self._against),
                    "answers": self._pairs.total(),
                    "changed": changed,
                    "counts": counts,
                    "skipped": dict(self._skipped),
                }
            )
            return
        than = f"under {self._against}" if self._against else "then"
        total = plural(self._pairs.total(), "answer")
        self._console.print(f"{total}, {changed} decided otherwise by {self._policy} than {than}.")
        for (was, now), count in sorted(self._pairs.items()):
            self._console.print(f"  {was:<8} -> {now:<8} {count}")
        for why, count in self._skipped.items():
            reason = SKIPPED[why]
            self._console.print(f"  {plural(count, 'answer')} left out: {reason}")

    def _line(self, fields: Mapping[str, Any]) -> None:
        sys.stdout.write(json.dumps(fields) + "\n")


SKIPPED = {
    "unreadable": "written by another version of SpecSem.",
    "other_weights": "by weights that are registered no longer, whose thresholds nobody knows.",
}


def keys_table(keys: Sequence[Mapping[str, Any]]) -> None:
    """Print the keys of a service, as its ``KeyStore.listed`` gives them."""
    table = Table(
        Column("prefix", no_wrap=True),
        "state",
        "name",
        "tenant",
        "scopes",
        "limits",
        Column("expires", no_wrap=True),
        Column("last used", no_wrap=True),
        box=None,
        header_style="dim",
    )
    for key in keys:
        limits = [key["rate"], key["concurrency"] and f"{key['concurrency']} at a time"]
        table.add_row(
            key["prefix"],
            key["state"],
            escape(key["name"]),
            key["tenant"],
            " ".join(key["scopes"]),
            ", ".join(filter(None, limits)),
            (key["expires_at"] or "never")[:10],
            (key["last_used_at"] or "never")[:10],
        )
    Console().print(table)


def webhooks_table(webhooks: Sequence[Mapping[str, Any]]) -> None:
    """Print the webhooks of a service, as its ``Console.listed`` gives them."""
    table = Table(
        *(Column(name, no_wrap=True) for name in ("id", "state", "tenant")),
        *(Column(name, overflow="fold") for name in ("events", "address", "description")),
        box=None,
        header_style="dim",
    )
    for webhook in webhooks:
        table.add_row(
            webhook["id"],
            "active" if webhook["enabled"] else webhook["disabled_because"],
            webhook["tenant"],
            " ".join(webhook["events"]) or "all",
            escape(webhook["url"]),
            escape(webhook["description"]),
        )
    Console().print(table)


def calibrations_table(calibrations: Sequence[Mapping[str, Any]]) -> None:
    """Print the calibrations of a model, as ``Workbench.listed`` of the service gives them."""
    table = Table(
        *(Column(name, no_wrap=True) for name in ("version", "", "made", "stands on")),
        Column("generated from", overflow="fold"),
        Column("note", overflow="fold"),
        box=None,
        header_style="dim",
    )
    for one in calibrations:
        basis = one["basis"]
        table.add_row(
            str(one["version"]),
            "active" if one["active"] else "",
            (one["created_at"] or "")[:10],
            "" if basis is None else f"{basis['real']:.0f} real, {basis['generated']:.0f} generated",
            ", ".join(f"{name} {limits['value']:.3f}" for name, limits in one["policies"].items()),
            escape(one["note"]),
        )
    Console().print(table)


def calibration_facts(fitted: Calibration, before: Calibration) -> None:
    """Print what a calibration that was fitted from feedback changes, and what it stands on."""
    basis = fitted.basis
    assert basis is not None  # noqa: S101 - it was fitted
    table = Table(
        Column("", no_wrap=True, style="dim"), Column("", overflow="fold"), box=None, show_header=False
    )
    table.add_row("version", f"{fitted.version}, not active" if fitted.version else "none: it was not kept")
    table.add_row("fitted from", f"version {basis.based_on}, by what was said {basis.since} to {basis.until}")
    table.add_row(
        "stands on",
        f"{plural(basis.labels, 'labelled video')} and {plural(basis.groups, 'count')} over {basis.grouped}: "
        f"{basis.real:.1f} camera videos and {basis.generated:.1f} generated ones; "
        f"{plural(basis.left_out, 'observation')} left out",
    )
    weighted = "weighted to be like all that was scored meanwhile" if basis.weighted else "as they are"
    table.add_row("observations", weighted)
    for name, limits in fitted.policies.items():
        was = before.policies[name]
        table.add_row(
            name,
            f"generated from {limits.value:.3f} (was {was.value:.3f}), authentic below {limits.lower:.3f} "
            f"(was {was.lower:.3f}); false alarms: {limits.max_fpr:.2%} wanted, at most "
            f"{limits.fpr_upper95:.2%} with 95% confidence ({limits.calibration_n} camera clips)"
            + ("" if name in basis.refitted else "; kept, for too little is known"),
        )
    scale = f"slope {fitted.slope:.3f} (was {before.slope:.3f}), intercept {fitted.intercept:.3f} (was "
    scale += f"{before.intercept:.3f})"
    table.add_row("scores", scale if "scores" in basis.refitted else "as before: too little is known")
    Console().print(table)


def deliveries_table(deliveries: Sequence[Mapping[str, Any]]) -> None:
    """Print what became of events, as ``Console.deliveries`` of the service gives it."""
    table = Table(
        *(Column(name, no_wrap=True) for name in ("event", "type", "status", "tries")),
        Column("last error", overflow="fold"),
        box=None,
        header_style="dim",
    )
    for delivery in deliveries:
        table.add_row(
            delivery["id"],
            delivery["type"],
            delivery["status"],
            str(delivery["attempts"]),
            escape(delivery["last_error"] or ""),
        )
    Console().print(table)


def report_facts(found: Any) -> None:
    """A report that holds (``app.reports.verifying.Verified``), and what that proves."""
    console = Console(highlight=False, soft_wrap=True)
    by = "a key that you trust" if found.trusted else "the key inside, whose owner is not known"
    console.print(Text(f"Unaltered since it was signed by {by}.", style="bold"))
    for name, value in (
        ("key", found.kid),
        ("issued", found.issued_at),
        ("job", found.job),
        ("video", found.filename),
        ("SHA-256", found.sha256),
        ("verdict", f"{found.verdict}, score {found.score:.4f}, by {found.model}"),
    ):
        console.print(Text(f"  {name:<8} {visible(value)}"))
    if not found.trusted:
        console.print(
            "Anybody can make a key and sign with it. To know who signed, give --keys: the service's "
            "/.well-known/specsem-keys.json as a file, or the key's thumbprint, from a source that you trust."
        )


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
