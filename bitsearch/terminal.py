"""What a person sees on stderr while a run goes on: rich in a terminal, plain lines elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from bitsearch.records import Measurement, Metric


class Terminal:
    """Show stages, the share done of what is under way, and how the search stands."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, highlight=False)
        columns = (TextColumn("{task.description}"), BarColumn(30), TaskProgressColumn(), TimeElapsedColumn())
        self._bar = Progress(
            *columns, console=self.console, disable=not self.console.is_terminal, transient=True
        )
        self._task = self._bar.add_task("", total=1.0, visible=False)
        self._trials = self._bar.add_task("", total=1.0, visible=False)

    def __enter__(self) -> "Terminal":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def stage(self, name: str) -> None:
        """Say what begins."""
        self.console.print(f"· {name}")
        self._bar.reset(self._task, description=name, total=1.0, visible=False)

    def say(self, text: str) -> None:
        """Print one line below the stage."""
        self.console.print(f"  {text}")

    def progress(self, text: str, share: float) -> None:
        """Show the share done, from 0 to 1, of what is under way."""
        self._bar.update(self._task, description=text, completed=share, visible=share < 1.0)

    @contextmanager
    def trials(self, done: int, total: int) -> Iterator[Callable[[Measurement, Metric], None]]:
        """Show how many configurations are measured, the best so far and the time left."""
        began, first = time.monotonic(), done
        best: float | None = None
        self._bar.update(self._trials, total=total, completed=done, description="search", visible=True)

        def show(measurement: Measurement, objective: Metric) -> None:
            nonlocal done, best
            done += 1
            left = (time.monotonic() - began) / (done - first) * max(total - done, 0)
            name = measurement.strategy or measurement.digest
            if measurement.failure:
                result = f"failed: {measurement.failure}"
            else:
                value = measurement.metrics[objective.name].value
                better = min if objective.direction == "minimize" else max
                best = value if best is None else better(best, value)
                result = f"{objective.name} {value:.4g}"
            standing = "" if best is None else f"best {best:.4g}  "
            self.console.print(
                f"  {done}/{total}  {name}  fraction {measurement.executed_fraction:.3f}  {result}  "
                f"{standing}about {_duration(left)} left"
            )
            self._bar.update(self._trials, completed=done)

        yield show
        self._bar.update(self._trials, visible=False)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes:02d}m" if hours else f"{minutes}m {rest:02d}s"
