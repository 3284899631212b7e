"""One study, several runs: what each needs of the others' folders."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from bitsearch.core.atomic import write_atomically
from bitsearch.core.measurement import Measurement
from bitsearch.core.names import safe_name
from bitsearch.core.rundir import RunFolder
from bitsearch.run.leases import Lease


@dataclass(frozen=True)
class Sharing:
    """The part of a run that knows of others: under which name it leases trials, and how it gets at their files.

    Files are copied from the folder where their run keeps them: `--out` of all runs lies where all machines see it
    under the same path.
    """

    folder: RunFolder
    say: Callable[[str], None]

    @property
    def lease(self) -> Lease:
        """How this run leases trials."""
        return Lease(self.folder.owner, str(self.folder.path.resolve()))

    def gather(self, measurement: Measurement, source: str) -> Measurement:
        """Copy the files that another run has kept of a configuration; a record of files out of sight names none."""
        if measurement.model is None or self.folder.model_file(measurement):
            return measurement
        other = RunFolder(source)
        file = other.model_file(measurement) if source else None
        if file is None:
            self.say(
                f"{measurement.digest}: its file is not seen from here; expected {measurement.model} in {source}"
            )
            return replace(measurement, model=None)
        # The name has been another machine's: it chooses no path.
        name = f"{safe_name(Path(measurement.model).stem)}.onnx"
        repeated = sorted(other.work.glob(f"full-{measurement.configuration.digest}*.onnx"))
        for found, to in [
            (file, self.folder.models / name),
            *((item, self.folder.work / item.name) for item in repeated),
        ]:
            write_atomically(to, found.read_bytes())
        return replace(measurement, model=f"models/{name}")
