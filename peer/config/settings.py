"""What a volunteer decides alone: the schema of peer.toml."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from peer.config.address import parse_address
from peer.config.endpoint import parse_endpoint
from peer.config.limits import LimitSettings, PauseSettings
from peer.config.section import Section

Seconds = Annotated[float, Field(gt=0.0, le=1e7, allow_inf_nan=False)]


def _listened_at(text: str) -> str:
    address = parse_address(text)
    if address is None or not address.ip or address.peer_id or address.relayed:
        raise ValueError(f"{text!r} is no address to listen at; write /ip4/0.0.0.0/tcp/31337")
    return text


def _announced(text: str) -> str:
    address = parse_address(text)
    if address is None or address.peer_id or not address.port or address.everywhere:
        raise ValueError(
            f"{text!r} is no address that others could dial; write it like "
            "/ip4/203.0.113.7/tcp/31337 or /dns4/example.org/tcp/31337"
        )
    return text


def _dialled(text: str) -> str:
    address = parse_address(text)
    if address is None or not address.names_a_peer:
        raise ValueError(
            f"{text!r} is no address of a peer; write it like /ip4/203.0.113.7/tcp/31337/p2p/ID, "
            "as `ctpeer invite --json` prints it there"
        )
    return text


_ONLY_HERE = {"127.0.0.1", "::1", "localhost"}

ListenAddress = Annotated[str, AfterValidator(_listened_at)]
AnnouncedAddress = Annotated[str, AfterValidator(_announced)]
PeerAddress = Annotated[str, AfterValidator(_dialled)]


class ComputeSettings(Section):
    """What to train on.

    Attributes:
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        threads: torch's threads; one less than the cores if not given.
        micro_batch: Samples at once; found out if not given.
        precision: `auto` takes bf16 where the device has it in hardware, else fp32.
    """

    device: str = "auto"
    threads: int | None = Field(default=None, ge=1, le=1024)
    micro_batch: int | None = Field(default=None, ge=1, le=65536)
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"


class DataSettings(Section):
    """What to train with.

    Attributes:
        include: Patterns of shard names; everything if empty.
        exclude: Patterns of shard names to leave out.
        max_bytes: The most that the chosen shards may take together.
        private: A folder whose files are trained on too and never leave this machine.
        private_column: Where the text stands in its jsonl, csv and parquet files.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    max_bytes: int | None = Field(default=None, ge=1)
    private: Path | None = None
    private_column: str = Field(default="text", min_length=1, max_length=100)

    @field_validator("private")
    @classmethod
    def _private_folder_is_the_same_wherever_we_start(cls, path: Path | None) -> Path | None:
        if path is not None and not path.expanduser().is_absolute():
            raise ValueError(f"give an absolute path instead of {str(path)!r}")
        return path


class CheckpointSettings(Section):
    """How often checkpoints are written, and which stay.

    Attributes:
        interval_s: The time from one to the next.
        keep: How many of the newest stay.
        keep_accepted: How many of the newest that validators accepted stay.
        keep_every_epochs: Of each stretch of so many epochs the first one stays for ever; no such
            history if not given.
    """

    interval_s: Seconds = 30.0
    keep: int = Field(default=3, ge=1, le=10_000)
    keep_accepted: int = Field(default=5, ge=0, le=10_000)
    keep_every_epochs: int | None = Field(default=None, ge=1, le=10**9)


class EvaluationSettings(Section):
    """How often the model is scored on held-out data; at most 2 % of the time goes there."""

    interval_s: Seconds = 15.0


class MetricsSettings(Section):
    """Where /metrics is served; without a port 8470 is taken, or a free one if it is not free.

    Attributes:
        host: The address of this machine to serve it at; only this machine can ask there if not
            given.
        port: The port.
        announce: Where others reach it, such as 203.0.113.7:8470, told to the whole run so that
            whoever watches it may scrape this peer; nobody is told if not given.
    """

    host: str = Field(default="127.0.0.1", min_length=1)
    port: int | None = Field(default=None, ge=0, le=65535)
    announce: str | None = None

    @field_validator("announce")
    @classmethod
    def _announced_is_reachable(cls, announce: str | None, info: ValidationInfo) -> str | None:
        if announce is None:
            return None
        endpoint = parse_endpoint(announce)
        if endpoint is None or endpoint.ip.is_unspecified or endpoint.ip.is_multicast:
            raise ValueError(
                f"{announce!r} is no address that others could ask; write an IP address and a port "
                "like 203.0.113.7:8470"
            )
        host = info.data.get("host", "")
        if host in _ONLY_HERE and not endpoint.ip.is_loopback:
            raise ValueError(
                f"/metrics is served at {host}, where only this machine can ask; set host, too, "
                'such as "0.0.0.0", and let nobody but the run\'s monitor through to the port'
            )
        return str(endpoint)


