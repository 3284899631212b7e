"""Jets in public `.npz` files and in our compact HDF5 as data formats."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar
from zipfile import ZipFile, is_zipfile

import h5py

from bitsearch.core.errors import DataError
from bitsearch.core.task import Progress
from bitsearch.models import reading
from bitsearch.models.jets import quark_gluon, wz
from bitsearch.models.jets.files import Label, Table
from bitsearch.models.jets.quark_gluon import QuarkGluonJets
from bitsearch.models.jets.wz import WZJets

T = TypeVar("T", bound=Table)


class Generate(Protocol):
    """Generate a file of jets."""

    def __call__(
        self, jets: int, seed: int, out: str | Path, workers: int | None, progress: Progress
    ) -> Path:
        """Give the file's path; raises DataError."""
        ...


@dataclass(frozen=True)
class JetFormat(Generic[T]):
    """Jets of one kind: `array` is in its `.npz` files and in no other's, `sample` comes with a checkout."""

    name: str
    array: str
    sample: Path
    read: Callable[[Path, int | None], tuple[T, Label | None]]
    summarise: Callable[[Path], quark_gluon.Summary | wz.Summary]
    generate: Generate
    extensions: tuple[str, ...] = (".h5", ".hdf5", ".npz")
    roles: tuple[str, ...] = ()

    @property
    def datasets(self) -> tuple[str, ...]:
        """The data set that is called as the format is."""
        return (self.name,)

    def sniff(self, path: Path) -> bool:
        """Tell by the arrays of a public file, or by the label of a compact one."""
        try:
            with reading.opened(path, "npz or HDF5", self.name):
                if is_zipfile(path):
                    with ZipFile(path) as archive:
                        return f"{self.array}.npy" in archive.namelist()
                with h5py.File(path, "r") as file:
                    return str(file.attrs.get("dataset", "")) == self.name
        except DataError:
            return False

    def check(self, path: Path) -> quark_gluon.Summary | wz.Summary:
        """Read and summarise a whole file; raises as its reader does."""
        return self.summarise(path)

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
        """Generate jets; raises as the generator does, and for every role."""
        if role:
            raise DataError(f"{dataset} has no roles; another --seed gives independent jets")
        return self.generate(events, seed, out, workers, progress)


QUARK_GLUON: JetFormat[QuarkGluonJets] = JetFormat(
    quark_gluon.NAME,
    "y",
    quark_gluon.SAMPLE,
    quark_gluon.read_labelled,
    quark_gluon.check,
    quark_gluon.make,
)
WZ: JetFormat[WZJets] = JetFormat(wz.NAME, "target", wz.SAMPLE, wz.read_labelled, wz.check, wz.make)
