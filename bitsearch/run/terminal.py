"""What a person sees on stderr while a run goes on: rich in a terminal, plain lines elsewhere."""

from collections.abc import Mapping

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from bitsearch.core import signals
from bitsearch.core.measurement import Measurement, Metric


class Terminal:
    """Show stages, the share done of what is under way, and how the search stands."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, highlight=False)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(30),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
        )
        self._bar = Progress(
            *columns, console=self.console, disable=not self.console.is_terminal, transient=True
        )
        self._task, self._done, self._whole = (
            self._bar.add_task("", total=1.0, visible=False, left="") for _ in range(3)
        )

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
        self._bar.update(self._done, visible=False)

    def say(self, text: str) -> None:
        """Print one line below the stage; raises Interrupted once a signal has come."""
        signals.check()
        self.console.print(f"  {text}", soft_wrap=True)

    def step(self, text: str, share: float, seconds_left: float) -> None:
        """Say that a part of a stage is done: the share of the stage, and the time left of everything."""
        self.say(f"{text}, about {duration(seconds_left)} left")
        self._bar.update(self._done, description="stage", completed=share, visible=share < 1.0)

    def whole(self, seconds_left: float, seconds: float) -> None:
        """Show the time left of everything, which has taken so many seconds."""
        self._bar.update(
            self._whole,
            description="whole run",
            completed=seconds / max(seconds + seconds_left, 1e-9),
            left=f"about {duration(seconds_left)} left",
            visible=True,
        )

    def progress(self, text: str, share: float) -> None:
        """Show the share done, from 0 to 1, of what is under way; raises Interrupted once a signal has come."""
        signals.check()
        self._bar.update(self._task, description=text, completed=share, visible=share < 1.0)

    def trial(
        self,
        new: Measurement,
        results: Mapping[str, Measurement],
        total: int,
        objective: Metric,
        seconds_left: float,
    ) -> None:
        """Say what a configuration of the search has come to, and the best so far; `new` is among the results."""
        better = min if objective.direction == "minimize" else max
        values = [item.metrics[objective.name].value for item in results.values() if not item.failure]
        result = f"failed: {new.failure}" if new.failure else f"{objective.name} {_value(new, objective)}"
        best = f"  best {better(values):.4g}" if values else ""
        done = len(results)
        bits = f"{new.mean_bits:.2f} bits" if new.mean_bits is not None else ""
        reached = bits or f"fraction {new.executed_fraction:.3f}"
        text = f"{done}/{total}  {new.strategy or new.digest}  {reached}  {result}{best}"
        self.step(text, done / total, seconds_left)


def _value(measurement: Measurement, metric: Metric) -> str:
    return f"{measurement.metrics[metric.name].value:.4g}"


def duration(seconds: float) -> str:
    """Word a time for people."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes:02d}m" if hours else f"{minutes}m {rest:02d}s"
