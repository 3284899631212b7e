"""What a user asks of `bitsearch run`."""

from dataclasses import dataclass, field
from pathlib import Path

from bitsearch.core.budget import Limits
from bitsearch.core.errors import ConfigurationError
from bitsearch.core.precision import Precision
from bitsearch.run.samplers import check_sampler


@dataclass(frozen=True)
class RunRequest:
    """The flags of `bitsearch run`, with their types."""

    model: str
    dataset: str | None
    data: tuple[Path, ...]
    preset: str
    trials: int
    seed: int
    device: str
    workers: int | None
    storage: str | None
    out: Path
    sampler: str = "mask"
    recipe: str | None = None
    min_fraction: float = 0.0
    keep: tuple[str, ...] = ()
    precisions: tuple[Precision, ...] = (Precision.FLOAT32, Precision.TERNARY)
    limits: Limits = field(default_factory=Limits)
    timeout: float | None = None
    dask: str | None = None
    command: tuple[str, ...] | None = None

    def check(self) -> None:
        """Raise ConfigurationError for numbers out of range, or a sampler that is not there or knows no limits."""
        for flag, number in (("--trials", self.trials), ("--workers", self.workers)):
            if number is not None and number < 1:
                raise ConfigurationError(f"{flag} {number}: expected 1 or more")
        if self.timeout is not None and not self.timeout > 0:
            raise ConfigurationError(f"--timeout {self.timeout:g}: expected more than 0 seconds")
        if self.min_fraction > 0 and len(self.precisions) > 2:
            raise ConfigurationError(
                f"--min-fraction {self.min_fraction:g}: among {len(self.precisions)} precisions bits a weight count; "
                "limit them with --max-size"
            )
        limited = self.min_fraction > 0 or bool(self.keep) or self.limits != Limits()
        check_sampler(self.sampler, limited)
