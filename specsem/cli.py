"""The command line. Nothing heavy is imported before a command needs it: ``specsem --help`` answers at once.

Exit codes: 0 done (``score``: every file was scored); 1 some file could not be scored, or what is checked
(``verify``, ``audit verify``) does not hold; 2 usage, or a model,
device, policy or setting that can't be used; 70 a defect of ours (``SPECSEM_DEBUG=1`` shows its trace);
130 interrupted; 143 terminated.

Some commands belong to packages that ``specsem`` must not import: the service lies above this package, and
training and evaluation beside it (design: imports run one way). They are named as strings in
`COMMANDS_ELSEWHERE`, looked up when they are typed, and tests/test_project.py holds that this table is the
only such place.
"""

import contextlib
import importlib
import json
import logging
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand

from specsem import __version__
from specsem.errors import Refused, SpecSemError
from specsem.registry import DEFAULT_MODEL

if TYPE_CHECKING:
    from specsem.files import Source

__all__ = ["app", "main"]

COMMANDS_ELSEWHERE = {
    "settings": "app.settings:Settings",
    "serve": "app.main:run",
    "serve on ray": "app.ray_app:run",
    "worker": "app.main:work",
    "bulk": "app.bulk:bulk",
    "keys": "app.keys:open_keys",
    "webhooks": "app.webhooks.console:Console",
    "signing": "app.signing:open_public_keys",
    "verify": "app.reports.verifying:verify",
    "audit": "app.auditing:open_auditing",
    "answers": "app.policy:stored_answers",
    "calibrations": "app.calibrations:open_calibrations",
    "recalibrate": "specsem.training.recalibrate:recalibrate",
    "connect": "app.connectors.running:connect",
    "hma push": "app.connectors.hma:push",
    "hma look up": "app.connectors.hma:look_up",
    "train": "specsem.training.run:train",
    "ablate": "specsem.training.ablation:ablate",
    "evaluate": "specsem.evaluation.run:evaluate",
    "scaling": "specsem.evaluation.scaling_report:scaling",
    "references": "specsem.training.references:references",
}

EXIT_UNSCORED = 1
EXIT_REFUSED = 1
EXIT_USAGE = 2
EXIT_DEFECT = 70

