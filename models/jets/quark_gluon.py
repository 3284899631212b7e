"""Quark and gluon jets in the format of the public "Pythia8 Quark and Gluon Jets" files, and their generator.

Recipe and columns are those of EnergyFlow's documentation (Komiske, Metodiev, Thaler, zenodo 3164691): Z(-> nu nu)
with a gluon or a light quark at 14 TeV, anti-kT jets of radius 0.4 with pT from 500 to 550 GeV and |y| < 1.7.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitsearch.core.errors import DataError
from bitsearch.core.task import Progress
from bitsearch.models.jets import files, production, pythia
from bitsearch.models.jets.files import Fixed, Label, Table, flat, sorted_by_pt
from bitsearch.models.jets.production import Arrays, Chunk

VERSION = "1"
NAME = "quark-gluon"
RADIUS = 0.4
PT_GEV = (500.0, 550.0)
RAPIDITY = 1.7
# Wider than the selection: files round, and massless sums differ from the jet finder's.
PT_WINDOW_GEV = (490.0, 560.0)
PDG_IDS = (22, 211, -211, 321, -321, 130, 2112, -2112, 2212, -2212, 11, -11, 13, -13)
# Of rapidities and azimuths in the compact form.
STEP = 2.0**-14
SAMPLE = Path(__file__).parent / "samples" / "quark_gluon.h5"

_COMMON = {
    "Beams:eCM": "14000",
    "WeakZ0:gmZmode": "2",
    "23:onMode": "off",
    "23:onIfAny": "12 14 16",
    "PhaseSpace:pTHatMin": "400",
}
SETTINGS = {
    # Three flavours enter, hence leave: no charm, no bottom.
    "quark": {"WeakBosonAndParton:qg2gmZq": "on", "PDFinProcess:nQuarkIn": "3", **_COMMON},
    "gluon": {"WeakBosonAndParton:qqbar2gmZg": "on", **_COMMON},
}


@dataclass(frozen=True)
class QuarkGluonJets(Table):
    """Jets with their M hardest constituents, padded with zeros.

    `constituents` is `(jets, M, 4)`: pT in GeV, rapidity, azimuth in radians and PDG id, sorted by falling pT. The
    azimuth has no fixed range. `quark` is `(jets,)`, False for gluons.
    """

    constituents: NDArray[np.float32]
    quark: NDArray[np.bool_]


@dataclass(frozen=True)
class Summary:
    """What `check` found; public files have no label, ours say that they are generated."""

    path: Path
    dataset: str
    events: int
    quarks: int
    gluons: int
    quark_multiplicity: float | None
    gluon_multiplicity: float | None
    largest_multiplicity: int
    jet_pt_range_gev: tuple[float, float]
    label: Label | None
    sha256: str


def make(
    jets: int,
    seed: int,
    out: str | Path,
    workers: int | None = None,
    progress: Progress = lambda what, share: None,
    underlying_event: bool = True,
) -> Path:
    """Generate as many quark as gluon jets; the result depends on (jets, seed), not on `workers`.

    Without the underlying event (multi-parton interactions) jets are made six times as fast, with 2 to 3
    constituents less than they should have.

    Raises:
        DataError: Without Pythia, for fewer than 2 jets, a negative seed, or a path that cannot be written.
    """
    if jets < 2 or seed < 0:
        raise DataError(f"got {jets} jets and seed {seed}; expected 2 jets or more and a seed from 0 on")
    out = Path(out)
    switch = {} if underlying_event else {"PartonLevel:MPI": "off"}
    settings = {process: {**common, **switch} for process, common in SETTINGS.items()}
    label = Label("bitsearch with Pythia 8", VERSION, NAME, seed, pythia.packages("pythia8mc"), settings)
    wanted = [
        *production.chunks("quark", jets - jets // 2, seed),
        *production.chunks("gluon", jets // 2, seed),
    ]

    def save(parts: list[Arrays]) -> None:
        table = QuarkGluonJets.stack([QuarkGluonJets(**part) for part in parts])
        order = np.random.default_rng(seed).permutation(len(table))
        write(out, table[order], label)

    production.make(Simulation(settings), wanted, label, out, save, workers, progress)
    return out


@dataclass(frozen=True)
class Simulation:
    """Generate one chunk with Pythia and its own jet finder."""

    settings: dict[str, dict[str, str]]

    def __call__(self, chunk: Chunk) -> Arrays:
        """Give the fields of `QuarkGluonJets`: all jets that pass, until there are as many as wanted."""
        found: list[NDArray[np.float64]] = []
        # Anti-kT; the third number cuts jets in pT, the fourth particles in pseudorapidity; visible ones only.
        finder: Any = None
        for pythia8, event in pythia.events(self.settings[chunk.process], chunk.seed):
            finder = finder or pythia8.SlowJet(-1, RADIUS, PT_GEV[0], RAPIDITY + 0.6, 2)
            if not finder.analyze(event):
                continue
            found += [
                _constituents(finder, jet, event)
                for jet in range(finder.sizeJet())
                if finder.pT(jet) <= PT_GEV[1] and abs(finder.y(jet)) < RAPIDITY
            ]
            if len(found) >= chunk.jets:
                break
        table = np.zeros((chunk.jets, max(map(len, found)), 4))
        for row, jet_constituents in zip(table, found, strict=False):
            row[: len(jet_constituents)] = jet_constituents
        return {
            "constituents": sorted_by_pt(table).astype(np.float32),
            "quark": np.full(chunk.jets, chunk.process == "quark"),
        }


def _constituents(finder: Any, jet: int, event: Any) -> NDArray[np.float64]:
    """Give pT, rapidity, azimuth within pi of the jet's in [0, 2 pi), and PDG id."""
    particles = [event[int(index)] for index in finder.constituents(jet)]
    columns = np.array([(p.pT(), p.y(), p.phi(), p.id()) for p in particles])
    axis = finder.phi(jet) % (2 * np.pi)
    columns[:, 2] = axis + (columns[:, 2] - axis + np.pi) % (2 * np.pi) - np.pi
    return columns


