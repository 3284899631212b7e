"""WZ pairs with a boosted hadronic W: constituents in the decay frame, the decay-plane angle, and the generator.

The selection follows the decay-plane measurement that SMEFTNet (arXiv:2401.10323) regresses. Four-vectors are
`(..., 4)`: px, py, pz, E in GeV.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitsearch.core.errors import DataError
from bitsearch.core.task import Progress
from bitsearch.models.jets import files, production, pythia
from bitsearch.models.jets.files import Fixed, Label, Shape, Table, flat, sorted_by_pt
from bitsearch.models.jets.kinematics import (
    Array,
    decay_frame,
    decay_plane_angle,
    direction,
    displacement,
    wrapped,
)
from bitsearch.models.jets.production import Arrays, Chunk

VERSION = "1"
NAME = "wz"
LEADING = 40
PT_GEV = 500.0
SOFT_DROP_MASS_GEV = (70.0, 110.0)
MATCHED = 0.6
SOFT_DROP_CUT = 0.1
LEPTONIC_SHARE = 0.8

SETTINGS = {
    "Beams:eCM": "13000",
    "WeakDoubleBoson:ffbar2ZW": "on",
    "PhaseSpace:pTHatMin": "450",
    "23:onMode": "off",
    "23:onIfAny": "11 13",
    "24:onMode": "off",
    "24:onIfAny": "1 2 3 4 5",
}
# Of azimuths and distances in the compact form.
STEP = 2.0**-12
SAMPLE = Path(__file__).parent / "samples" / "wz.h5"
CONSTITUENTS = ("pt", "theta", "phi", "delta_eta", "delta_phi")
FIXED = ("phi", "delta_eta", "delta_phi")
PER_JET: dict[str, Shape] = {
    "jet": ("jets", 4),
    "decay_plane_angle": ("jets",),
    "decay_plane_angle_lab": ("jets",),
    "multiplicity": ("jets",),
    "quark_theta": ("jets", 2),
}
# Names in `.npz` files.
PUBLIC = {name: name for name in ("pt", "theta", "phi", "jet")} | {
    "delta_eta": "deta",
    "delta_phi": "dphi",
    "decay_plane_angle": "target",
    "decay_plane_angle_lab": "target_lab",
    "multiplicity": "n_const",
    "quark_theta": "q_theta",
}
CUTS = ("generated", "hadronic jet at the W", "pT", "quarks in the jet", "soft-drop mass")


@dataclass(frozen=True)
class WZJets(Table):
    """The hadronic W's jet of WZ events, with its M hardest constituents padded with zeros.

    `pt` (GeV), `theta`, `phi`, `delta_eta`, `delta_phi` are `(jets, M)`, sorted by falling pT: angle to the jet axis
    and azimuth from the beam in the rest frame of jet and Z, and distances to the jet axis in the laboratory.
    `jet` is `(jets, 4)`: pT, pseudorapidity, azimuth, soft-drop mass. `decay_plane_angle` and its counterpart in the
    laboratory are `(jets,)` in (-pi, pi]. `multiplicity` counts the constituents before truncation;
    `quark_theta` `(jets, 2)` are the angles of the up- and the down-type quark to the jet axis.
    """

    pt: NDArray[np.float32]
    theta: NDArray[np.float32]
    phi: NDArray[np.float32]
    delta_eta: NDArray[np.float32]
    delta_phi: NDArray[np.float32]
    jet: NDArray[np.float32]
    decay_plane_angle: NDArray[np.float32]
    decay_plane_angle_lab: NDArray[np.float32]
    multiplicity: NDArray[np.int32]
    quark_theta: NDArray[np.float32]


@dataclass(frozen=True)
class Summary:
    """What `check` found; `constituents` is the largest number kept of a jet."""

    path: Path
    dataset: str
    events: int
    constituents: int
    mean_multiplicity: float
    largest_multiplicity: int
    jet_pt_range_gev: tuple[float, float]
    soft_drop_mass_range_gev: tuple[float, float]
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
    """Generate jets; the result depends on (jets, seed), not on `workers`.

    Raises:
        DataError: Without Pythia and FastJet, for no jets, a negative seed, or a path that cannot be written.
    """
    if jets < 1 or seed < 0:
        raise DataError(f"got {jets} jets and seed {seed}; expected 1 jet or more and a seed from 0 on")
    out = Path(out)
    settings = SETTINGS if underlying_event else {**SETTINGS, "PartonLevel:MPI": "off"}
    label = Label(
        "bitsearch with Pythia 8 and FastJet",
        VERSION,
        NAME,
        seed,
        pythia.packages("pythia8mc", "fastjet"),
        settings,
    )

    def save(parts: list[Arrays]) -> None:
        passed = np.sum([part.pop("passed") for part in parts], axis=0)
        counts = dict(zip(CUTS, map(int, passed), strict=True))
        table = WZJets.stack([WZJets(**part) for part in parts])
        write(out, table, replace(label, settings={**settings, "passed": counts}))

    wanted = production.chunks(NAME, jets, seed)
    production.make(Simulation(settings), wanted, label, out, save, workers, progress)
    return out


@dataclass(frozen=True)
class Event:
    """Four-vectors of a selected event: constituents `(n, 4)`, their jet, bosons, up- and down-type quark."""

    constituents: Array
    jet: Array
    w: Array
    z: Array
    up: Array
    down: Array
    soft_drop_mass: float


@dataclass(frozen=True)
class Simulation:
    """Generate one chunk with Pythia, its own jet finder, and FastJet's history for the soft drop."""

    settings: dict[str, str]

    def __call__(self, chunk: Chunk) -> Arrays:
        """Give the fields of `WZJets`, and as `passed` how many events came to each cut."""
        passed = np.zeros(len(CUTS), np.int64)
        rows: list[dict[str, Any]] = []
        finder: Any = None
        for pythia8, record in pythia.events(self.settings, chunk.seed):
            # Anti-kT; the third number cuts jets in pT, the fourth particles in pseudorapidity; visible ones only.
            finder = finder or pythia8.SlowJet(-1, 0.8, 300.0, 4.5, 2)
            event = _select(finder, record, passed)
            if event is not None:
                rows.append(_observables(event))
            if len(rows) == chunk.jets:
                break
        columns = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
        return {**columns, "passed": passed}