app = typer.Typer(
    name="specsem",
    help="Tells AI-generated video from camera video: a calibrated verdict with its time line.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

keys = typer.Typer(name="keys", help="Keys of the service: create, list, revoke.", no_args_is_help=True)
app.add_typer(keys)
signing = typer.Typer(name="signing", help="Keys that sign reports: list, withdraw.", no_args_is_help=True)
app.add_typer(signing)
audit = typer.Typer(name="audit", help="The audit trail: verify, export, head.", no_args_is_help=True)
app.add_typer(audit)

policies = typer.Typer(name="policy", help="Policies: list, check, schema, simulate.", no_args_is_help=True)
app.add_typer(policies)
calibrations = typer.Typer(
    name="calibrations",
    help="Calibrations fitted from feedback: list, show, activate, roll back.",
    no_args_is_help=True,
)
app.add_typer(calibrations)

webhooks = typer.Typer(
    name="webhooks", help="Webhooks of the service: who is told of what happens.", no_args_is_help=True
)
app.add_typer(webhooks)


connect = typer.Typer(
    name="connect", help="Take videos from elsewhere to a running service.", no_args_is_help=True
)
app.add_typer(connect)
hma = typer.Typer(
    name="hma", help="Hashes of decided videos, to and from HMA (ThreatExchange).", no_args_is_help=True
)
app.add_typer(hma)


class Device(StrEnum):
    """Where the model runs."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


class ServeEngine(StrEnum):
    """Where the service runs its model."""

    LOCAL = "local"
    RAY = "ray"


class Split(StrEnum):
    """Which clips of a manifest."""

    VAL = "val"
    TRAIN = "train"
    ALL = "all"


ModelOption = Annotated[str, typer.Option("--model", metavar="NAME", help="One of `specsem models`.")]
DeviceOption = Annotated[
    Device, typer.Option("--device", help="Where the model runs; auto: CUDA if there is one.")
]
TrustListOption = Annotated[
    Path | None,
    typer.Option(
        "--trust-list",
        metavar="FILE",
        envvar="SPECSEM_C2PA_TRUST_LIST",
        help="Certificates (PEM) of those who are trusted to sign where a video comes from.",
    ),
]
DataOption = Annotated[
    list[Path], typer.Option("--data", metavar="MANIFEST...", help="One or more manifests (JSON lines).")
]
OutOption = Annotated[Path, typer.Option("--out", metavar="DIR", help="Where it writes, and resumes from.")]
TeacherOption = Annotated[
    Path | None, typer.Option("--teacher", metavar="FILE", help="Weights whose features a recipe distils.")
]
PolicyOption = Annotated[
    str,
    typer.Option(
        "--policy",
        metavar="NAME[@VERSION]",
        help="What decides what is to be done: one of `specsem policy list`.",
    ),
]
PolicyFileOption = Annotated[
    Path | None,
    typer.Option(
        "--policy-file",
        metavar="FILE",
        envvar="SPECSEM_POLICY_FILE",
        help="Policies of yours (JSON) beside those that ship.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="For machines: JSON on standard output.")]
TrustOption = Annotated[
    str | None,
    typer.Option(
        "--keys",
        metavar="FILE|THUMBPRINT",
        help="Keys to trust: /.well-known/specsem-keys.json as a file, or the thumbprint of one.",
    ),
]


def main() -> NoReturn:
    """Run the command line; ends the process."""
    # Threads that spin while they wait for each other take the cores that decoders, or the neighbours, need:
    # beside other work a forward takes twice as long then. Read when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    logging.basicConfig(level=logging.DEBUG if os.environ.get("SPECSEM_DEBUG") else logging.ERROR)
    try:
        app()
    except SpecSemError as error:
        _complain(error.message, error.code)
        sys.exit(EXIT_USAGE)
    except Exception as error:  # the last net: a person gets a sentence, SPECSEM_DEBUG=1 the trace
        if os.environ.get("SPECSEM_DEBUG"):
            raise
        _complain(f"a defect of SpecSem ({type(error).__name__}); SPECSEM_DEBUG=1 shows where.")
        sys.exit(EXIT_DEFECT)
    sys.exit(0)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"specsem {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    _version: Annotated[
        bool,
        typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=_show_version),
    ] = False,
) -> None:
    """Options before any command."""


@app.command(no_args_is_help=True)
def score(
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="PATH...", help="Files, folders (with all below), or - for standard input."),
    ],
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object a line, in the order given.")
    ] = False,
    thorough: Annotated[
        bool, typer.Option("--thorough", help="Look at the whole time line, not at windows spread over it.")
    ] = False,
    evidence: Annotated[
        Path | None,
        typer.Option(
            "--evidence",
            metavar="DIR",
            help="Say what the score stands on, and draw what the model saw into this folder.",
        ),
    ] = None,
    stability: Annotated[
        bool,
        typer.Option("--stability", help="Score it again after cheap deliveries: does the verdict survive?"),
    ] = False,
    model: ModelOption = DEFAULT_MODEL,
    device: DeviceOption = Device.AUTO,
    policy: PolicyOption = "default",
    policy_file: PolicyFileOption = None,
    surface: Annotated[
        str, typer.Option("--surface", metavar="NAME", help="Where they are to appear: policies may ask.")
    ] = "",
    calibration: Annotated[
        Path | None,
        typer.Option(
            "--calibration",
            metavar="FILE",
            help="What `calibrations show` printed, in place of the model's own.",
        ),
    ] = None,
    trust_list: TrustListOption = None,
) -> None:
    """Score videos: generated, authentic or inconclusive.

    Of a folder, every file that holds moving pictures is scored, whatever its name; hidden ones are left out.
    Exits with 0 if all were scored, 1 if some could not be (their lines say why), 2 on wrong usage.
    """
    from specsem.calibration import Calibration
    from specsem.media import DecoderPool
    from specsem.policy import PolicyBook, decide, require_supported
    from specsem.provenance import read_trust_list
    from specsem.registry import get_model

    record = get_model(model)  # an unknown name is refused before anything slow
    decides = PolicyBook.read(policy_file).policy(policy)
    other = Calibration.read(calibration) if calibration else None
    points = (other or Calibration.load(record.folder)).policies if record.present else {}
    if points:
        require_supported(decides, points)
    trusted = read_trust_list(trust_list) if trust_list else None
    workers = max(2, min(8, os.cpu_count() or 2))
    with contextlib.ExitStack() as stack:
        stack.enter_context(_terminable())
        pool = stack.enter_context(DecoderPool(workers=workers, trust_list=trusted))

        from specsem.files import find_sources, score_files  # bring torch, while the decoders start
        from specsem.output import JsonLines, PictureFolder, ProgressBar, Report
        from specsem.pipeline import Options
        from specsem.result import ScoredFile
        from specsem.scorer import Scorer

        sources = [_spooled(source, stack) for source in find_sources(paths)]
        writer = JsonLines() if as_json else Report(details=len(sources) == 1)
        files = sum(source.kind != "end_of_folder" for source in sources)
        bar = stack.enter_context(ProgressBar(files))
        scorer = Scorer(
            model,
            device=device.value,
            operating_point=decides.operating_point,
            calibration=other,
        )
        bar.begin()
        outcomes = score_files(
            sources,
            pool=pool,
            scorer=scorer,
            options=Options(thorough=thorough, evidence=evidence is not None, stability=stability),
            workers=workers,
            batch=1 if str(scorer.device) == "cpu" else 8,  # a CPU gains nothing from waiting for more
            on_progress=bar.advance_within,
            on_pictures=PictureFolder(evidence).write if evidence else None,
        )
        stack.enter_context(contextlib.closing(outcomes))
        for outcome in outcomes:
            if isinstance(answer := outcome.answer, ScoredFile):
                decision = decide(decides, answer, points, surface=surface)
                answer = answer.model_copy(update={"decision": decision})
            if answer is not None:
                writer.write(answer)
            if outcome.source.kind != "end_of_folder":
                bar.advance()
    writer.close()
    if writer.failures:
        raise typer.Exit(EXIT_UNSCORED)


@app.command(no_args_is_help=True)
def bulk(
    source: Annotated[
        str,
        typer.Argument(
            metavar="MANIFEST|FOLDER", help="Here, or as a URL: s3://bucket/folder/, gs://bucket/list.jsonl."
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="Parquet, a row a file. It resumes from there.")
    ],
    model: ModelOption = DEFAULT_MODEL,
    device: DeviceOption = Device.AUTO,
    policy: PolicyOption = "default",
    policy_file: PolicyFileOption = None,
    trust_list: TrustListOption = None,
    decoders: Annotated[
        int | None, typer.Option(min=1, help="Processes that decode. [default: a core each, but for one]")
    ] = None,
    scorers: Annotated[int, typer.Option(min=1, help="Processes that score.")] = 1,
    gpus: Annotated[
        float, typer.Option(min=0, help="GPUs of each of these; 0.5 puts two on one. 0: on the CPU.")
    ] = 0.0,
    address: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="A Ray cluster to join. [default: one of its own]")
    ] = None,
) -> None:
    """Score many files on Ray (extra `ray`): every file is a row, also one that can't be scored.

    What has its row is not scored again, after a kill either. Exit codes are those of `score`.
    """
    from specsem.output import ProgressBar
    from specsem.text import plural

    run = _elsewhere("bulk")
    with _terminable(), contextlib.ExitStack() as stack:
        bars: list[ProgressBar] = []

        def start(tally: Any) -> None:
            if tally.before:
                typer.echo(f"{tally.before} of {plural(tally.files, 'file')} have a row already.", err=True)
            bars.append(stack.enter_context(ProgressBar(tally.files - tally.before, lines=True)))
            bars[0].begin()

        tally = run(
            source,
            out,
            model=model,
            device=device.value,
            policy=policy,
            policy_file=policy_file,
            trust_list=trust_list,
            decoders=decoders or max(1, (os.cpu_count() or 2) - 1),
            scorers=scorers,
            gpus=gpus,
            address=address,
            on_start=start,
            on_progress=lambda files: bars[0].advance(files),  # noqa: PLW0108 - there is none yet
        )
    typer.echo(f"{plural(tally.scored, 'file')} scored, {tally.failed} could not be: {out}", err=True)
    if tally.failed:
        raise typer.Exit(EXIT_UNSCORED)


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to bind. [default: 127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Port to bind. [default: 8000]")] = None,
    engine: Annotated[
        ServeEngine,
        typer.Option(help="Where the model runs: in this process, or in replicas on Ray (extra `ray`)."),
    ] = ServeEngine.LOCAL,
) -> None:
    """Start the service and its page. Every other setting is an environment variable, SPECSEM_..."""
    given = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    _elsewhere("serve" if engine is ServeEngine.LOCAL else "serve on ray")(_settings(**given))


@app.command()
def worker(
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Jobs at a time. [default: SPECSEM_DECODE_WORKERS]")
    ] = None,
) -> None:
    """Work on the jobs that a service has taken, beside it: the same database, the same data folder."""
    _elsewhere("worker")(_settings(), jobs)


@keys.command("create")
def create_key(
    name: Annotated[str, typer.Option(help="What it is for, to know it again.")] = "",
    tenant: Annotated[
        str, typer.Option(help="Whose jobs and videos it sees. [default: one of no name]")
    ] = "",
    scope: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SCOPE", help="score, jobs, webhooks, admin or metrics; repeat. [default: score, jobs]"
        ),
    ] = None,
    expires: Annotated[
        str | None,
        typer.Option(metavar="WHEN", help="After 12h, 90d, 2w, or at 2027-01-31. [default: never]"),
    ] = None,
    rate: Annotated[
        str | None, typer.Option(metavar="RATE", help="Such as 600/minute. [default: SPECSEM_KEY_RATE]")
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option(min=1, help="Requests at a time. [default: SPECSEM_KEY_CONCURRENCY]")
    ] = None,
) -> None:
    """Make a key and print it: it is shown this once, and stored as a hash."""
    given = {"scopes": scope} if scope else {}
    with _elsewhere("keys")(_settings()) as store:
        key, _ = store.create(
            name=name, tenant=tenant, expires=expires, rate=rate, concurrency=concurrency, **given
        )
    typer.echo(key)
    typer.echo("Keep it now: it is not shown again.", err=True)


@keys.command("list")
def list_keys(as_json: JsonOption = False) -> None:
    """List the keys, the latest first; of each, what is no secret."""
    from specsem.output import keys_table

    with _elsewhere("keys")(_settings()) as store:
        listed = store.listed()
    _print_all(listed, keys_table, as_json=as_json)


@keys.command("revoke", no_args_is_help=True)
def revoke_key(
    key: Annotated[str, typer.Argument(metavar="PREFIX", help="As `list` shows it, or the whole key.")],
    forget: Annotated[
        bool,
        typer.Option(
            "--forget",
            help="Remove it from the list as well. Without any key, the service is open again on loopback.",
        ),
    ] = False,
) -> None:
    """End a key. A running service takes it for at most SPECSEM_KEY_CACHE_S seconds more."""
    with _elsewhere("keys")(_settings()) as store:
        row = store.revoke(key, forget=forget)
    typer.echo(f"{row.prefix} is {'forgotten' if forget else 'revoked'}.")


WebhookId = Annotated[str, typer.Argument(metavar="ID", help="As `list` shows it.")]
EventsOption = Annotated[
    list[str] | None,
    typer.Option("--event", metavar="TYPE", help="Only such, as job.done; repeat. [default: all]"),
]


@webhooks.command("create", no_args_is_help=True)
def create_webhook(
    url: Annotated[str, typer.Argument(metavar="URL", help="Where events are sent by POST.")],
    events: EventsOption = None,
    tenant: Annotated[str, typer.Option(help="Whose events it is told. [default: one of no name]")] = "",
    description: Annotated[str, typer.Option(help="What it is for, to know it again.")] = "",
) -> None:
    """Register a webhook and print its id and its secret, which is shown this once."""
    made = _webhooks().create(url, tenant=tenant, events=events or (), description=description)
    typer.echo(f"{made['id']} {made['secret']}")
    typer.echo("Keep the secret now: it is not shown again.", err=True)


@webhooks.command("list")
def list_webhooks(
    tenant: Annotated[str | None, typer.Option(help="Only those of a tenant. [default: all]")] = None,
    as_json: JsonOption = False,
) -> None:
    """List the webhooks, the latest first, without their secrets."""
    from specsem.output import webhooks_table

    _print_all(_webhooks().listed(tenant), webhooks_table, as_json=as_json)


@webhooks.command("update", no_args_is_help=True)
def update_webhook(
    webhook: WebhookId,
    url: Annotated[str | None, typer.Option(metavar="URL", help="Another address.")] = None,
    events: EventsOption = None,
    all_events: Annotated[bool, typer.Option("--all-events", help="Every type again.")] = False,
    description: Annotated[str | None, typer.Option(help="What it is for.")] = None,
    enabled: Annotated[
        bool | None,
        typer.Option(
            "--enable/--disable", help="A disabled one is told nothing, and what waits is given up."
        ),
    ] = None,
) -> None:
    """Change a webhook; what isn't named stays."""
    changed = _webhooks().change(
        webhook, url=url, events=[] if all_events else events, description=description, enabled=enabled
    )
    typer.echo(json.dumps(changed))


@webhooks.command("rotate", no_args_is_help=True)
def rotate_webhook(
    webhook: WebhookId,
    overlap: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="SECONDS",
            help="So long the old secret signs too; 0 ends it now. [default: SPECSEM_WEBHOOK_OVERLAP_S]",
        ),
    ] = None,
) -> None:
    """Replace the secret of a webhook, and print the new one."""
    typer.echo(_webhooks().rotate(webhook, overlap_s=overlap)["secret"])
    typer.echo("Keep it now: it is not shown again.", err=True)


