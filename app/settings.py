"""Every setting and limit of the service, each with a ``SPECSEM_`` variable of the same name.

Lists are written with commas: ``SPECSEM_ALLOWED_HOSTS=specsem.example.org,10.0.0.7``.
"""

import functools
import ipaddress
import tempfile
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Annotated, Any, Literal

from limits import RateLimitItem, parse
from platformdirs import user_data_path
from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from app.outbound import Rules, parse_host
from specsem.errors import SpecSemError
from specsem.media import Limits, TrustList
from specsem.policy import Policy, PolicyBook
from specsem.provenance import read_trust_list

__all__ = [
    "DataDirUnusable",
    "ExposureRefused",
    "Settings",
    "is_loopback_address",
    "is_loopback_name",
    "parse_address",
    "parse_rate",
]

GIB = 1024**3
MIN_KEY_CHARACTERS = 16


class ExposureRefused(SpecSemError):
    """The service would be reachable from other machines without a key."""

    code = "exposure_refused"


class DataDirUnusable(SpecSemError):
    """The data folder can't be written."""

    code = "data_dir_unusable"


def _split(value: Any) -> Any:
    """``a, b`` -> ``["a", "b"]``; anything but text passes through."""
    return [item for part in value.split(",") if (item := part.strip())] if isinstance(value, str) else value


def parse_rate(text: str) -> RateLimitItem:
    """``600/minute`` or ``5 per 10 seconds``: so many in a window of so long.

    Raises:
        ValueError: it is none.
    """
    try:
        rate = parse(text)
    except ValueError:
        rate = None
    if rate is None or rate.amount < 1 or rate.get_expiry() < 1:
        raise ValueError(f"{text!r} is no rate; write it as 600/minute or 5 per 10 seconds")
    return rate


def _rate(text: str) -> str:
    parse_rate(text)
    return text


def _network(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text))
    except ValueError as error:
        raise ValueError(f"{text!r} is no address and no network: {error}") from None


def _read_secret(path: Path) -> str:
    """The one line of a file, as it is but for its end. Raises ``ValueError``: there is none."""
    try:
        secret = path.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or type(error).__name__
        raise ValueError(f"the file can't be read: {reason}") from None
    if not secret:
        raise ValueError("the file is empty")
    return secret


Rate = Annotated[str, AfterValidator(_rate)]
Network = Annotated[str, AfterValidator(_network)]


def _is_network(entry: str) -> bool:
    """Whether this is meant as addresses and not as a name: ``10.0.0.0/8``, ``10.0.0.7``, ``fd12::7``."""
    return "/" in entry or ":" in entry or entry.rpartition(".")[2].isdigit()