def read(path: str | Path, most: int | None = None) -> QuarkGluonJets:
    """Read a public `.npz` file or a compact HDF5 file, keeping the `most` hardest constituents of each jet.

    Raises:
        DataError: If the file is missing, truncated or foreign, or holds other jets or particles than it should.
    """
    return read_labelled(Path(path), most)[0]


def check(path: str | Path) -> Summary:
    """Read and summarise a whole file; raises as `read` does."""
    path = Path(path)
    table, label = read_labelled(path)
    multiplicity = (table.constituents[:, :, 0] > 0).sum(axis=1)
    pt = _jet_pt(table.constituents)
    return Summary(
        path=path,
        dataset=NAME,
        events=len(table),
        quarks=int(table.quark.sum()),
        gluons=int((~table.quark).sum()),
        quark_multiplicity=_mean(multiplicity[table.quark]),
        gluon_multiplicity=_mean(multiplicity[~table.quark]),
        largest_multiplicity=int(multiplicity.max()),
        jet_pt_range_gev=(float(pt.min()), float(pt.max())),
        label=label,
        sha256=files.digest(path),
    )


def write(path: Path, table: QuarkGluonJets, label: Label) -> None:
    """Write the public form to a path that ends in `.npz`, else the compact one; raises DataError if it cannot."""
    columns = table.constituents
    if path.suffix == ".npz":
        public = {"X": columns.astype(np.float64), "y": table.quark.astype(np.float64)}
        files.write_public(path, public, label)
        return
    counts = (columns[:, :, 0] > 0).sum(axis=1).astype(np.uint16)
    pt, rapidity, azimuth, pdg_id = columns.transpose(2, 0, 1)

    def from_hardest(angle: NDArray[np.float32]) -> Fixed:
        return Fixed(flat(angle.astype(np.float64) - angle[:, :1], counts), STEP)

    compact = {
        "multiplicity": counts,
        "quark": table.quark.astype(np.uint8),
        "hardest_rapidity": rapidity[:, 0],
        "hardest_azimuth": azimuth[:, 0],
        "pt": files.rounded(flat(pt, counts)),
        "rapidity_from_hardest": from_hardest(rapidity),
        "azimuth_from_hardest": from_hardest(azimuth),
        "pdg_id": flat(pdg_id, counts).astype(np.int16),
    }
    files.write_compact(path, compact, label)


def read_labelled(path: Path, most: int | None = None) -> tuple[QuarkGluonJets, Label | None]:
    """Read also who generated the jets, if the file says so; else as `read`."""
    what = "EnergyFlow's quark/gluon jets (.npz), or those of `bitsearch data make quark-gluon`"
    arrays, label = files.read(path, what)
    if "multiplicity" in arrays:
        constituents, labels = _unpacked(path, arrays), arrays["quark"]
    else:
        files.require(path, arrays, {"X": ("jets", "M", 4), "y": ("jets",)})
        constituents, labels = arrays.pop("X").astype(np.float32), arrays["y"]
    _validate(path, constituents, labels)
    table = QuarkGluonJets(sorted_by_pt(constituents, most), labels == 1)
    return table, label


def _unpacked(path: Path, arrays: files.Arrays) -> NDArray[np.float32]:
    per_jet = ("multiplicity", "quark", "hardest_rapidity", "hardest_azimuth")
    per_constituent = ("pt", "rapidity_from_hardest", "azimuth_from_hardest", "pdg_id")
    files.require(path, arrays, dict.fromkeys(per_jet, ("jets",)) | dict.fromkeys(per_constituent, ("N",)))
    counts = arrays["multiplicity"]
    rows = files.rows(path, arrays, per_constituent, counts)
    columns = np.stack(list(rows.values()), axis=-1, dtype=np.float32)
    real = columns[:, :, 0] > 0
    columns[:, :, 1] += real * arrays["hardest_rapidity"][:, None]
    columns[:, :, 2] += real * arrays["hardest_azimuth"][:, None]
    return columns


def _validate(path: Path, constituents: NDArray[Any], labels: NDArray[Any]) -> None:
    pt, pdg_id = constituents[:, :, 0], constituents[:, :, 3]
    files.refuse(path, "label", labels, ~np.isin(labels, (0, 1)), "0 (gluon) or 1 (quark)")
    files.refuse(path, "constituent pT", pt, pt < 0, "GeV, 0 for padding")
    padding = (pt == 0)[:, :, None] & (constituents != 0)
    files.refuse(path, "a value in a row with pT 0", constituents, padding, "padding rows to be all 0")
    files.refuse(
        path, "PDG id", pdg_id, (pt > 0) & ~np.isin(pdg_id, PDG_IDS), f"one of {', '.join(map(str, PDG_IDS))}"
    )
    jet_pt = _jet_pt(constituents)
    low, high = PT_WINDOW_GEV
    outside = (jet_pt < low) | (jet_pt > high)
    files.refuse(path, "pT", jet_pt, outside, f"the constituents to sum to {low:g} to {high:g} GeV")


def _jet_pt(constituents: NDArray[Any]) -> NDArray[np.float64]:
    pt, azimuth = constituents[:, :, 0].astype(np.float64), constituents[:, :, 2]
    total: NDArray[np.float64] = np.hypot(*((pt * of(azimuth)).sum(axis=1) for of in (np.cos, np.sin)))
    return total


def _mean(values: NDArray[np.integer]) -> float | None:
    return float(values.mean()) if len(values) else None
