"""What a person sees on stderr while a run goes on: rich in a terminal, plain lines elsewhere."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from bitsearch.core import signals
from bitsearch.core.measurement import Measurement, Metric


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
        """Say what begins; raises Interrupted once a signal has come."""
        signals.check()
        self.console.print(f"· {name}")
        self._bar.reset(self._task, description=name, total=1.0, visible=False)

    def say(self, text: str) -> None:
        """Print one line below the stage; raises Interrupted once a signal has come."""
        signals.check()
        self.console.print(f"  {text}")

    def progress(self, text: str, share: float) -> None:
        """Show the share done, from 0 to 1, of what is under way; raises Interrupted once a signal has come."""
        signals.check()
        self._bar.update(self._task, description=text, completed=share, visible=share < 1.0)

    @contextmanager
    def trials(
        self, results: Mapping[str, Measurement], total: int, objective: Metric
    ) -> Iterator[Callable[[Measurement], None]]:
        """Show how many configurations are measured, the best so far and the time left.

        `results` are those measured already; the caller adds each new one before it shows it.
        """
        began, first = time.monotonic(), len(results)
        better = min if objective.direction == "minimize" else max
        self._bar.update(self._trials, total=total, completed=first, description="search", visible=True)

        def show(new: Measurement) -> None:
            signals.check()
            done = len(results)
            left = (time.monotonic() - began) / max(done - first, 1) * max(total - done, 0)
            values = [item.metrics[objective.name].value for item in results.values() if not item.failure]
            result = f"failed: {new.failure}" if new.failure else f"{objective.name} {_value(new, objective)}"
            best = f"best {better(values):.4g}  " if values else ""
            self.console.print(
                f"  {done}/{total}  {new.strategy or new.digest}  fraction {new.executed_fraction:.3f}  {result}  "
                f"{best}about {_duration(left)} left",
                soft_wrap=True,
            )
            self._bar.update(self._trials, completed=done)

        yield show
        self._bar.update(self._trials, visible=False)


def _value(measurement: Measurement, metric: Metric) -> str:
    return f"{measurement.metrics[metric.name].value:.4g}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes:02d}m" if hours else f"{minutes}m {rest:02d}s"
