"""The CaloChallenge's HDF5 files as a data format."""

from dataclasses import dataclass
from pathlib import Path

from bitsearch.core.errors import DataError
from bitsearch.core.task import Progress
from bitsearch.models import reading
from bitsearch.models.showers import files, generator
from bitsearch.models.showers.geometry import GEOMETRIES


@dataclass(frozen=True)
class ShowerFormat:
    """Showers of all data sets, which their numbers of voxels tell apart."""

    name: str = "CaloChallenge"
    datasets: tuple[str, ...] = tuple(GEOMETRIES)
    extensions: tuple[str, ...] = (".hdf5", ".h5")
    roles: tuple[str, ...] = generator.ROLES

    def sniff(self, path: Path) -> bool:
        """Tell by the two data sets."""
        try:
            with reading.hdf5(path, files.EXPECTED) as file:
                return "incident_energies" in file and "showers" in file
        except DataError:
            return False

    def check(self, path: Path) -> files.FileSummary:
        """Read and summarise a whole file; raises as `files.check` does."""
        return files.check(path)

    def make(
        self,
        dataset: str,
        events: int,
        seed: int,
        out: Path,
        role: str | None = None,
        workers: int | None = None,
        progress: Progress = lambda what, share: None,
    ) -> Path:
        """Generate showers; raises as `generator.make` does."""
        return generator.make(dataset, events, seed, out, role or self.roles[0], workers, progress)


CALOCHALLENGE = ShowerFormat()
