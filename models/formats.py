"""Formats of event files behind one protocol: how they are told, checked and made."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from bitsearch.core.errors import DataError, one_of
from bitsearch.models.jets.formats import QUARK_GLUON, WZ
from bitsearch.models.showers.format import CALOCHALLENGE

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from bitsearch.core.task import Progress


class DataFormat(Protocol):
    """A file format, and a generator of files in it.

    `datasets` are what `make` can generate, `extensions` what files are called, the usual one first. Each of `roles`
    gives independent events of the same seed; there are none where another seed does that.
    """

    @property
    def name(self) -> str:
        """What the format is called."""
        ...

    @property
    def datasets(self) -> tuple[str, ...]:
        """What `make` can generate."""
        ...

    @property
    def extensions(self) -> tuple[str, ...]:
        """What files are called, with the dot, the usual extension first."""
        ...

    @property
    def roles(self) -> tuple[str, ...]:
        """Which independent sets of events `make` gives for one seed, the usual one first."""
        ...

    def sniff(self, path: Path) -> bool:
        """Tell by its content whether a file is of this format; False for what cannot be read."""
        ...

    def check(self, path: Path) -> DataclassInstance:
        """Read a whole file and summarise it, with the `label` of who generated it.

        Raises:
            DataError: naming the first event that is wrong, or what the file is instead.
        """
        ...

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
        """Generate a file, which depends on everything but `workers`.

        Raises:
            DataError: numbers out of range, an unknown role, or a path that cannot be written.
        """
        ...


FORMATS: tuple[DataFormat, ...] = (CALOCHALLENGE, QUARK_GLUON, WZ)
DATASETS = tuple(dataset for item in FORMATS for dataset in item.datasets)


def of_dataset(dataset: str) -> DataFormat:
    """Give the format of a data set; raises DataError for an unknown one."""
    found = next((item for item in FORMATS if dataset in item.datasets), None)
    if found is None:
        raise DataError(f"no data set {dataset!r}; {one_of(dataset, DATASETS)}")
    return found


def identify(path: Path) -> DataFormat:
    """Give the format of a file by its content; where none fits, the first of its extension, which can say why."""
    named = [item for item in FORMATS if path.suffix in item.extensions]
    return next((item for item in FORMATS if item.sniff(path)), [*named, *FORMATS][0])
