"""Homogeneous stand-ins for sampling calorimeters (Grindhammer and Peters, hep-ex/0001020, section 2)."""

from collections.abc import Sequence
from dataclasses import dataclass

SCALE_ENERGY_MEV = 21.2


@dataclass(frozen=True)
class Material:
    """A pure material: charge and mass number (effective for compounds), density in g/cm3, X0 in g/cm2."""

    z: float
    a: float
    density: float
    x0: float

    @property
    def critical_mev(self) -> float:
        """Critical energy, 2.66 (X0 Z / A)^1.1 MeV."""
        return float(2.66 * (self.x0 * self.z / self.a) ** 1.1)


@dataclass(frozen=True)
class Medium:
    """What the shower formulas need; `frequency` is F_S, `e_hat` e/mip, `sampling` the resolution term c."""

    z: float
    x0_mm: float
    moliere_mm: float
    critical_mev: float
    frequency: float
    e_hat: float
    sampling: float


def mix(
    layers: Sequence[tuple[Material, float]], absorber: Material, active: Material, sampling: float
) -> Medium:
    """Average one sampling period of (material, thickness in mm) weighted by mass.

    `sampling` is the energy resolution term c in sigma/E = c / sqrt(E/GeV).
    """
    thickness = sum(mm for _, mm in layers)
    mass = sum(item.density * mm for item, mm in layers)
    share = [item.density * mm / mass for item, mm in layers]
    x0 = 1 / sum(w / item.x0 for w, (item, _) in zip(share, layers, strict=True))
    critical = sum(w * item.critical_mev / item.x0 for w, (item, _) in zip(share, layers, strict=True))
    mm = 10 * thickness / mass  # per g/cm2
    return Medium(
        z=sum(w * item.z for w, (item, _) in zip(share, layers, strict=True)),
        x0_mm=x0 * mm,
        moliere_mm=SCALE_ENERGY_MEV / critical * mm,
        critical_mev=x0 * critical,
        frequency=x0 * mm / thickness,
        e_hat=1 / (1 + 0.007 * (absorber.z - active.z)),
        sampling=sampling,
    )


TUNGSTEN = Material(74, 183.84, 19.3, 6.76)
SILICON = Material(14, 28.085, 2.329, 21.82)
LEAD = Material(82, 207.2, 11.35, 6.37)
IRON = Material(26, 55.845, 7.874, 13.84)
ARGON = Material(18, 39.948, 1.396, 19.55)
POLYSTYRENE = Material(5.61, 10.43, 1.06, 43.79)

# Sampling terms: 0.10 is the design value of ATLAS' barrel; the other two are choices.
TUNGSTEN_SILICON = mix([(TUNGSTEN, 1.4), (SILICON, 0.3)], TUNGSTEN, SILICON, sampling=0.15)
LEAD_ARGON = mix([(LEAD, 1.5), (IRON, 0.4), (ARGON, 4.2)], LEAD, ARGON, sampling=0.10)
IRON_POLYSTYRENE = mix([(IRON, 14.0), (POLYSTYRENE, 3.0)], IRON, POLYSTYRENE, sampling=0.28)