@webhooks.command("delete", no_args_is_help=True)
def delete_webhook(webhook: WebhookId) -> None:
    """Remove a webhook with all its deliveries, sent or not."""
    _webhooks().remove(webhook)
    typer.echo(f"{webhook} is removed.")


@webhooks.command("ping", no_args_is_help=True)
def ping_webhook(webhook: WebhookId) -> None:
    """Have the running service send a webhook a message; `deliveries` shows whether it arrived."""
    typer.echo(_webhooks().ping(webhook)["id"])


@webhooks.command("deliveries", no_args_is_help=True)
def list_deliveries(
    webhook: WebhookId,
    dead: Annotated[bool, typer.Option("--dead", help="Only what was given up.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List what became of the latest hundred events of a webhook."""
    from specsem.output import deliveries_table

    found = _webhooks().deliveries(webhook, statuses=("dead",) if dead else ())
    _print_all(found, deliveries_table, as_json=as_json)


@webhooks.command("redeliver", no_args_is_help=True)
def redeliver(
    webhook: WebhookId,
    events: Annotated[
        list[str] | None, typer.Argument(metavar="EVENT...", help="As `deliveries` shows them.")
    ] = None,
    dead: Annotated[bool, typer.Option("--dead", help="All that was given up.")] = False,
) -> None:
    """Have the running service send events again, under their own ids."""
    if dead == bool(events):
        raise SpecSemError("Say which: ids of events, or --dead.")
    console = _webhooks()
    count = sum(console.redeliver(webhook, event) for event in events or (None,))
    typer.echo(f"{count} to be sent again.")


def _webhooks() -> Any:
    return _elsewhere("webhooks")(_settings())


def _print_all(records: list[dict[str, Any]], table: Callable[[Any], None], *, as_json: bool) -> None:
    """One JSON object a line, or the table for people."""
    if not as_json:
        table(records)
        return
    for record in records:
        typer.echo(json.dumps(record))


@signing.command("list")
def list_signing_keys(as_json: JsonOption = False) -> None:
    """List the keys that ever signed reports here, the oldest first."""
    with _elsewhere("signing")(_settings()) as store:
        listed = store.described()
    for key in listed:
        line = f"{key['kid']}  since {key['created_at']}"
        line += f"  withdrawn {key['withdrawn_at']}" if key["withdrawn_at"] else ""
        typer.echo(json.dumps(key) if as_json else line)


@signing.command("withdraw", no_args_is_help=True)
def withdraw_signing_key(
    kid: Annotated[str, typer.Argument(metavar="THUMBPRINT", help="As `list` shows it.")],
) -> None:
    """Vouch no longer for what a key signed, because others may have it. The service needs another then."""
    with _elsewhere("signing")(_settings()) as store:
        store.withdraw(kid)
    typer.echo(f"{kid} is withdrawn. A service that runs signs with it until it is started again.")


@app.command(no_args_is_help=True)
def verify(
    report: Annotated[Path, typer.Argument(metavar="REPORT", help="As JSON, HTML or PDF.")],
    keys: TrustOption = None,
    video: Annotated[
        Path | None, typer.Option("--video", metavar="FILE", help="The video that it is to be about.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check a report, offline: whether it is as it was signed, and by whom.

    Without --keys, success says only that nothing was changed since it was signed with the key inside, which
    anybody could have made. Exits with 0 if it holds, 1 if not, 2 on wrong usage.
    """
    check = _elsewhere("verify")
    with _refusals():
        found = check(report, keys=keys, video=video)
    if as_json:
        typer.echo(json.dumps({name: getattr(found, name) for name in found.__slots__}))
        return
    from specsem.output import report_facts

    report_facts(found)


@audit.command("verify")
def verify_trail(
    export: Annotated[
        Path | None, typer.Option("--file", metavar="FILE", help="Check what `export` wrote instead.")
    ] = None,
    head: Annotated[
        Path | None, typer.Option("--head", metavar="FILE", help="A signed head that was kept elsewhere.")
    ] = None,
    keys: TrustOption = None,
) -> None:
    """Follow the trail from its beginning: entries that were changed, removed, inserted or moved are found.

    That its end is missing shows only against a head that was kept: see `head`. Exits with 0 if all holds, 1
    if not, 2 on wrong usage.
    """
    auditing = _elsewhere("audit")
    with auditing(_settings(), export) as trail, _refusals():
        end = trail.verify(head=head, keys=keys)
    typer.echo(f"{end.seq} entries hold. The last one's SHA-256 is {end.sha256}.")
    if head is None:
        typer.echo(
            "That nothing is missing at the end shows only against a head that was kept (--head).", err=True
        )
    elif keys is None:
        typer.echo("Whose signature the head has is not known: give --keys.", err=True)


@audit.command("export")
def export_trail() -> None:
    """Print the trail, one JSON object a line, the oldest first."""
    with _elsewhere("audit")(_settings()) as trail:
        for line in trail.lines():
            typer.echo(line)


@audit.command("head")
def sign_head() -> None:
    """Print the trail's head, signed: kept elsewhere, it shows later that nothing before it was lost."""
    with _elsewhere("audit")(_settings()) as trail:
        typer.echo(trail.signed_head())


@policies.command("list")
def list_policies(policy_file: PolicyFileOption = None, as_json: JsonOption = False) -> None:
    """List the policies that ship, and those of a file."""
    from specsem.output import policies_table
    from specsem.policy import PolicyBook

    book = PolicyBook.read(policy_file)
    if not as_json:
        policies_table(book.policies)
        return
    for policy in book.policies:
        typer.echo(policy.model_dump_json(exclude_defaults=True))


@policies.command("check", no_args_is_help=True)
def check_policies(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Policies, as JSON.")],
    model: ModelOption = DEFAULT_MODEL,
) -> None:
    """Check a file of policies, and show from which score on its rules act with a model.

    Exits with 0 if all can be used, 1 if not (a sentence says why), 2 on wrong usage.
    """
    from specsem.calibration import Calibration
    from specsem.errors import PolicyRefused
    from specsem.output import rules_table
    from specsem.policy import PolicyBook, refusals
    from specsem.registry import get_model

    points = Calibration.load(get_model(model).folder).policies
    with _refusals():
        shipped = {str(policy) for policy in PolicyBook.read().policies}
        own = [policy for policy in PolicyBook.read(file).policies if str(policy) not in shipped]
        for policy in own:
            rules_table(policy, points)
        found = [f"{policy}: {sentence}" for policy in own for sentence in refusals(policy, points)]
        if found:
            raise PolicyRefused(" ".join(found))


@policies.command("schema")
def show_schema() -> None:
    """Print the JSON Schema of a file of policies."""
    from specsem.policy import json_schema

    typer.echo(json.dumps(json_schema(), indent=2))


@policies.command("simulate", no_args_is_help=True)
def simulate(
    policy: PolicyOption,
    answers: Annotated[
        list[Path] | None,
        typer.Argument(metavar="FILE...", help="Lines of `score --json`. [default: the service's answers]"),
    ] = None,
    policy_file: PolicyFileOption = None,
    against: Annotated[
        str | None,
        typer.Option(
            "--against", metavar="NAME[@VERSION]", help="Compare with this. [default: what was decided then]"
        ),
    ] = None,
    tenant: Annotated[str | None, typer.Option(help="Only answers of a tenant. [default: all]")] = None,
    as_json: JsonOption = False,
) -> None:
    """Replay stored answers under a policy: what would be decided, and what would change. It changes nothing.

    With --json one object a line for each answer of which something else would be made, and a last one with
    the counts.
    """
    from itertools import chain

    from specsem.output import Simulation
    from specsem.policy import PolicyBook
    from specsem.replay import read_answers, replay

    book = PolicyBook.read(policy_file)
    tried, compared = book.policy(policy), book.policy(against) if against else None
    stored = (
        chain.from_iterable(map(read_answers, answers))
        if answers
        else _elsewhere("answers")(_settings(), tenant)
    )
    shown = Simulation(tried, compared, as_json=as_json)
    for replayed in replay(tried, stored, against=compared):
        shown.write(replayed)
    shown.close()


@app.command()
def recalibrate(
    since: Annotated[
        str | None,
        typer.Option(metavar="DATE", help="Only what was said since then, as 2026-11-01. [default: all]"),
    ] = None,
    users: Annotated[
        bool, typer.Option("--users", help="Believe users' labels too, where no operator gave one.")
    ] = False,
    as_observed: Annotated[
        bool,
        typer.Option("--as-observed", help="Take feedback for a fair sample of all that was scored."),
    ] = False,
    note: Annotated[str, typer.Option(help="What it is for, to know it again.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show it, and keep nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Fit scores and thresholds anew from operators' feedback, into a new calibration.

    Labels and counts ("12 of these 64 were upheld") of the model in use (SPECSEM_MODEL). Verdicts stay as
    they are until `calibrations activate`. Exits with 2 where too little is known.
    """
    from specsem.output import calibration_facts

    at = _date(since)
    with _elsewhere("calibrations")(_settings()) as bench:
        before = bench.base()
        fitted = _elsewhere("recalibrate")(
            before,
            bench.confirmations(since=at, users=users),
            stream=None if as_observed else bench.stream(since=at),
        )
        kept = fitted if dry_run else bench.keep(fitted, note=note)
    if as_json:
        typer.echo(kept.to_json(), nl=False)
        return
    calibration_facts(kept, before)
    if not dry_run:
        typer.echo(f"specsem calibrations activate {kept.version} makes it the active one.", err=True)


def _date(text: str | None) -> float:
    """A day or a time in seconds since the epoch; by UTC, if it says nothing else."""
    from datetime import UTC, datetime

    if text is None:
        return 0.0
    try:
        at = datetime.fromisoformat(text)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise SpecSemError(f"{text!r} is no date such as 2026-11-01.") from None


@calibrations.command("list")
def list_calibrations(as_json: JsonOption = False) -> None:
    """List the calibrations of the model in use, the latest first; 0 came with it."""
    from specsem.output import calibrations_table

    with _elsewhere("calibrations")(_settings()) as bench:
        listed = bench.listed()
    _print_all(listed, calibrations_table, as_json=as_json)


CalibrationVersion = Annotated[int, typer.Argument(metavar="VERSION", min=0, help="As `list` shows it.")]


@calibrations.command("show", no_args_is_help=True)
def show_calibration(version: CalibrationVersion) -> None:
    """Print a calibration as a file has it: for `score --calibration`, and to keep."""
    with _elsewhere("calibrations")(_settings()) as bench:
        typer.echo(bench.shown(version), nl=False)


@calibrations.command("activate", no_args_is_help=True)
def activate_calibration(version: CalibrationVersion) -> None:
    """Have verdicts made by this calibration. Services and workers that run take it within seconds."""
    with _elsewhere("calibrations")(_settings()) as bench:
        bench.activate(version)
    typer.echo(f"Calibration {version} is active.")


@calibrations.command("rollback")
def roll_back_calibration() -> None:
    """Undo the last activation: the calibration before is active again."""
    with _elsewhere("calibrations")(_settings()) as bench:
        version = bench.roll_back()
    typer.echo(f"Calibration {version} is active again.")


ServiceOption = Annotated[
    str, typer.Option("--service", metavar="URL", envvar="SPECSEM_SERVICE", help="Where the service is.")
]
KeyFileOption = Annotated[
    Path | None,
    typer.Option("--key-file", metavar="FILE", help="Holds the key. [default: the variable SPECSEM_KEY]"),
]
InFlightOption = Annotated[int, typer.Option("--in-flight", min=1, max=64, help="Videos at a time.")]
OnceOption = Annotated[bool, typer.Option("--once", help="End when nothing more comes.")]
OutcomesOption = Annotated[
    Path | None, typer.Option("--out", metavar="DIR", help="Write each outcome there, as JSON.")
]
LOCAL_SERVICE = "http://127.0.0.1:8000"


@connect.command("folder", no_args_is_help=True)
def connect_folder(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Files are put there, and not below.")],
    service: ServiceOption = LOCAL_SERVICE,
    key_file: KeyFileOption = None,
    in_flight: InFlightOption = 4,
    once: OnceOption = False,
    out: OutcomesOption = None,
    settle: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="A file is taken once it has not changed so long.")
    ] = 2.0,
) -> None:
    """Watch a folder: files are scored, then moved into done/ or failed/ in it, with their outcomes."""
    _connect("folder", service, key_file, in_flight, once, out=out, folder=folder, settle_s=settle)


@connect.command("s3", no_args_is_help=True)
def connect_s3(
    queue: Annotated[str, typer.Argument(metavar="QUEUE_URL", help="SQS, which the bucket notifies.")],
    aside: Annotated[
        Path, typer.Option("--aside", metavar="DIR", help="Keep what can't be scored there, as JSON.")
    ],
    service: ServiceOption = LOCAL_SERVICE,
    key_file: KeyFileOption = None,
    in_flight: InFlightOption = 4,
    once: OnceOption = False,
    out: OutcomesOption = None,
) -> None:
    """Score what is put into an S3-compatible bucket, by its notifications. Needs the extra `s3`."""
    _connect("s3", service, key_file, in_flight, once, out=out, aside=aside, queue=queue)


class RecordForm(StrEnum):
    """How outcomes are written to a stream (``app.connectors.forms``)."""

    OUTCOME = "outcome"
    OSPREY = "osprey"


GroupOption = Annotated[str, typer.Option("--group", metavar="NAME", help="Its members share the work.")]
DeadLettersOption = Annotated[
    str | None,
    typer.Option(
        "--dead-letters", metavar="NAME", help="What can't be scored goes there. [default: NAME.dead-letters]"
    ),
]
RootOption = Annotated[
    Path | None, typer.Option("--root", metavar="DIR", help="Records may name files below this folder.")
]
BucketOption = Annotated[
    list[str] | None,
    typer.Option("--bucket", metavar="NAME", help="Records may name objects in this bucket; repeatable."),
]
ToOption = Annotated[str | None, typer.Option("--to", metavar="NAME", help="Outcomes go there.")]
FormOption = Annotated[
    RecordForm, typer.Option("--form", help="Of outcomes: ours, or an action for ROOST's Osprey.")
]


@connect.command("kafka", no_args_is_help=True)
def connect_kafka(
    topic: Annotated[str, typer.Argument(metavar="TOPIC", help="Its records say where a video is.")],
    brokers: Annotated[
        str, typer.Option(metavar="HOST:PORT,...", envvar="SPECSEM_KAFKA_BROKERS", help="Of the cluster.")
    ] = "localhost:9092",
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Properties of librdkafka: TLS, SASL and the like.")
    ] = None,
    group: GroupOption = "specsem",
    to: ToOption = None,
    form: FormOption = RecordForm.OUTCOME,
    dead_letters: DeadLettersOption = None,
    root: RootOption = None,
    bucket: BucketOption = None,
    service: ServiceOption = LOCAL_SERVICE,
    key_file: KeyFileOption = None,
    in_flight: InFlightOption = 4,
    once: OnceOption = False,
) -> None:
    """Score what the records of a Kafka topic name, verdicts to another topic. Needs the extra `kafka`."""
    _connect(
        "kafka",
        service,
        key_file,
        in_flight,
        once,
        topic=topic,
        brokers=brokers,
        config=config,
        group=group,
        to=to,
        form=form.value,
        dead_letters=dead_letters,
        root=root,
        buckets=bucket or (),
    )


@connect.command("redis", no_args_is_help=True)
def connect_redis(
    stream: Annotated[str, typer.Argument(metavar="STREAM", help="Its entries say where a video is.")],
    server: Annotated[
        str,
        typer.Option(
            metavar="URL", envvar="SPECSEM_REDIS", help="Where Redis is; its password in the variable."
        ),
    ] = "redis://localhost:6379/0",
    group: GroupOption = "specsem",
    claim_after: Annotated[
        float, typer.Option(min=6, metavar="SECONDS", help="What a member has left so long is taken over.")
    ] = 60.0,
    to: ToOption = None,
    form: FormOption = RecordForm.OUTCOME,
    dead_letters: DeadLettersOption = None,
    root: RootOption = None,
    bucket: BucketOption = None,
    service: ServiceOption = LOCAL_SERVICE,
    key_file: KeyFileOption = None,
    in_flight: InFlightOption = 4,
    once: OnceOption = False,
) -> None:
    """Score what the entries of a Redis stream name, verdicts to another stream. Needs the extra `redis`."""
    _connect(
        "redis",
        service,
        key_file,
        in_flight,
        once,
        stream=stream,
        server=server,
        group=group,
        claim_after_s=claim_after,
        to=to,
        form=form.value,
        dead_letters=dead_letters,
        root=root,
        buckets=bucket or (),
    )


def _connect(
    kind: str, service: str, key_file: Path | None, in_flight: int, once: bool, **given: Any
) -> None:
    settled = _elsewhere("connect")(
        kind, service=service, key_file=key_file, in_flight=in_flight, once=once, **given
    )
    typer.echo(f"{settled} scored or set aside.", err=True)


HmaArgument = Annotated[str, typer.Argument(metavar="HMA_URL", help="Where HMA is.")]


@hma.command("push", no_args_is_help=True)
def push_to_hma(
    url: HmaArgument,
    ledger: Annotated[
        Path, typer.Option(metavar="FILE", help="Says what was sent, so that nothing goes twice.")
    ],
    generated: Annotated[
        str | None, typer.Option(metavar="BANK", help="For what operators called generated.")
    ] = None,
    real: Annotated[str | None, typer.Option(metavar="BANK", help="For what they called real.")] = None,
    service: ServiceOption = LOCAL_SERVICE,
    key_file: KeyFileOption = None,
) -> None:
    """Put hashes (vPDQ) of the videos on which operators decided into banks of HMA."""
    banks = {label: bank for label, bank in (("generated", generated), ("real", real)) if bank}
    if not banks:
        raise typer.BadParameter("say which bank: --generated BANK or --real BANK")
    for banked in _elsewhere("hma push")(url, banks, ledger, service=service, key_file=key_file):
        typer.echo(f"{banked.job} {banked.bank} {banked.content}")


@hma.command("lookup", no_args_is_help=True)
def look_up_in_hma(
    url: HmaArgument,
    job: Annotated[str, typer.Argument(metavar="JOB", help="Its id.")],
    service: ServiceOption = LOCAL_SERVICE,
    key_file: KeyFileOption = None,
) -> None:
    """Show what HMA's banks know of a job's video. Nothing follows from it by itself."""
    found = _elsewhere("hma look up")(url, job, service=service, key_file=key_file)
    for bank, matches in found.items():
        for match in matches:
            typer.echo(f"{bank} {match.bank_content_id} {match.distance}")


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    """What doesn't hold ends with 1; what can't be checked with 2, as all errors do."""
    try:
        yield
    except Refused as error:
        _complain(error.message, error.code)
        raise typer.Exit(EXIT_REFUSED) from None


def _settings(**given: object) -> Any:
    """The service's settings; what is wrong with them is said by the name of its variable."""
    from pydantic import ValidationError

    try:
        return _elsewhere("settings")(**given)
    except ValidationError as error:
        for problem in error.errors():
            setting = f"SPECSEM_{problem['loc'][0]}".upper() if problem["loc"] else "settings"
            _complain(f"{setting}: {problem['msg']}")
        raise typer.Exit(EXIT_USAGE) from None


@app.command()
def models(as_json: JsonOption = False) -> None:
    """List the registered models: licence, checksum, and whether the weights are on this machine."""
    from specsem.output import models_table
    from specsem.registry import list_models

    if not as_json:
        models_table(list_models())
        return
    for record in list_models():
        fields = ("name", "version", "licence", "summary", "sha256", "present")
        typer.echo(json.dumps({field: getattr(record, field) for field in fields}))


@app.command("export", no_args_is_help=True)
def export_model(
    out: Annotated[Path, typer.Argument(metavar="FILE", help="What to write, e.g. specsem-compact.onnx.")],
    model: ModelOption = DEFAULT_MODEL,
    videos: Annotated[
        list[Path] | None,
        typer.Option("--video", metavar="FILE", help="Check it on this video too; repeat."),
    ] = None,
) -> None:
    """Write a model as ONNX (extra `onnx`), once ONNX Runtime says the same by it.

    It is checked on clips made for it: scores may differ by 0.005, verdicts not at all. Exits with 1 if they
    do, and leaves no file then.
    """
    from rich.console import Console

    from specsem.registry import get_model
    from specsem.text import plural

    record = get_model(model)
    with _installed():
        from specsem.export import export_onnx
    with _terminable(), _refusals(), Console(stderr=True).status("Writing, then checking"):
        parity = export_onnx(record, out, videos or ())
    typer.echo(
        f"{out}: {record.name} {record.version}, {out.stat().st_size / 1e6:.1f} MB. Over "
        f"{plural(parity.clips, 'clip')} ({plural(parity.windows, 'window')}) no score differs by more than "
        f"{parity.score:.1g}, no logit by more than {parity.logit:.1g}, and no verdict."
    )


@app.command()
def bench(
    as_json: JsonOption = False,
    model: ModelOption = DEFAULT_MODEL,
    device: DeviceOption = Device.AUTO,
    quick: Annotated[
        bool, typer.Option("--quick", help="A few rounds on small clips, to see that it runs.")
    ] = False,
    batches: Annotated[
        str | None,
        typer.Option("--batches", metavar="N,N...", help="Windows in a forward; 1 to 256 unless said."),
    ] = None,
) -> None:
    """Measure throughput, time per stage, peak memory and the cost of decoding, on clips made for it."""
    from rich.console import Console

    from specsem.bench import print_report, run

    sizes = _sizes(batches) if batches is not None else None
    with _terminable(), Console(stderr=True).status("Measuring") as status:
        report = run(model=model, device=device.value, quick=quick, batches=sizes, tell=status.update)
    if as_json:
        typer.echo(json.dumps(report, indent=2))
    else:
        print_report(report)


def _sizes(batches: str) -> list[int]:
    """``1,4,16`` as numbers."""
    try:
        sizes = [int(size) for size in batches.split(",")]
    except ValueError:
        sizes = [0]
    if min(sizes) < 1:
        raise typer.BadParameter("numbers from 1 up, with commas between", param_hint="--batches")
    return sizes


class _ManyValues(TyperCommand):
    """``--data a b`` is ``--data a --data b``, and so for the others that take many."""

    many = frozenset({"--data", "--conditions", "--scores"})

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As click asks for it, with the option repeated before each of its values."""
        spread: list[str] = []
        option = ""
        for arg in args:
            if arg.startswith("-"):
                option = arg
            elif option in self.many and spread[-1] != option:
                spread.append(option)
            spread.append(arg)
        return super().parse_args(ctx, spread)


@app.command(cls=_ManyValues)
def train(
    config: Annotated[Path, typer.Option(metavar="FILE", help="The recipe, e.g. models/specsem-b32.json.")],
    data: DataOption,
    out: OutOption,
    weight: Annotated[
        list[float] | None,
        typer.Option(metavar="W", help="How often a manifest is drawn from beside others: one each."),
    ] = None,
    teacher: TeacherOption = None,
    device: DeviceOption = Device.AUTO,
    processes: Annotated[int, typer.Option(min=1, help="Processes that prepare the clips.")] = 2,
) -> None:
    """Train a model; resumes where it stopped. Writes weights, calibration, configuration and curves."""
    _require(config, *data, *([teacher] if teacher else []))
    _elsewhere("train")(
        config, data, out, weights=weight or (), teacher=teacher, device=device.value, processes=processes
    )


@app.command(cls=_ManyValues, no_args_is_help=True)
def ablate(
    config: Annotated[Path, typer.Option(metavar="FILE", help="A recipe with folds.")],
    data: DataOption,
    out: OutOption,
    variant: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A variant; several, or all if none is named.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each variant.")] = 3,
    fold: Annotated[int, typer.Option(min=0, help="Which fold is held out.")] = 0,
    steps: Annotated[int, typer.Option(min=0, help="Of the first stage; 0: as in the recipe.")] = 0,
    teacher: TeacherOption = None,
    device: DeviceOption = Device.AUTO,
    processes: Annotated[int, typer.Option(min=1, help="Processes that prepare and score.")] = 2,
) -> None:
    """Train a recipe with one choice changed at a time, and judge each on the same unseen sources."""
    _require(config, *data, *([teacher] if teacher else []))
    table = _elsewhere("ablate")(
        config,
        data,
        out,
        variants=variant or (),
        seeds=seeds,
        fold=fold,
        steps=steps,
        teacher=teacher,
        device=device.value,
        processes=processes,
    )
    typer.echo(f"{len(table['variants'])} variants: {out / 'ablation.md'}")


@app.command(cls=_ManyValues, no_args_is_help=True)
def evaluate(
    data: DataOption,
    out: OutOption,
    model: Annotated[
        str, typer.Option(metavar="NAME", help="One of `specsem models`, or a folder that `train` wrote.")
    ] = DEFAULT_MODEL,
    split: Annotated[Split, typer.Option(help="Which clips of the manifests.")] = Split.VAL,
    conditions: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME...", help="Some of the conditions, e.g. as-is level. [default: all]"),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Only as-is, level and canonical.")] = False,
    held_out: Annotated[
        bool,
        typer.Option(
            "--held-out",
            help="All clips of a cross-validation, each by the member that never saw its source.",
        ),
    ] = False,
    scores: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE...", help="Judge saved scores (scores.jsonl) instead of scoring."),
    ] = None,
    device: DeviceOption = Device.AUTO,
    processes: Annotated[int, typer.Option(min=1, help="Processes that prepare the clips.")] = 2,
) -> None:
    """Judge a model: every figure and plot with its leak audit, as report.html and report.json.

    Scored clips are kept in the folder and not scored again, unless the model or a manifest has changed.
    """
    _require(*data, *(scores or ()))
    with _terminable():
        _elsewhere("evaluate")(
            data,
            out,
            model=model,
            split=split.value,
            conditions=conditions or (),
            quick=quick,
            held_out=held_out,
            scores=scores or (),
            device=device.value,
            processes=processes,
        )
    typer.echo(f"Wrote {out / 'report.html'} and report.json.", err=True)


@app.command(no_args_is_help=True)
def scaling(
    tables: Annotated[
        list[Path], typer.Argument(metavar="TABLE...", help="CSV or Parquet files, or folders with some.")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where scaling.json and scaling.svg go.")],
    k: Annotated[
        list[int] | None, typer.Option("--k", min=1, help="RBP_k for this k; repeat. [default: 1, 2, 5, 10]")
    ] = None,
    size_name: Annotated[str, typer.Option(metavar="TEXT", help="What size counts.")] = "training clips",
    target: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[OUTCOME/]FIGURE=VALUE",
            help="Forecast the size that reaches it: rbp_1=0.9, auc=0.99, error_entropy=0.2; repeat.",
        ),
    ] = None,
    draws: Annotated[int, typer.Option(min=0, help="Bootstrap draws over samples; 0: none.")] = 1000,
) -> None:
    """Fit power laws to runs of several sizes: intervals, R^2, the size that a target asks for, a plot.

    A table has a row a sample (clip, token): the column `size` of its run (clips, generators, weights), and
    either `rank` (of the truth, 1 = top) and `probability` (of the truth), or `p_0` .. `p_<K-1>` and `truth`.

    It may have `run` (else the file's name), `outcome` (each gets its own laws: attribution, detector), `rbe`
    (0 = top; else rank - 1) and `group` (rows drawn together in the bootstrap: clips of one source).

    Laws are of -log RBP_k (RBP_k: how often the truth is in the top k), of Error-Entropy and the other parts
    of cross-entropy, and of 1 - AUC where there are two outcomes. At least three sizes are needed.
    """
    ks = {"ks": k} if k else {}
    _elsewhere("scaling")(tables, out, size_name=size_name, targets=target or (), draws=draws, **ks)


@app.command(cls=_ManyValues, no_args_is_help=True)
def references(
    data: Annotated[
        list[Path] | None,
        typer.Option(metavar="MANIFEST...", help="Manifests with camera clips: for the spectrum."),
    ] = None,
    scores: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE...", help="Scores of cross-validation (scores.jsonl): for the families."),
    ] = None,
    model: Annotated[
        str, typer.Option(metavar="NAME", help="One of `specsem models`, or a folder that `train` wrote.")
    ] = DEFAULT_MODEL,
    processes: Annotated[int, typer.Option(min=1, help="Processes that decode.")] = 2,
) -> None:
    """Make what evidence is shown beside: the camera clips' mean spectrum, and the known generators."""
    _require(*(data or ()), *(scores or ()))
    made = _elsewhere("references")(data or (), scores or (), model=model, processes=processes)
    for name, what in made.items():
        typer.echo(f"{name}: {what}")


def _require(*files: Path) -> None:
    """Refuse in a sentence what is not there."""
    for file in files:
        if not file.is_file():
            raise SpecSemError(f"There is no file {file}.")


def _elsewhere(command: str) -> Any:
    module, name = COMMANDS_ELSEWHERE[command].split(":")
    with _installed():
        return getattr(importlib.import_module(module), name)


@contextlib.contextmanager
def _installed() -> Iterator[None]:
    """What an import lacks is said in a sentence."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise SpecSemError(f"This command needs {error.name!r}, which is not installed here.") from error


def _spooled(source: "Source", stack: contextlib.ExitStack) -> "Source":
    """The source itself, or a private copy of standard input if it is ``-``."""
    from specsem.media import Limits

    if source.path != Path("-"):
        return source
    limit = Limits().max_bytes + 1  # one byte more, so that the decoder refuses it for its size
    spool = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="specsem-")), "stdin")
    with spool.open("wb") as file:
        while limit > 0 and (chunk := sys.stdin.buffer.read(min(limit, 1 << 20))):
            file.write(chunk)
            limit -= len(chunk)
    return replace(source, path=spool)


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM unwinds as Ctrl-C does, so that no decoder and no temporary file is left."""

    def unwind(signum: int, _frame: object) -> NoReturn:
        sys.exit(128 + signum)

    before = signal.signal(signal.SIGTERM, unwind)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _complain(message: str, code: str = "") -> None:
    typer.echo(f"specsem: {message}" + (f" ({code})" if code else ""), err=True)
