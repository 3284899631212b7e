"""What P-DAT reads of a jet: particles with their neighbours, pairs of particles, and ratios of the whole jet."""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from bitsearch.models.leaves import SelectLast

SMALLEST = 1e-8
"""Added inside logarithms, GeV or GeV²."""
FAR = 1e9
HADRONS = (22, 211, -211, 321, -321, 130, 2112, -2112, 2212, -2212)
"""PDG ids of the ten classes of the jet matrix; their codes are 0.0, 0.1 ... 0.9."""
CODES = {**{pdg: index / 10 for index, pdg in enumerate(HADRONS)}, 11: 1.0, -11: 1.1, 13: 1.2, -13: 1.3}
"""EnergyFlow's particle codes by PDG id."""
NEIGHBOUR_FEATURES, PAIR_FEATURES, JET_QUANTITIES = 8, 6, 11
Convention = Literal["wrapped", "as_coded"]


class Particles(NamedTuple):
    """The leading particles of jets by falling pT, each `(batch, particles)`; a slot without one has pT = 0.

    `eta` and `phi` are the plane in which neighbours are near: around the jet axis (`wrapped`) or the file's
    (`as_coded`). `d_eta`, `d_phi`, `d_r` are taken from the axis. Energies and momenta in GeV.
    """

    energy: Tensor
    px: Tensor
    py: Tensor
    pz: Tensor
    pt: Tensor
    eta: Tensor
    phi: Tensor
    pt_share: Tensor
    energy_share: Tensor
    d_eta: Tensor
    d_phi: Tensor
    d_r: Tensor
    code: Tensor

    @property
    def real(self) -> Tensor:
        """Say which slots hold a particle, `(batch, particles)`."""
        return self.pt > 0

    @property
    def filled(self) -> Tensor:
        """Count the slots before the empty ones, `(batch,)`; a pT that was rounded to 0 does not empty a slot."""
        return ((self.pt > 0) | (self.eta != 0) | (self.phi != 0) | (self.energy > 0)).sum(1)


class Inputs(NamedTuple):
    """Everything that the network is given.

    `neighbours` `(batch, particles, neighbours, 8)`, `pairs` `(batch, pairs, 6)`, `jet` `(batch, 11, 11)` and
    `real` `(batch, particles)`, which says which slots hold a particle. All slots from `filled` `(batch,)` on are
    empty, and so the same.
    """

    neighbours: Tensor
    pairs: Tensor
    jet: Tensor
    real: Tensor
    filled: Tensor