def _select(finder: Any, record: Any, passed: NDArray[np.int64]) -> Event | None:
    """Apply the selection, counting in `passed`."""
    passed[0] += 1
    # Entries 5 and 6 are what the hard process makes; their last copies decay.
    bosons = {abs(record[i].id()): record[record[i].iBotCopyId()] for i in (5, 6)}
    w, z = bosons[24], bosons[23]
    quarks = sorted((record[w.daughter1()], record[w.daughter2()]), key=lambda q: q.id() % 2)
    up, down = (_vector(quark.p()) for quark in quarks)
    finder.analyze(record)
    for index in range(finder.sizeJet()):
        jet = _vector(finder.p(index))
        particles = [record[int(i)] for i in finder.constituents(index)]
        if np.hypot(*displacement(jet, _vector(w.p()))) < MATCHED and not _leptonic(particles, jet):
            break
    else:
        return None
    passed[1] += 1
    if np.hypot(jet[0], jet[1]) <= PT_GEV:
        return None
    passed[2] += 1
    if np.hypot(*displacement(np.stack([up, down]), jet).T).max() >= MATCHED:
        return None
    passed[3] += 1
    constituents = np.array([_vector(particle.p()) for particle in particles])
    mass = soft_drop_mass(constituents)
    if not SOFT_DROP_MASS_GEV[0] < mass < SOFT_DROP_MASS_GEV[1]:
        return None
    passed[4] += 1
    return Event(constituents, jet, _vector(w.p()), _vector(z.p()), up, down, mass)


def _leptonic(particles: list[Any], jet: Array) -> bool:
    """Say whether electrons, or muons, carry most of the jet's pT."""
    pt = np.hypot(jet[0], jet[1])
    return any(
        sum(p.pT() for p in particles if p.idAbs() == lepton) >= LEPTONIC_SHARE * pt for lepton in (11, 13)
    )


def soft_drop_mass(constituents: Array) -> float:
    """Recluster with Cambridge/Aachen and drop soft branches (beta = 0); the mass of what remains, in GeV."""
    import fastjet

    definition = fastjet.JetDefinition(fastjet.cambridge_algorithm, 10.0)
    # The sequence holds the history that `has_parents` looks into.
    sequence = fastjet.ClusterSequence([fastjet.PseudoJet(*map(float, p)) for p in constituents], definition)
    (jet,) = sequence.exclusive_jets(1)
    hard, soft = fastjet.PseudoJet(), fastjet.PseudoJet()
    while jet.has_parents(hard, soft):
        if min(hard.pt(), soft.pt()) > SOFT_DROP_CUT * (hard.pt() + soft.pt()):
            break
        jet = fastjet.PseudoJet(max(hard, soft, key=lambda branch: branch.pt()))
    return float(jet.m())


def _observables(event: Event) -> dict[str, Any]:
    """Compute one row of every field of `WZJets`."""
    pt = np.hypot(event.constituents[:, 0], event.constituents[:, 1])
    order = np.argsort(-pt, kind="stable")[:LEADING]
    leading = event.constituents[order]
    theta, phi = decay_frame(leading, event.jet, event.z)
    quarks = np.stack([event.up, event.down])
    eta_phi, quark_eta_phi = displacement(leading, event.jet), direction(quarks)
    between = quark_eta_phi[1] - quark_eta_phi[0]
    per_constituent = {
        "pt": pt[order], "theta": theta, "phi": phi, "delta_eta": eta_phi[:, 0], "delta_phi": eta_phi[:, 1],
    }  # fmt: skip
    padded = {
        name: np.pad(values, (0, LEADING - len(order))).astype(np.float32)
        for name, values in per_constituent.items()
    }
    jet_pt = np.hypot(event.jet[0], event.jet[1])
    return padded | {
        "jet": np.array([jet_pt, *direction(event.jet), event.soft_drop_mass], np.float32),
        "decay_plane_angle": np.float32(decay_plane_angle(event.w, event.z, event.up, event.down)),
        "decay_plane_angle_lab": np.float32(np.arctan2(between[0], wrapped(between[1]))),
        "multiplicity": np.int32(len(pt)),
        "quark_theta": np.float32(decay_frame(quarks, event.jet, event.z)[0]),
    }


