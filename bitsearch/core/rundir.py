"""The folder of one run: every record lies here, and everything after the measurement reads only from here."""

import dataclasses
import fcntl
import os
import platform
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from bitsearch.core import pareto
from bitsearch.core.atomic import name_file, remove_unfinished, write_atomically
from bitsearch.core.errors import ConfigurationError, RecordError
from bitsearch.core.front import Front
from bitsearch.core.manifest import Manifest, Pulse
from bitsearch.core.measurement import Evaluation, Measurement
from bitsearch.core.records import decode, encode

ADVICE = "choose another --out, or put back the file as the run wrote it"


class RunFolder:
    """Read and write `run.json`, `results.jsonl`, `front.json`, `progress.json` and the folders of a run.

    Reading raises RecordError for a file that is damaged.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.models = self.path / "models"
        self.report = self.path / "report"
        self.work = self.path / "work"
        self._manifest, self._results, self._front, self._pulse = (
            self.path / name for name in ("run.json", "results.jsonl", "front.json", "progress.json")
        )
        self._lock: IO[str] | None = None

    @classmethod
    def open(cls, path: Path | str) -> "RunFolder":
        """Open a folder that a run has written to.

        Raises:
            ConfigurationError: there is no `run.json` in it.
        """
        folder = cls(path)
        if not folder.begun:
            raise ConfigurationError(
                f"{path} holds no run.json; expected the --out folder of a `bitsearch run`"
            )
        return folder

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for one process; the lock falls with the process, however it ends.

        Raises:
            ConfigurationError: another process holds it, or it holds results of nobody knows what.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / ".lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ConfigurationError(
                    f"another run is writing to {self.path}; wait for it or choose another --out"
                ) from None
            if not lock.tell():
                lock.write(f"{platform.node()}-{secrets.token_hex(4)}")
                lock.flush()
            whole, torn = self._lines()
            if whole and not self.begun:
                raise ConfigurationError(
                    f"{self.path} holds results.jsonl without run.json, which says what they were measured with; "
                    + ADVICE
                )
            if torn:
                write_atomically(self._results, whole)
            remove_unfinished(self.path)
            self._lock = lock
            try:
                yield
            finally:
                self._lock = None

    def require_held(self) -> None:
        """Hold that the folder is still the one that was locked: none is made anew where somebody has removed it.

        Raises:
            RecordError: it was removed or moved.
        """
        if self._lock is None:
            return
        try:
            here = os.path.samestat(os.fstat(self._lock.fileno()), (self.path / ".lock").stat())
        except FileNotFoundError:
            here = False
        if not here:
            raise RecordError(
                f"{self.path} was removed or moved while a run was writing to it; put it back, "
                "and the same command continues"
            )

    @property
    def owner(self) -> str:
        """Name whoever writes to the folder, the same for every sitting; known once it has been locked."""
        return (self.path / ".lock").read_text()

    @property
    def begun(self) -> bool:
        """Whether there is a `run.json`."""
        return self._manifest.is_file()

    def sign_of_life(self) -> float:
        """Give when the run last wrote anything, in seconds since the epoch."""
        files = (self._manifest, self._results, self._pulse, *self.work.glob("*"))
        return max(file.stat().st_mtime for file in files if file.is_file())

    def manifest(self) -> Manifest:
        """Read `run.json`."""
        return decode(self._manifest.read_bytes(), Manifest, str(self._manifest), ADVICE)

    def write_manifest(self, manifest: Manifest) -> None:
        """Write `run.json`."""
        self._write(self._manifest, encode(manifest, indent=1))

    def update(self, **changes: Any) -> None:
        """Change fields of `run.json`."""
        self.write_manifest(dataclasses.replace(self.manifest(), **changes))

    def write_pulse(self, pulse: Pulse) -> None:
        """Write `progress.json`."""
        self._write(self._pulse, encode(pulse))

    def pulse(self) -> Pulse | None:
        """Read how the run stood at its last sign of life, if it has given one."""
        if not self._pulse.is_file():
            return None
        return decode(self._pulse.read_bytes(), Pulse, str(self._pulse), "remove it")

    def append(self, measurement: Measurement) -> None:
        """Add one line to `results.jsonl`; it is on disk when this returns."""
        self.require_held()
        try:
            with self._results.open("a") as file:
                file.write(encode(measurement) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            name_file(error, self._results)
            raise

    def results(self) -> list[Measurement]:
        """Read `results.jsonl` up to its last whole line: a process may be writing, or have died, in the middle."""
        whole, _ = self._lines()
        advice = "remove the line, and its configuration is measured again"
        return [
            _checked(decode(line, Measurement, where, advice), where, advice)
            for number, line in enumerate(whole.split(b"\n")[:-1], 1)
            if (where := f"{self._results}, line {number}")
        ]

    def _write(self, file: Path, content: str) -> None:
        self.require_held()
        write_atomically(file, content)

    def _lines(self) -> tuple[bytes, bytes]:
        """Split `results.jsonl` into whole lines and what a killed process left of one."""
        text = self._results.read_bytes() if self._results.is_file() else b""
        end = text.rfind(b"\n") + 1
        return text[:end], text[end:]

    def model_file(self, item: Measurement) -> Path | None:
        """Give the file to serve that a measurement kept, if it lies in the folder and has the size it had then."""
        if item.model is None:
            return None
        root = self.path.resolve()
        path = (root / item.model).resolve()
        whole = path.is_relative_to(root) and path.is_file() and path.stat().st_size == item.size_bytes
        return path if whole else None

    def write_front(self, front: Front) -> None:
        """Write `front.json`."""
        self._write(self._front, encode(front, indent=1))

    def front(self) -> Front | None:
        """Read `front.json`; None before the search has ended."""
        if not self._front.is_file():
            return None
        where, advice = str(self._front), "remove it, and the same `bitsearch run` writes it again"
        front = decode(self._front.read_bytes(), Front, where, advice)
        objective = self.manifest().objective_metric if self.begun else None
        for item in front.members:
            _checked(item, where, advice)
            if objective and not pareto.usable(item, objective):
                raise RecordError(f"{where}: {item.digest} has no finite {objective.name}; {advice}")
        return front

    def write_evaluation(self, evaluation: Evaluation) -> None:
        """Write `evaluation/<digest>.json`."""
        self._write(self._evaluation(evaluation.digest), encode(evaluation))

    def evaluation(self, digest: str) -> Evaluation | None:
        """Read the physics plots of a configuration, if it has been evaluated."""
        file = self._evaluation(digest)
        if not file.is_file():
            return None
        advice = "remove it, and the same `bitsearch run` evaluates again"
        return decode(file.read_bytes(), Evaluation, str(file), advice)

    def _evaluation(self, digest: str) -> Path:
        return self.path / "evaluation" / f"{digest}.json"


def _checked(item: Measurement, where: str, advice: str) -> Measurement:
    """Refuse a record that contradicts itself."""
    try:
        expected = item.configuration.digest
    except ConfigurationError as error:
        raise RecordError(f"{where}: {error}; {advice}") from error
    if item.digest != expected:
        raise RecordError(
            f"{where}: digest {item.digest} is not that of its assignment and options, {expected}; {advice}"
        )
    for name in ("fraction", "weight_fraction", "executed_fraction"):
        if not 0 <= (value := getattr(item, name)) <= 1:
            raise RecordError(f"{where}: {name} is {value}, expected 0 to 1; {advice}")
    return item
