"""Damage data files at random and read them: whatever is in a file, a reader succeeds or raises DataError.

Run as `python tests/fuzz_readers.py SECONDS [SEED]`; a crash of a library ends the process, as it would a user's.
"""

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
from jet_files import LABEL, energyflow, save, wz_jets

from bitsearch.core.errors import DataError
from bitsearch.models.formats import identify
from bitsearch.models.jets import quark_gluon, wz
from bitsearch.models.showers import files, generator
from bitsearch.models.showers.geometry import embedded, read_binning, write_binning

WORDS = (b"\x00" * 8, b"\xff" * 8, b"\x7f" + b"\xff" * 7, b"\x00\x00\x00\x80", b"nan,", b"1e308", b"'shape'")


def seeds(folder: Path) -> Iterator[tuple[Path, Callable[[Path], object]]]:
    """Make one small file of every format with its reader."""
    table = quark_gluon.read(save(folder / "energyflow.npz", **energyflow()))
    yield folder / "energyflow.npz", quark_gluon.check
    for suffix in ("npz", "h5"):
        quark_gluon.write(folder / f"quark_gluon.{suffix}", table, LABEL)
        yield folder / f"quark_gluon.{suffix}", quark_gluon.check
        wz.write(folder / f"wz.{suffix}", wz_jets(), LABEL)
        yield folder / f"wz.{suffix}", wz.check
    generator.make("ds1-photon", 20, 1, folder / "photon.h5", workers=1)
    yield folder / "photon.h5", files.check
    write_binning(folder / "binning.xml", embedded("ds1-photon"))
    yield folder / "binning.xml", lambda path: read_binning(path, "photon")


def damage(content: bytes, rng: np.random.Generator) -> bytes:
    """Flip bytes, write extreme words, cut, double or shift a piece."""
    data = bytearray(content)
    for _ in range(rng.integers(1, 6)):
        at = int(rng.integers(0, max(1, len(data))))
        if rng.random() < 0.5:
            # Headers and trailers are where files say how large they are.
            at = int(rng.choice([at % 600, max(0, len(data) - 1 - at % 600)]))
        match rng.integers(0, 5):
            case 0:
                data[at : at + 1] = rng.bytes(1)
            case 1:
                word = WORDS[rng.integers(0, len(WORDS))]
                data[at : at + len(word)] = word
            case 2:
                del data[at:]
            case 3:
                data[at:at] = data[at : at + int(rng.integers(1, 64))]
            case _:
                del data[at : at + int(rng.integers(1, 64))]
    return bytes(data)


def fuzz(seconds: float, seed: int, most: int | None = None) -> tuple[int, int]:
    """Give how many damaged files were refused and read; anything but a DataError is raised."""
    rng = np.random.default_rng(seed)
    refused = read = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        originals = [(path, path.read_bytes(), reader) for path, reader in seeds(folder)]
        began = time.monotonic()
        while time.monotonic() - began < seconds and (most is None or refused + read < most):
            path, content, reader = originals[rng.integers(0, len(originals))]
            victim = folder / f"damaged{path.suffix}"
            victim.write_bytes(damage(content, rng))
            try:
                identify(victim)
                reader(victim)
                read += 1
            except DataError as error:
                refused += 1
                if "\n" in str(error):
                    raise ValueError(f"more than one line: {error}") from error
            except BaseException:
                kept = Path(tempfile.gettempdir()) / f"found{path.suffix}"
                kept.write_bytes(victim.read_bytes())
                sys.stderr.write(f"{path.name}, seed {seed}, file {refused + read}: kept as {kept}\n")
                raise
    return refused, read


if __name__ == "__main__":
    h5py.get_config()  # the library is loaded before time runs
    found = fuzz(float(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else time.time_ns() % 2**32)
    sys.stdout.write(f"readers: {found[0]} damaged files refused, {found[1]} read\n")
