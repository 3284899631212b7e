"""Pythia 8 as the generators use it; nothing else needs the packages."""

import os
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from bitsearch.core.errors import DataError

# Pythia's pseudorandom generator takes 1 to 900,000,000.
SEEDS = 900_000_000
_MOST_FAILURES = 10_000


def packages(*names: str) -> dict[str, str]:
    """Give the versions of packages that make jets.

    Raises:
        DataError: If they are not installed.
    """
    try:
        return {name: version(name) for name in names}
    except PackageNotFoundError as error:
        raise DataError(
            f"found no package {error.name!r}; generating jets needs it: pip install 'bitsearch[generate]'"
        ) from error


def events(settings: Mapping[str, str], seed: int) -> Iterator[tuple[Any, Any]]:
    """Yield Pythia's module and its event record, which holds the next event at each step; ends never.

    Raises:
        DataError: If a setting is unknown, or Pythia cannot start or make events.
    """
    import pythia8mc

    # No settings folder: the package carries its own; no banner.
    pythia = pythia8mc.Pythia("", False)
    seeded = {"Print:quiet": "on", "Random:setSeed": "on", "Random:seed": str(seed)}
    for name, value in {**seeded, **settings}.items():
        # An unknown setting is otherwise passed over.
        if not pythia.readString(f"{name} = {value}"):
            raise DataError(f"Pythia does not take the setting {name} = {value}")
    if not pythia.init():
        raise DataError(f"Pythia does not start with the settings {dict(settings)}")
    failures = 0
    while failures < _MOST_FAILURES:
        # Single failures are ordinary.
        failures = 0 if pythia.next() else failures + 1
        if not failures:
            yield pythia8mc, pythia.event
    raise DataError(f"Pythia failed {failures} times in a row with the settings {dict(settings)}")


def silence() -> None:
    """Send what this process prints from now on to nowhere: libraries print past Python's streams."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
