"""What every run does with its folder: stages with their wall time, and going on only with the same settings."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from bitsearch.core.errors import ConfigurationError
from bitsearch.core.manifest import Stage
from bitsearch.core.rundir import RunFolder
from bitsearch.run.terminal import Terminal


@contextmanager
def stage(folder: RunFolder, terminal: Terminal, name: str) -> Iterator[None]:
    """Name a stage; when it has ended, add its wall time to what earlier sittings spent on it."""
    terminal.stage(name)
    folder.update(stage=name)
    began = time.monotonic()
    yield
    add_time(folder, name, time.monotonic() - began)


def add_time(folder: RunFolder, name: str, seconds: float) -> None:
    """Add wall time, in seconds, to a stage."""
    stages = {item.name: item.seconds for item in folder.manifest().stages}
    stages[name] = stages.get(name, 0.0) + seconds
    folder.update(stages=tuple(Stage(*item) for item in stages.items()))


def require_same(folder: RunFolder, known: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Raise ConfigurationError that names what differs, with both values."""
    differing = [name for name in {**known, **now} if known.get(name) != now.get(name)]
    if differing:
        parts = [
            f"{name} {known.get(name, 'nothing')}, now {now.get(name, 'nothing')}" for name in differing[:3]
        ]
        more = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
        raise ConfigurationError(
            f"{folder.path} holds a run with other settings or data ({'; '.join(parts)}{more}); "
            "choose another --out, or repeat that run's flags to continue it"
        )
