"""The folder of one run: every record lies here, and everything after the measurement reads only from here."""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bitsearch.core.errors import ConfigurationError
from bitsearch.core.measurement import Evaluation, Measurement


class RunFolder:
    """Read and write `run.json`, `results.jsonl`, `front.json`, `models/`, `evaluation/` and `report/` of a run."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.models = self.path / "models"
        self.report = self.path / "report"
        self.work = self.path / "work"

    @classmethod
    def open(cls, path: Path | str) -> "RunFolder":
        """Open a folder that a run has written to.

        Raises:
            ConfigurationError: there is no `run.json` in it.
        """
        folder = cls(path)
        if not (folder.path / "run.json").is_file():
            raise ConfigurationError(
                f"{path} holds no run.json; expected the --out folder of a `bitsearch run`"
            )
        return folder

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for one process; the lock falls with the process, however it ends.

        Raises:
            ConfigurationError: another process holds it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ConfigurationError(
                    f"another run is writing to {self.path}; wait for it or choose another --out"
                ) from None
            whole, torn = self._lines()
            if torn:
                write_atomically(self.path / "results.jsonl", whole)
            yield

    def settings(self) -> dict[str, Any]:
        """Read `run.json`; an empty dictionary when the run has not begun."""
        file = self.path / "run.json"
        return dict(json.loads(file.read_text())) if file.is_file() else {}

    def update(self, values: Mapping[str, Any]) -> None:
        """Merge `values` into `run.json`."""
        write_atomically(self.path / "run.json", json.dumps({**self.settings(), **values}, indent=1))

    def append(self, measurement: Measurement) -> None:
        """Add one line to `results.jsonl`; it is on disk when this returns."""
        with (self.path / "results.jsonl").open("a") as file:
            file.write(measurement.to_json() + "\n")
            file.flush()
            os.fsync(file.fileno())

    def results(self) -> list[Measurement]:
        """Read `results.jsonl` up to its last whole line: a process may be writing, or have died, in the middle."""
        whole, _ = self._lines()
        return [Measurement.from_json(line) for line in whole.split("\n")[:-1]]

    def _lines(self) -> tuple[str, str]:
        """Split `results.jsonl` into whole lines and what a killed process left of one."""
        file = self.path / "results.jsonl"
        text = file.read_text() if file.is_file() else ""
        end = text.rfind("\n") + 1
        return text[:end], text[end:]

    def write_front(self, front: list[Measurement]) -> None:
        """Write `front.json`, best performance first."""
        write_atomically(self.path / "front.json", "[" + ",\n ".join(item.to_json() for item in front) + "]")

    def front(self) -> list[Measurement]:
        """Read `front.json`; empty before the search has ended."""
        file = self.path / "front.json"
        raw = json.loads(file.read_text()) if file.is_file() else []
        return [Measurement.from_json(json.dumps(item)) for item in raw]

    def write_evaluation(self, evaluation: Evaluation) -> None:
        """Write `evaluation/<digest>.json`."""
        write_atomically(self.path / "evaluation" / f"{evaluation.digest}.json", evaluation.to_json())

    def evaluation(self, digest: str) -> Evaluation | None:
        """Read the physics plots of a configuration, if it has been evaluated."""
        file = self.path / "evaluation" / f"{digest}.json"
        return Evaluation.from_json(file.read_text()) if file.is_file() else None


def write_atomically(file: Path, content: str | bytes) -> None:
    """Write beside `file`, then rename, so that no reader or crash ever sees half of it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    beside.write_bytes(content.encode() if isinstance(content, str) else content)
    beside.replace(file)
