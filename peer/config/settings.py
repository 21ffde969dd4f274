"""What a volunteer decides alone: the schema of peer.toml."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator

from peer.config.section import Section

Seconds = Annotated[float, Field(gt=0.0, le=1e7, allow_inf_nan=False)]


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
    """How often checkpoints are written, and how many stay."""

    interval_s: Seconds = 30.0
    keep: int = Field(default=3, ge=1, le=10_000)


class EvaluationSettings(Section):
    """How often the model is scored on held-out data; at most 2 % of the time goes there."""

    interval_s: Seconds = 15.0


class MetricsSettings(Section):
    """Where /metrics is served; without a port 8470 is taken, or a free one if it is not free."""

    host: str = Field(default="127.0.0.1", min_length=1)
    port: int | None = Field(default=None, ge=0, le=65535)


class WorkerSettings(Section):
    """How long the worker may say nothing before it is taken for hung and started again."""

    hang_timeout_s: float = Field(default=300.0, ge=2.0, le=1e7, allow_inf_nan=False)
    start_timeout_s: Seconds = 900.0
    stop_timeout_s: float = Field(default=30.0, gt=0.0, le=3600.0, allow_inf_nan=False)


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
    worker: WorkerSettings = WorkerSettings()
    log: LogSettings = LogSettings()