@dataclass(frozen=True)
class Pairs:
    """Which pairs `first`, `second` of particles are looked at, and where each entry of a matrix finds its pair.

    Every feature is symmetric, so that unordered pairs, `first` <= `second`, are enough; the published code
    computes each pair twice.
    """

    first: Tensor
    second: Tensor
    entries: Tensor

    @classmethod
    def of(cls, particles: int, unordered: bool) -> "Pairs":
        """List the pairs of `particles` slots."""
        slots = torch.arange(particles, device="cpu")
        first, second = torch.cartesian_prod(slots, slots).T
        if not unordered:
            return cls(first, second, torch.arange(particles**2, device="cpu"))
        low, high = torch.minimum(first, second), torch.maximum(first, second)
        kept = first <= second
        return cls(first[kept], second[kept], (low * (2 * particles - low - 1)) // 2 + high)


class Preparation(nn.Module):
    """Turn the constituents of jets into `Inputs`; every step is a sort, a gather or arithmetic, so it can be served.

    `convention` `as_coded` keeps what the published preparation does to azimuths: it shifts those above π by π,
    takes the jet's from an arccosine and wraps no difference; it drops particles with rapidity 0, rounds all columns
    to five decimals at the end, lets empty slots be neighbours, at (0, 0), and takes the transverse momentum of a
    kind of particles from the sum of their vectors, not from the sum of their transverse momenta.
    """

    codes: Tensor
    ids: Tensor

    def __init__(
        self, particles: int, neighbours: int, convention: Convention = "wrapped", unordered: bool = True
    ) -> None:
        super().__init__()
        self.particles, self.neighbours, self.convention = particles, neighbours, convention
        self.as_coded = convention == "as_coded"
        self.select_last = SelectLast()
        self.pairs = Pairs.of(particles, unordered)
        self.register_buffer("ids", torch.tensor([float(pdg) for pdg in CODES]), persistent=False)
        self.register_buffer("codes", torch.tensor(list(CODES.values())), persistent=False)

    def forward(self, pt: Tensor, eta: Tensor, phi: Tensor, pdg_id: Tensor) -> Inputs:
        """Map pT in GeV, rapidity, azimuth in rad and PDG id, each `(batch, slots)`, to the network's inputs."""
        particles = self.select(pt, eta, phi, pdg_id)
        return self.inputs(particles, self.nearest(particles), self.jet(particles))

    def select(self, pt: Tensor, eta: Tensor, phi: Tensor, pdg_id: Tensor) -> Particles:
        """Keep the particles with the largest pT, as massless four-vectors, and place them around the jet axis."""
        if self.as_coded:
            pt = torch.where(eta == 0, 0.0, pt)
            phi = torch.where(phi > math.pi, phi - math.pi, phi)
        pt, order = pt.topk(self.particles, dim=1)
        eta, phi, pdg_id = (torch.where(pt > 0, x.gather(1, order), 0.0) for x in (eta, phi, pdg_id))
        energy, px, py, pz = (
            pt * torch.cosh(eta),
            pt * torch.cos(phi),
            pt * torch.sin(phi),
            pt * torch.sinh(eta),
        )
        x, y, z, total = (p.sum(1, keepdim=True) for p in (px, py, pz, energy))
        jet_pt = torch.sqrt(x.square() + y.square()).clamp_min(SMALLEST)
        d_eta = eta - torch.asinh(z / jet_pt)
        if self.as_coded:
            d_phi = phi - torch.acos((x / jet_pt).clamp(-1, 1))
            plane = eta, phi
        else:
            d_phi = _wrapped(phi - torch.atan2(y, x))
            plane = d_eta, d_phi
        values: tuple[Tensor, ...] = (
            *(energy, px, py, pz, pt, *plane, pt / jet_pt, energy / total.clamp_min(SMALLEST)),
            *(d_eta, d_phi, torch.sqrt(d_eta.square() + d_phi.square()), self._codes(pdg_id)),
        )
        if self.as_coded:
            values = tuple(_rounded(value) for value in values)
        return Particles(*(torch.where(pt > 0, value, 0.0) for value in values))

    def nearest(self, particles: Particles) -> Tensor:
        """Find the nearest neighbours of every particle, itself first: slots `(batch, particles, neighbours)`.

        In jets with fewer particles, the particle stands in for those that lack.
        """
        distance = _differences(particles.eta).square() + _differences(particles.phi).square()
        if self.as_coded:
            return distance.topk(self.neighbours, dim=2, largest=False).indices
        distance = torch.where(particles.real[:, None], distance, FAR)
        itself = torch.arange(self.particles, device=distance.device)
        distance = torch.where(itself[:, None] == itself, -1.0, distance)
        nearest = distance.topk(self.neighbours, dim=2, largest=False)
        return torch.where(nearest.values < FAR, nearest.indices, itself[:, None])

    def inputs(self, particles: Particles, nearest: Tensor, jet: Tensor) -> Inputs:
        """Gather the neighbours' features and compute those of the pairs."""
        p = particles
        node = torch.stack(
            [
                torch.log(p.energy + SMALLEST),
                torch.log(p.pt + SMALLEST),
                p.pt_share,
                p.energy_share,
                p.eta,
                p.phi,
                p.code,
            ],
            2,
        )
        batch, _, width = node.shape
        # Rows of all jets in one table: whole rows are gathered many times faster than single numbers.
        jets = torch.arange(batch, device=node.device)[:, None, None] * self.particles
        gathered = node.flatten(0, 1).index_select(0, (nearest + jets).flatten())
        gathered = gathered.reshape(batch, self.particles, self.neighbours, width)
        momenta, place, code = torch.split(gathered, [4, 2, 1], 3)
        place = place - node[:, :, None, 4:6]
        distance = torch.sqrt(place.square().sum(3, keepdim=True))
        neighbours = torch.cat([momenta, place, distance, code], 3)
        return Inputs(neighbours, self._pairs(p), jet, p.real, p.filled)

    def jet(self, particles: Particles) -> Tensor:
        """Compute the ratios `(batch, 11, 11)` of jet quantities, and those of the leading kinds of particles.

        Quantities: E, px, py, pz, pT, the shares of pT and E, and pT-weighted sums of d_eta, d_phi, d_r over pT.
        The last row and column hold the largest of ten kinds of particles in each.
        """
        p = particles
        places = torch.stack([p.d_eta, p.d_phi, p.d_r], 1) * p.pt[:, None]
        momenta = torch.stack([p.energy, p.px, p.py, p.pz, p.pt, p.pt_share, p.energy_share], 1)
        summed = torch.cat([momenta, places], 1)  # (batch, 10, particles)
        kinds = (p.code[:, :, None] == self.codes[: len(HADRONS)]).to(summed.dtype)
        by_kind = summed @ kinds  # (batch, 10, kinds)
        if self.as_coded:
            pt = torch.sqrt(by_kind[:, 1].square() + by_kind[:, 2].square())
            jet_pt = torch.sqrt(momenta[:, 1].sum(1).square() + momenta[:, 2].sum(1).square())[:, None]
            parts = by_kind[:, :4], pt[:, None], _ratio(pt, jet_pt)[:, None], by_kind[:, 6:]
            by_kind = torch.cat(parts, 1)
        largest = by_kind[:, :7].abs().amax(2)
        leading = by_kind[:, 4].argmax(1)[:, None, None].expand(-1, by_kind.shape[1], 1)
        lead = by_kind.gather(2, leading)[:, :, 0]
        column = torch.cat(
            [torch.log(largest[:, :5] + SMALLEST), largest[:, 5:], lead[:, 7:] / (lead[:, 4:5] + SMALLEST)], 1
        )
        jet = summed.sum(2)
        e, px, py, pz = jet[:, :4].unbind(1)
        pt = torch.sqrt(px.square() + py.square())
        eta, phi, r = jet[:, 7:].unbind(1)
        one, zero = torch.ones_like(e), torch.zeros_like(e)
        entries = {(0, index): _ratio(value, e) for index, value in ((1, px), (2, py), (3, pz), (4, pt))}
        entries |= {(1, 4): _ratio(px, pt), (2, 4): _ratio(py, pt), (0, 6): one, (4, 5): one}
        entries |= {(7, 9): _ratio(eta, r), (8, 9): _ratio(phi, r)}
        entries |= {(index, 10): value for index, value in enumerate(column.unbind(1))}
        rows = [
            torch.stack(
                [one if i == j else entries.get((min(i, j), max(i, j)), zero) for j in range(JET_QUANTITIES)],
                1,
            )
            for i in range(JET_QUANTITIES)
        ]
        return torch.stack(rows, 1)

    def _pairs(self, p: Particles) -> Tensor:
        """Compute dR, ln m², ln kT, z, ln of the difference in pT and `same kind`, all 1 for a particle with itself.

        m² = 4 pT₁ pT₂ (sinh²(Δη/2) + sin²(Δφ/2)): other forms cancel to rounding noise for near particles.
        """
        first, second = (index.to(p.pt.device) for index in (self.pairs.first, self.pairs.second))
        columns = torch.stack([p.pt, p.eta, p.phi, p.code])
        pt, eta, phi, code = self.select_last(columns, first).unbind()
        pt_2, eta_2, phi_2, code_2 = self.select_last(columns, second).unbind()
        d_eta, d_phi = eta - eta_2, phi - phi_2
        d_r = torch.sqrt(d_eta.square() + d_phi.square())
        mass = 4 * pt * pt_2 * (torch.sinh(d_eta / 2).square() + torch.sin(d_phi / 2).square())
        softer = torch.minimum(pt, pt_2)
        features = (
            d_r,
            torch.log(mass + SMALLEST),
            torch.log(softer * d_r + SMALLEST),
            softer / (pt + pt_2 + SMALLEST),
            torch.log((pt - pt_2).abs() + SMALLEST),
            (code == code_2).to(pt.dtype),
        )
        return torch.stack([torch.where(first == second, 1.0, feature) for feature in features], 2)

    def _codes(self, pdg_id: Tensor) -> Tensor:
        """Look up EnergyFlow's codes; other ids give 0, or in the published preparation themselves."""
        same = pdg_id[:, :, None] == self.ids
        code = (same.to(pdg_id.dtype) * self.codes).sum(2)
        return torch.where(same.any(2), code, pdg_id) if self.as_coded else code


def _differences(x: Tensor) -> Tensor:
    return x[:, :, None] - x[:, None]


def _wrapped(angle: Tensor) -> Tensor:
    """Bring an angle into [-π, π]."""
    return angle - 2 * math.pi * torch.round(angle / (2 * math.pi))


def _rounded(x: Tensor) -> Tensor:
    return torch.round(x * 1e5) / 1e5


def _ratio(above: Tensor, below: Tensor) -> Tensor:
    return above / (below + SMALLEST)