def _vector(p: Any) -> Array:
    return np.array([p.px(), p.py(), p.pz(), p.e()])


def read(path: str | Path, most: int | None = None) -> WZJets:
    """Read an `.npz` or compact HDF5 file, keeping the `most` hardest constituents of each jet.

    Raises:
        DataError: If the file is missing, truncated or foreign, or holds impossible values.
    """
    return read_labelled(Path(path), most)[0]


def check(path: str | Path) -> Summary:
    """Read and summarise a whole file; raises as `read` does."""
    path = Path(path)
    table, label = read_labelled(path)
    pt, mass = table.jet[:, 0], table.jet[:, 3]
    return Summary(
        path=path,
        dataset=NAME,
        events=len(table),
        constituents=table.pt.shape[1],
        mean_multiplicity=float(table.multiplicity.mean()),
        largest_multiplicity=int(table.multiplicity.max()),
        jet_pt_range_gev=(float(pt.min()), float(pt.max())),
        soft_drop_mass_range_gev=(float(mass.min()), float(mass.max())),
        label=label,
        sha256=files.digest(path),
    )


def write(path: Path, table: WZJets, label: Label) -> None:
    """Write an `.npz` file to a path that ends so, else the compact form; raises DataError if it cannot."""
    if path.suffix == ".npz":
        files.write_public(path, {key: getattr(table, name) for name, key in PUBLIC.items()}, label)
        return
    counts = (table.pt > 0).sum(axis=1).astype(np.uint8)
    per_constituent = {name: flat(getattr(table, name), counts) for name in CONSTITUENTS}
    compact: dict[str, NDArray[Any] | Fixed] = {"constituents": counts}
    for name, values in per_constituent.items():
        compact[name] = Fixed(values, STEP) if name in FIXED else files.rounded(values)
    files.write_compact(path, compact | {name: getattr(table, name) for name in PER_JET}, label)


def read_labelled(path: Path, most: int | None = None) -> tuple[WZJets, Label | None]:
    """Read also who generated the jets, if the file says so; else as `read`."""
    arrays, label = files.read(path, "WZ jets made by `bitsearch data make wz`")
    columns: dict[str, Shape]
    if "constituents" in arrays:
        columns = dict.fromkeys(CONSTITUENTS, ("N",))
        files.require(path, arrays, {"constituents": ("jets",), **columns, **PER_JET})
        arrays |= files.rows(path, arrays, CONSTITUENTS, arrays["constituents"])
    else:
        columns = dict.fromkeys(CONSTITUENTS, ("jets", "M"))
        files.require(path, arrays, {PUBLIC[name]: shape for name, shape in {**columns, **PER_JET}.items()})
        arrays = {name: arrays[key] for name, key in PUBLIC.items()}
    _validate(path, arrays)
    constituents = sorted_by_pt(np.stack([arrays[name] for name in CONSTITUENTS], axis=-1), most)
    of_jets: dict[str, Any] = {name: arrays[name].astype(np.float32) for name in PER_JET}
    of_jets["multiplicity"] = arrays["multiplicity"].astype(np.int32)
    return WZJets(*constituents.astype(np.float32).transpose(2, 0, 1), **of_jets), label


def _validate(path: Path, arrays: files.Arrays) -> None:
    pt, jet = arrays["pt"], arrays["jet"]
    files.refuse(path, "constituent pT", pt, pt < 0, "GeV, 0 for padding")
    multiplicity = arrays["multiplicity"]
    files.refuse(
        path, "multiplicity", multiplicity, multiplicity < (pt > 0).sum(1), "the constituents it has at least"
    )
    files.refuse(path, "jet pT", jet[:, 0], jet[:, 0] <= 0, "a positive number of GeV")
    for name in CONSTITUENTS[1:]:
        files.refuse(path, name, arrays[name], (pt == 0) & (arrays[name] != 0), "0 where pT is 0")
    theta = arrays["theta"]
    files.refuse(path, "theta", theta, (theta < 0) | (theta > np.pi), "0 to pi")
    # Compact files round to half a step.
    limit = np.pi + STEP
    for name in ("phi", "delta_phi", "decay_plane_angle", "decay_plane_angle_lab"):
        files.refuse(path, name, arrays[name], np.abs(arrays[name]) > limit, "-pi to pi")