class Settings(BaseSettings):
    """Settings from the environment, or from keyword arguments (the command line's options)."""

    model_config = SettingsConfigDict(env_prefix="SPECSEM_", extra="ignore", frozen=True)

    # Where it listens, and who may ask.
    host: str = Field("127.0.0.1", description="Address to listen on. Any but loopback needs a key.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    allowed_hosts: Annotated[list[str], NoDecode, BeforeValidator(_split)] = Field(
        [], description="Names under which a proxy or other machines reach the service (Host header)."
    )
    api_keys: Annotated[list[SecretStr], NoDecode, BeforeValidator(_split)] = Field(
        [],
        description=f"Keys beside those of `specsem keys`, each at least {MIN_KEY_CHARACTERS} characters. "
        "They may do all but administer, as the tenant without a name.",
    )
    api_keys_file: Path | None = Field(
        None, description="File of further keys, one a line; # begins a comment."
    )
    trusted_proxies: Annotated[list[Network], NoDecode, BeforeValidator(_split)] = Field(
        [],
        description="Addresses or networks of proxies whose X-Forwarded-For and -Proto are believed. "
        "Behind any other, all clients have the proxy's address.",
    )

    # What a key may do. All is counted in each process by itself, and anew after a restart.
    key_rate: Rate = Field(
        "1200/minute", description="Requests of one key before 429, unless it has a rate of its own."
    )
    key_concurrency: int = Field(
        64,
        gt=0,
        description="Requests of one key at a time before 429, unless it has a number of its own. "
        "Watching a job is one.",
    )
    key_failures: Rate = Field(
        "20/minute",
        description="Wrong keys from one address (of IPv6, one /64) before 429. Keys of SPECSEM_API_KEYS "
        "are refused from there meanwhile; those of `specsem keys` can't be guessed and go on working.",
    )
    key_cache_s: float = Field(
        5.0,
        ge=0,
        le=300,
        description="A key of `specsem keys` is looked up again after so many seconds: "
        "it can be used for so long after it was revoked.",
    )

    # What it tells of itself.
    access_log: bool = Field(
        True, description="One line a request; probes that are answered well only at level debug."
    )
    log_format: Literal["text", "json"] = Field(
        "text", description="Log lines for people, or one JSON object a line. Both on standard error."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="The least important lines that are written."
    )
    otel: bool = Field(
        False,
        description="OpenTelemetry traces by OTLP over HTTP. Needs the extra `otel`; `OTEL_*` variables say "
        "where they go.",
    )
    worker_port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description="Port where `specsem worker` answers /metrics, /healthz, /readyz and /version; "
        "0 takes a free one. Without it, it listens nowhere.",
    )
    worker_host: str = Field(
        "127.0.0.1",
        description="Address of that port. On loopback it is open to this machine; any other needs a key.",
    )
    commit: str | None = Field(
        None, description="Commit that /version names; without it, that of the checkout or the install."
    )

    # What it runs.
    data_dir: Path = Field(
        default_factory=lambda: user_data_path("specsem", appauthor=False),
        description="Where uploads are kept. Private to the user (mode 0700).",
    )
    model: str = Field("specsem-compact", description="Registered model that gives the scores.")
    device: str = Field("auto", description="auto, cpu or cuda.")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        description="Of the products in the model; auto: bfloat16 on a GPU that has it, else float32. "
        "bfloat16 may move a score by 0.005.",
    )
    acceleration: Literal["auto", "full", "off"] = Field(
        "auto",
        description="What is tried at the start to make the model faster, and kept where it does: auto tries "
        "CUDA graphs, full also torch.compile (minutes), off nothing.",
    )
    policy: str = Field(
        "default",
        description="Policy that decides what is to be done: its name, or `name@version`. Without a version, "
        "the highest.",
    )
    policy_file: Path | None = Field(
        None, description="File of policies (JSON) beside those that ship. Read at the start."
    )
    policy_shadow: str | None = Field(
        None,
        description="Another policy that is evaluated, logged and counted beside that one, and decides "
        "nothing.",
    )

    # Replicas: `specsem serve --engine ray`.
    ray_address: str | None = Field(
        None,
        description="Ray cluster to join, HOST:PORT or auto. Without it, one of its own, on loopback.",
    )
    ray_replicas: int = Field(1, ge=1, description="Replicas of the model; with ray_max_replicas, the least.")
    ray_max_replicas: int | None = Field(
        None,
        ge=1,
        description="As many replicas while there is much to do. Without it, their number is fixed.",
    )
    ray_replica_cpus: float = Field(1.0, gt=0, description="CPUs of one replica: its threads, and its place.")
    ray_replica_gpus: float = Field(
        0.0, ge=0, description="GPUs of one replica; 0.5 puts two on one. 0: on the CPU."
    )
    ray_ingresses: int = Field(
        1,
        ge=1,
        description="Processes that take requests and decode. More than one share SPECSEM_DATA_DIR, and each "
        "counts its own limits.",
    )

    # Uploads and the store.
    max_upload_bytes: int = Field(4 * GIB, gt=0, description="Largest video accepted, in bytes.")
    max_stored_bytes: int = Field(
        20 * GIB,
        gt=0,
        description="All stored and arriving videos, and the pictures kept with answers, in bytes.",
    )
    max_tenant_bytes: int | None = Field(
        None,
        gt=0,
        description="The same for one tenant, in bytes. Without it, no tenant has a limit of its own.",
    )
    min_free_bytes: int = Field(
        GIB // 2, ge=0, description="Unready while the disk of the data folder has less room, in bytes."
    )
    upload_ttl_s: float = Field(
        24 * 3600.0, gt=0, description="A stored video is removed after so many seconds."
    )
    resumable_ttl_s: float = Field(
        24 * 3600.0, gt=0, description="An upload in pieces (tus) must be complete after so many seconds."
    )
    max_partial_uploads: int = Field(1000, gt=0, description="Unfinished uploads in pieces of one tenant.")
    upload_idle_s: float = Field(
        30.0, gt=0, description="An upload that sends nothing for so long is refused."
    )
    upload_min_bytes_per_s: int = Field(
        1024, ge=0, description="An upload slower than this, over upload_idle_s seconds, is refused."
    )
    upload_timeout_s: float = Field(
        3600.0, gt=0, description="An upload must be complete after so many seconds."
    )

    # Work in flight.
    max_queue_clips: int = Field(32, gt=0, description="Requests with a video in flight before 503.")
    max_queue_bytes: int = Field(8 * GIB, gt=0, description="Bytes of arriving videos before 503.")
    max_batch_clips: int = Field(8, gt=0, description="Clips in one forward pass.")
    request_timeout_s: float = Field(600.0, gt=0, description="Decoding, waiting and scoring of one request.")
    shutdown_grace_s: int = Field(
        10, ge=0, description="Requests and jobs in flight may take so many seconds to finish at a stop."
    )
    max_connections: int = Field(512, gt=0, description="Open connections before 503.")
    max_connections_per_address: int = Field(
        256,
        gt=0,
        description="Open connections from one address before 503, trusted proxies excepted.",
    )
    head_timeout_s: float = Field(
        10.0, gt=0, description="The head of a request must be complete after so many seconds."
    )

    # Jobs: what outlives its request.
    database_url: SecretStr | None = Field(
        None, description="Where jobs are: postgresql://... Without it, SQLite in the data folder."
    )
    database_password_file: Path | None = Field(
        None, description="File with the password for SPECSEM_DATABASE_URL, which then names none."
    )
    job_slots: int = Field(
        1, ge=0, description="Jobs at a time in the service itself; 0 leaves all to `specsem worker`."
    )
    job_lease_s: float = Field(
        30.0, gt=0, description="A worker that is not heard of for so long has lost its jobs to others."
    )
    job_max_attempts: int = Field(3, gt=0, description="A job that ends its worker so often is failed.")
    job_timeout_s: float = Field(4 * 3600.0, gt=0, description="Decoding, waiting and scoring of one job.")
    job_ttl_s: float = Field(
        7 * 24 * 3600.0, gt=0, description="Answers of jobs are removed after so many seconds."
    )
    keep_media: bool = Field(
        False, description="Keep the file of a finished job for as long as its answer; else it goes at once."
    )
    max_queued_jobs: int = Field(10_000, gt=0, description="Jobs that wait before 503.")
    similar_max_jobs: int = Field(
        20_000,
        gt=0,
        description="Near-duplicates of a job are looked for among so many of its tenant's latest jobs.",
    )
    long_video_s: float = Field(
        600.0, gt=0, description="/v1/score makes a job of what is longer, unless `Prefer: wait` is sent."
    )

    # Drift.
    drift_shift: float = Field(
        0.2,
        gt=0,
        description="Alert where the scores of a week differ so much from the weeks before (population "
        "stability index; 0.1 may be chance).",
    )
    drift_disagreement: float = Field(
        0.1,
        gt=0,
        le=1,
        description="Alert where operators surely find more than this share of the answers wrong.",
    )

    # Reports.
    signing_key_file: Path | None = Field(
        None,
        description="Ed25519 private key (PEM) that signs reports. Without it, one is made at the first "
        "start and kept in the data folder.",
    )

    # Addresses: jobs by {"url": ...}.
    url_fetch: bool = Field(
        False,
        description="Fetch videos from addresses that clients name. Only from public ones, unless "
        "url_fetch_internal says otherwise.",
    )
    url_fetch_http: bool = Field(
        False, description="Fetch by plain http too: anybody on the way may read and change what is fetched."
    )
    url_fetch_ports: Annotated[list[int], NoDecode, BeforeValidator(_split)] = Field(
        [], description="Ports that an address may name. Empty: 443, and 80 where plain http is on."
    )
    url_fetch_hosts: Annotated[list[str], NoDecode, BeforeValidator(_split)] = Field(
        [], description="Fetch from these hosts only; *.example.org are all below it. Empty: any."
    )
    url_fetch_internal: Annotated[list[str], NoDecode, BeforeValidator(_split)] = Field(
        [],
        description="Hosts (storage.internal) and networks (10.1.2.0/28) to fetch from though they are not "
        "public. Dangerous: who may submit jobs then reaches all that listens there on the allowed ports, as "
        "this machine does, and learns from the errors what answers. Name single hosts rather than networks; "
        "who controls a name decides which internal address it means.",
    )
    url_fetch_connect_s: float = Field(
        10.0, gt=0, description="Seconds for looking a host up, and again for connecting to it."
    )
    url_fetch_idle_s: float = Field(
        30.0, gt=0, description="A fetch that gets nothing for so long has failed."
    )
    url_fetch_timeout_s: float = Field(
        1800.0, gt=0, description="A fetch must be complete after so many seconds."
    )

    # Webhooks: who is told of what happened.
    webhook_http: bool = Field(
        False, description="Send by plain http too: anybody on the way may read what is sent."
    )
    webhook_ports: Annotated[list[int], NoDecode, BeforeValidator(_split)] = Field(
        [], description="Ports that a webhook may name. Empty: 443, and 80 where plain http is on."
    )
    webhook_hosts: Annotated[list[str], NoDecode, BeforeValidator(_split)] = Field(
        [], description="Send to these hosts only; *.example.org are all below it. Empty: any."
    )
    webhook_internal: Annotated[list[str], NoDecode, BeforeValidator(_split)] = Field(
        [],
        description="Hosts (queue.internal) and networks (10.1.2.0/28) to send to though they are not "
        "public. Dangerous: who may register webhooks then has this machine send POST requests to all that "
        "listens there on the allowed ports, and learns the status of the answers.",
    )
    webhook_timeout_s: float = Field(
        15.0, gt=0, description="A receiver must have answered after so many seconds."
    )
    webhook_retry_s: float = Field(
        24 * 3600.0, gt=0, description="What doesn't arrive is sent again for so many seconds, then given up."
    )
    webhook_ttl_s: float = Field(
        7 * 24 * 3600.0,
        gt=0,
        description="Deliveries are removed so many seconds after they arrived or were given up.",
    )
    webhook_overlap_s: float = Field(
        24 * 3600.0,
        ge=0,
        description="After a rotation the old secret signs too for so many seconds, if not told otherwise.",
    )
    webhook_slots: int = Field(
        8, ge=0, description="Messages at a time that this process sends; 0 leaves all to others."
    )
    max_webhooks: int = Field(20, gt=0, description="Webhooks of one tenant.")

    # The decoder: what one file may cost (specsem.media.Limits).
    decode_workers: int = Field(2, gt=0, description="Decoder processes.")
    decode_wall_s: float = Field(
        30.0, gt=0, description="Seconds for one file; when thorough, a minute of video."
    )
    decode_cpu_s: float = Field(60.0, gt=0, description="CPU seconds for one file.")
    decode_memory_bytes: int = Field(2 * GIB, gt=0, description="Address space of a decoder process.")
    c2pa_trust_list: Path | None = Field(
        None,
        description="File of certificates (PEM) whose holders are trusted to sign where a video comes from. "
        "Without it, no signer is `trusted`. Read at the start.",
    )
    c2pa_timeout_s: float = Field(
        2.0, gt=0, description="Seconds for the signed manifests (C2PA) of one file; then they are `failed`."
    )
    max_side: int = Field(8192, gt=0, description="Largest side of a frame in pixels.")
    max_pixels: int = Field(8192 * 4352, gt=0, description="Largest frame in pixels.")
    max_frames: int = Field(1_000_000, gt=0, description="Most frames of a file.")
    max_duration_s: float = Field(6 * 3600.0, gt=0, description="Longest file in seconds.")

    @model_validator(mode="after")
    def _keys_are_strong(self) -> "Settings":
        if any(len(key.get_secret_value()) < MIN_KEY_CHARACTERS for key in self.api_keys):
            raise ValueError(f"a key in SPECSEM_API_KEYS is shorter than {MIN_KEY_CHARACTERS} characters")
        return self

    @model_validator(mode="after")
    def _replicas_are_in_order(self) -> "Settings":
        if self.ray_max_replicas is not None and self.ray_max_replicas < self.ray_replicas:
            raise ValueError("SPECSEM_RAY_MAX_REPLICAS is less than SPECSEM_RAY_REPLICAS")
        return self

    @field_validator("database_password_file")
    @classmethod
    def _holds_a_password(cls, path: Path | None) -> Path | None:
        if path is not None:
            _read_secret(path)
        return path

    @field_validator("url_fetch_hosts", "webhook_hosts")
    @classmethod
    def _are_hosts(cls, hosts: list[str]) -> list[str]:
        return [
            ("*." if host.startswith("*.") else "") + parse_host(host.removeprefix("*.")) for host in hosts
        ]

    @field_validator("url_fetch_internal", "webhook_internal")
    @classmethod
    def _are_hosts_or_networks(cls, entries: list[str]) -> list[str]:
        return [_network(entry) if _is_network(entry) else parse_host(entry) for entry in entries]

    @property
    def fetch_rules(self) -> Rules:
        """Where files may be fetched from."""
        return _rules(
            http=self.url_fetch_http,
            ports=self.url_fetch_ports,
            hosts=self.url_fetch_hosts,
            internal=self.url_fetch_internal,
            connect_s=self.url_fetch_connect_s,
            idle_s=self.url_fetch_idle_s,
            timeout_s=self.url_fetch_timeout_s,
        )

    def trust_list(self) -> TrustList | None:
        """Whom the operator trusts to sign, as the file says now.

        Raises:
            TrustListUnusable: it can't be read, or is something else.
        """
        return read_trust_list(self.c2pa_trust_list) if self.c2pa_trust_list else None

    def policies(self) -> PolicyBook:
        """Every policy that ships, and those of the file as it is now.

        Raises:
            FileUnusable, PolicyRefused: the file can't be read, or holds something else.
        """
        return PolicyBook.read(self.policy_file)

    def policies_in_use(self) -> list[Policy]:
        """The active one, and the one in its shadow.

        Raises:
            FileUnusable, PolicyRefused: as ``policies``.
            UnknownPolicy: there is none of a name that is set.
        """
        book = self.policies()
        return [book.policy(name) for name in (self.policy, self.policy_shadow) if name]

    def operating_point(self) -> str:
        """Whose thresholds give the verdicts: that of the active policy.

        Raises:
            FileUnusable, PolicyRefused: as ``policies``.
            UnknownPolicy: there is no policy of that name.
        """
        return self.policies().policy(self.policy).operating_point

    @property
    def webhook_rules(self) -> Rules:
        """Where webhooks may lead."""
        return _rules(
            http=self.webhook_http,
            ports=self.webhook_ports,
            hosts=self.webhook_hosts,
            internal=self.webhook_internal,
            connect_s=self.webhook_timeout_s,
            idle_s=self.webhook_timeout_s,
            timeout_s=self.webhook_timeout_s,
        )

    @property
    def database_address(self) -> str | None:
        """The address of the database of jobs with its password; None: SQLite in the data folder."""
        address = self.database_url.get_secret_value() if self.database_url else None
        if address is None or self.database_password_file is None:
            return address
        try:
            url = make_url(address)
        except ArgumentError:
            return address  # who opens it says what is wrong
        password = _read_secret(self.database_password_file)
        return url.set(password=password).render_as_string(hide_password=False)

    @property
    def limits(self) -> Limits:
        """The same limits as the decoder knows them."""
        return Limits(
            max_bytes=self.max_upload_bytes,
            max_side=self.max_side,
            max_pixels=self.max_pixels,
            max_frames=self.max_frames,
            max_duration_s=self.max_duration_s,
            wall_s=self.decode_wall_s,
            cpu_s=self.decode_cpu_s,
            memory_bytes=self.decode_memory_bytes,
            c2pa_s=self.c2pa_timeout_s,
        )

    def make_data_dir(self) -> None:
        """Make the data folder, and see that it can be written.

        Raises:
            DataDirUnusable: it can't.
        """
        try:
            self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.data_dir):
                pass
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise DataDirUnusable(
                f"The data folder {self.data_dir} can't be written: {reason}. "
                "Set SPECSEM_DATA_DIR to another."
            ) from error

    def keys(self) -> list[bytes]:
        """All configured keys, those of the file included; not those of the database.

        Raises:
            ExposureRefused: the key file can't be read or holds a weak key.
        """
        keys = [key.get_secret_value() for key in self.api_keys]
        if self.api_keys_file is not None:
            try:
                lines = self.api_keys_file.read_text(encoding="utf-8").splitlines()
            except (OSError, UnicodeDecodeError) as error:
                raise ExposureRefused(
                    f"The file of keys (SPECSEM_API_KEYS_FILE) can't be read: {type(error).__name__}."
                ) from error
            found = [key for line in lines if (key := line.partition("#")[0].strip())]
            if any(len(key) < MIN_KEY_CHARACTERS for key in found):
                raise ExposureRefused(
                    f"SPECSEM_API_KEYS_FILE holds a key under {MIN_KEY_CHARACTERS} characters."
                )
            keys += found
        return [key.encode() for key in keys]


