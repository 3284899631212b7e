"""`data make`, `data check`: showers and jets in the public formats."""

import argparse
from dataclasses import asdict
from pathlib import Path

from bitsearch.cli.output import add_json, add_seed, show
from bitsearch.core.errors import ConfigurationError

MAKE = """\
Generate showers (ds1-photon, ds1-pion, ds2) by a parametrisation, or jets (quark-gluon, wz) with Pythia 8, in the
public formats. The file says of itself that it is generated, and the same seed gives the same file.

  bitsearch data make ds1-photon --events 40000 --seed 7 --out showers.hdf5

Takes seconds for 10,000 showers, minutes for as many jets on two cores; jets are resumable.
"""
CHECK = """\
Read a file whole, hold it to its public format, and say what is in it; the first event that is wrong is named.

  bitsearch data check dataset_1_photons_1.hdf5

Takes seconds.
"""


def make_options(verb: argparse.ArgumentParser) -> None:
    """Add the options of `data make`."""
    verb.add_argument("dataset", help="ds1-photon, ds1-pion, ds2, quark-gluon or wz")
    verb.add_argument("--events", type=int, default=20_000, help="showers or jets (default: %(default)s)")
    add_seed(verb)
    verb.add_argument(
        "--role", help="of showers (default: train): another role gives independent events of the same seed"
    )
    verb.add_argument(
        "--workers", type=int, metavar="N", help="how many work side by side (default: one a core)"
    )
    verb.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="HDF5; for jets also .npz, the public form"
    )
    add_json(verb)


def check_options(verb: argparse.ArgumentParser) -> None:
    """Add the options of `data check`."""
    verb.add_argument("file", type=Path, metavar="FILE", help="HDF5, or npz of jets")
    add_json(verb)


def make(arguments: argparse.Namespace) -> None:
    """Generate a file and describe it."""
    from bitsearch.models import formats
    from bitsearch.run.terminal import Terminal

    form = formats.of_dataset(arguments.dataset)
    if arguments.workers is not None and arguments.workers < 1:
        raise ConfigurationError(f"--workers {arguments.workers}: expected 1 or more")
    with Terminal() as terminal:
        form.make(
            arguments.dataset,
            arguments.events,
            arguments.seed,
            arguments.out,
            arguments.role,
            arguments.workers,
            terminal.progress,
        )
    _describe(arguments.out, arguments.json)


def check(arguments: argparse.Namespace) -> None:
    """Describe a file."""
    _describe(arguments.file, arguments.json)


def _describe(path: Path, as_json: bool) -> None:
    from bitsearch.models import formats

    content = asdict(formats.identify(path).check(path))
    content |= {"path": str(path), "generated": content["label"] is not None}
    label = content["label"] or {}
    rows = {**content, "label": ""} | {f"  {name}": value for name, value in label.items()}
    show(as_json, content, str(path), [{"": key, " ": _text(value)} for key, value in rows.items()])


def _text(value: object) -> str:
    return "" if value is None else str(value)