class PageSettings(Section):
    """The local page, on the loopback interface only.

    Attributes:
        enabled: Whether there is one.
        port: Where; without it 8460 is taken, or a free one if it is not free.
    """

    enabled: bool = True
    port: int | None = Field(default=None, ge=0, le=65535)


class WorkerSettings(Section):
    """How long to wait for the worker before it is killed.

    Attributes:
        hang_timeout_s: For a word of its, or of its training; longer if its steps are.
        start_timeout_s: Until it gets to work, and for its first step of each kind.
        stop_timeout_s: For its end, when it was told to stop.
    """

    hang_timeout_s: float = Field(default=300.0, ge=2.0, le=1e7, allow_inf_nan=False)
    start_timeout_s: Seconds = 900.0
    stop_timeout_s: float = Field(default=30.0, gt=0.0, le=3600.0, allow_inf_nan=False)


class SwarmSettings(Section):
    """How this peer meets the others.

    Attributes:
        enabled: Whether it looks for others at all.
        listen: Addresses to listen at. Port 0 is a free one, and the same again at the next start
            if it is still free.
        announce: Addresses to tell to others in place of those that the machine knows of itself,
            such as a forwarded port's.
        peers: Peers to start from, beside those of the invite and those known from before.
        client: Whether to listen nowhere, for machines that nobody can dial: such a peer dials
            others, contributes and votes, but reduces no part and gives no records or files.
        relay: Whether others may reach a client over the peers that it was told to start from.
        upload_bytes_per_s: The most that goes to peers that fetch files from here; at most half of
            `limits.upload_mb_per_s`.
        matchmaking_timeout_s: How long a round waits for a group.
        part_timeout_s: How long a round waits for a part.
        call_timeout_s: How long any other question to a peer waits for its answer.
    """

    enabled: bool = True
    listen: tuple[ListenAddress, ...] = Field(
        default=("/ip4/0.0.0.0/tcp/0",), min_length=1, max_length=16
    )
    announce: tuple[AnnouncedAddress, ...] = Field(default=(), max_length=16)
    peers: tuple[PeerAddress, ...] = Field(default=(), max_length=64)
    client: bool = False
    relay: bool = True
    upload_bytes_per_s: int = Field(default=32 << 20, ge=1 << 16, le=1 << 40)
    matchmaking_timeout_s: float = Field(default=30.0, ge=1.0, le=3600.0, allow_inf_nan=False)
    part_timeout_s: float = Field(default=60.0, ge=1.0, le=3600.0, allow_inf_nan=False)
    call_timeout_s: float = Field(default=4.0, ge=0.1, le=600.0, allow_inf_nan=False)


class ValidationSettings(Section):
    """How this peer takes part in the judging of checkpoints.

    Attributes:
        take_seats: Whether it scores checkpoints when it is elected; it verifies verdicts anyway.
        role: A `validator` trains only as much as gives it a place among those who judge, and else
            takes in what the others make.
        look_s: How often it looks for others' records while a checkpoint is judged. The deadlines
            of a round grow with it, so it should be about the same at all peers.
    """

    take_seats: bool = True
    role: Literal["trainer", "validator"] = "trainer"
    look_s: float = Field(default=1.0, ge=0.05, le=60.0, allow_inf_nan=False)

    @field_validator("role")
    @classmethod
    def _validators_take_seats(cls, role: str, info: ValidationInfo) -> str:
        if role == "validator" and not info.data.get("take_seats", True):
            raise ValueError("a validator takes seats; leave out take_seats = false, or the role")
        return role


class LogSettings(Section):
    """How much the log tells."""

    level: Literal["debug", "info", "warning", "error"] = "info"


class Settings(Section):
    """All of peer.toml."""

    compute: ComputeSettings = ComputeSettings()
    data: DataSettings = DataSettings()
    checkpoint: CheckpointSettings = CheckpointSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    metrics: MetricsSettings = MetricsSettings()
    page: PageSettings = PageSettings()
    swarm: SwarmSettings = SwarmSettings()
    worker: WorkerSettings = WorkerSettings()
    limits: LimitSettings = LimitSettings()
    pause: PauseSettings = PauseSettings()
    validation: ValidationSettings = ValidationSettings()
    log: LogSettings = LogSettings()

    @field_validator("validation")
    @classmethod
    def _validators_meet_others(
        cls, validation: ValidationSettings, info: ValidationInfo
    ) -> ValidationSettings:
        swarm = info.data.get("swarm")
        if validation.role == "validator" and swarm is not None and not swarm.enabled:
            raise ValueError(
                "a validator judges what others train; leave out --alone (swarm.enabled = false), "
                "or its role"
            )
        return validation