def _rules(
    *, http: bool, ports: Sequence[int], hosts: Sequence[str], internal: Sequence[str], **times_s: float
) -> Rules:
    """Rules in the words of settings; ``internal`` holds hosts and networks."""
    networks = [entry for entry in internal if _is_network(entry)]
    return Rules(
        http=http,
        ports=frozenset(ports or ([443, 80] if http else [443])),
        hosts=frozenset(hosts),
        internal_hosts=frozenset(internal) - frozenset(networks),
        internal_networks=tuple(map(ipaddress.ip_network, networks)),
        **times_s,
    )


def parse_address(text: str) -> IPv4Address | IPv6Address | None:
    """An IP address without its zone; mapped IPv6 as what it maps. None: it is no address."""
    try:
        ip = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(ip, "ipv4_mapped", None) or ip


@functools.lru_cache(maxsize=64)  # asked at every request, of the same few
def is_loopback_address(address: str) -> bool:
    """Whether this IP address (no name) never leaves the machine; mapped IPv6 counts as what it maps."""
    ip = parse_address(address)
    return ip is not None and ip.is_loopback


def is_loopback_name(host: str) -> bool:
    """Whether a host name or address means this machine, by what it says and never by a look-up."""
    name = host.strip("[]").rstrip(".").lower()
    return name == "localhost" or name.endswith(".localhost") or is_loopback_address(name)
