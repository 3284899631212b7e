"""P-DAT's inputs against four-vectors in double precision, and what the published preparation does to azimuths."""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from quark_gluon_toy import toy
from torch import Tensor

from bitsearch.models.pdat.pair_features import CODES, HADRONS, Inputs, Pairs, Particles, Preparation

PARTICLES, NEIGHBOURS = 20, 5
Floats = NDArray[np.float64]


def columns(jets: int = 12, seed: int = 2, first: int | None = None) -> list[Tensor]:
    table = toy(jets, seed, slots=60).constituents
    if first is not None:
        table[:, first:] = 0
    return [torch.from_numpy(np.ascontiguousarray(table[:, :, i])) for i in range(4)]


def prepare(*cols: Tensor, convention: str = "wrapped", unordered: bool = True) -> tuple[Particles, Inputs]:
    preparation = Preparation(PARTICLES, NEIGHBOURS, convention, unordered)  # type: ignore[arg-type]
    return preparation.select(*cols), preparation(*cols)


def vectors(pt: Floats, eta: Floats, phi: Floats) -> Floats:
    """Give E, px, py, pz of massless particles."""
    return np.stack([pt * np.cosh(eta), pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)], -1)


def leading(jet: int, cols: list[Tensor]) -> tuple[Floats, ...]:
    """Give pT, rapidity, azimuth and id of the particles that a jet keeps."""
    pt, eta, phi, pdg_id = (x[jet].double().numpy() for x in cols)
    order = np.argsort(-pt, kind="stable")[:PARTICLES]
    order = order[pt[order] > 0]
    return pt[order], eta[order], phi[order], pdg_id[order]


def wrapped(x: Floats) -> Floats:
    return (x + np.pi) % (2 * np.pi) - np.pi


@pytest.mark.parametrize("first", [None, 7, 3], ids=["full", "seven", "fewer than neighbours"])
def test_particles_are_placed_around_the_axis(first: int | None) -> None:
    cols = columns(first=first)
    found, _ = prepare(*cols)
    for jet in range(12):
        pt, eta, phi, pdg_id = leading(jet, cols)
        p = vectors(pt, eta, phi)
        total = p.sum(0)
        jet_pt = np.hypot(total[1], total[2])
        d_eta = eta - np.arcsinh(total[3] / jet_pt)
        d_phi = wrapped(phi - np.arctan2(total[2], total[1]))
        n = len(pt)
        expected = {
            "energy": p[:, 0],
            "px": p[:, 1],
            "pt_share": pt / jet_pt,
            "energy_share": p[:, 0] / total[0],
            "d_eta": d_eta,
            "phi": d_phi,
            "d_r": np.hypot(d_eta, d_phi),
            "code": np.array([CODES[int(x)] for x in pdg_id]),
        }
        for name, values in expected.items():
            ours = getattr(found, name)[jet].numpy()
            np.testing.assert_allclose(ours[:n], values, rtol=1e-4, atol=1e-5, err_msg=name)
            assert not ours[n:].any(), name
        assert found.real[jet].tolist() == [True] * n + [False] * (PARTICLES - n)


@pytest.mark.parametrize("first", [None, 3])
def test_neighbours_are_the_nearest_real_particles(first: int | None) -> None:
    cols = columns(first=first)
    particles, inputs = prepare(*cols)
    nearest = Preparation(PARTICLES, NEIGHBOURS).nearest(particles)
    for jet in range(12):
        pt, eta, phi, _ = leading(jet, cols)
        for c in range(len(pt)):
            distance = np.hypot(eta - eta[c], wrapped(phi - phi[c]))
            distance[c] = -1
            expected = np.argsort(distance)[:NEIGHBOURS].tolist()
            expected += [c] * (NEIGHBOURS - len(expected))
            assert nearest[jet, c].tolist() == expected
            features = inputs.neighbours[jet, c].numpy()
            np.testing.assert_allclose(features[:, 1], np.log(pt[expected] + 1e-8), rtol=1e-5)
            np.testing.assert_allclose(features[:, 4], (eta - eta[c])[expected], atol=1e-5)
            np.testing.assert_allclose(features[:, 5], wrapped(phi - phi[c])[expected], atol=1e-5)
            np.testing.assert_allclose(features[:, 6], np.hypot(features[:, 4], features[:, 5]), atol=1e-6)


def test_pairs_against_four_vectors() -> None:
    cols = columns()
    _, inputs = prepare(*cols)
    pairs = Pairs.of(PARTICLES, unordered=True)
    matrix = inputs.pairs[:, pairs.entries].reshape(12, PARTICLES, PARTICLES, 6).numpy()
    assert np.array_equal(matrix, matrix.transpose(0, 2, 1, 3))
    for jet in range(12):
        pt, eta, phi, pdg_id = leading(jet, cols)
        p = vectors(pt, eta, phi)
        for a in range(len(pt)):
            assert (matrix[jet, a, a] == 1).all()
            for b in range(len(pt)):
                if a == b:
                    continue
                total = p[a] + p[b]
                mass = total[0] ** 2 - (total[1:] ** 2).sum()
                d_r = math.hypot(eta[a] - eta[b], wrapped(phi[a] - phi[b]))
                softer = min(pt[a], pt[b])
                expected = [
                    d_r,
                    math.log(abs(mass) + 1e-8),
                    math.log(softer * d_r + 1e-8),
                    softer / (pt[a] + pt[b]),
                    math.log(abs(pt[a] - pt[b]) + 1e-8),
                    pdg_id[a] == pdg_id[b],
                ]
                np.testing.assert_allclose(matrix[jet, a, b], expected, rtol=2e-3, atol=2e-3)


def test_masses_of_near_particles_are_exact() -> None:
    """The difference of squares in single precision is noise here; twenty digits of it are known."""
    pt, d = torch.tensor([[100.0, 50.0]]), 2.0**-12
    particles = Preparation(2, 1).select(pt, torch.tensor([[0.5, 0.5 + d]]), torch.tensor([[1.0, 1.0]]), pt)
    found = Preparation(2, 1)._pairs(particles)[0, 1, 1]
    exact = 2 * 100 * 50 * (math.cosh(d) - 1)
    assert float(found) == pytest.approx(math.log(exact), abs=1e-3)


def test_every_pair_finds_its_place() -> None:
    for unordered, count in ((True, 15), (False, 25)):
        pairs = Pairs.of(5, unordered)
        assert len(pairs.first) == count
        for a in range(5):
            for b in range(5):
                index = pairs.entries[5 * a + b]
                found = {int(pairs.first[index]), int(pairs.second[index])}
                assert found == {a, b}


def test_jet_matrix_by_hand() -> None:
    cols = columns(6)
    particles, inputs = prepare(*cols)
    for jet in range(6):
        pt, eta, phi, pdg_id = leading(jet, cols)
        p = vectors(pt, eta, phi)
        e, px, py, pz = p.sum(0)
        jet_pt = math.hypot(px, py)
        place = np.stack([getattr(particles, n)[jet, : len(pt)].numpy() for n in ("d_eta", "d_phi", "d_r")])
        eta_, phi_, r_ = place @ pt
        expected = np.eye(11)
        for (i, j), value in {
            (0, 1): px / e,
            (0, 2): py / e,
            (0, 3): pz / e,
            (0, 4): jet_pt / e,
            (0, 6): 1,
            (4, 5): 1,
            (1, 4): px / jet_pt,
            (2, 4): py / jet_pt,
            (7, 9): eta_ / r_,
            (8, 9): phi_ / r_,
        }.items():
            expected[i, j] = expected[j, i] = value
        kinds = [pdg_id == kind for kind in HADRONS]
        sums = np.array([[*np.abs(p[k].sum(0)), pt[k].sum()] for k in kinds])
        lead = kinds[int(sums[:, 4].argmax())]
        column = [
            *np.log(sums.max(0)),
            sums[:, 4].max() / jet_pt,
            sums[:, 0].max() / e,
            *(place[:, lead] @ pt[lead] / pt[lead].sum()),
        ]
        expected[:10, 10] = expected[10, :10] = column
        np.testing.assert_allclose(inputs.jet[jet].numpy(), expected, rtol=1e-3, atol=1e-4)


def test_unknown_ids_count_as_photons_or_as_coded_as_themselves() -> None:
    cols = columns(2)
    cols[3][:, 0] = 3122.0
    assert (prepare(*cols)[0].code[:, 0] == 0).all()
    assert (prepare(*cols, convention="as_coded")[0].code[:, 0] == 3122).all()


def spread(particles: Particles) -> Tensor:
    """Give the pT-weighted width in azimuth of every jet."""
    return (particles.pt_share * particles.d_phi.abs()).sum(1)


def at(phi: float, jets: int = 40) -> list[Tensor]:
    """Turn jets so that their hardest particle lies at `phi`."""
    pt, eta, azimuth, pdg_id = columns(jets)
    return [pt, eta, torch.where(pt > 0, azimuth - azimuth[:, :1] + phi, 0.0), pdg_id]


def test_preparation_as_coded_tears_jets_apart_at_pi() -> None:
    """Jets around π: those of their particles above it land at 0. Wrapped, no azimuth is special."""
    for convention, torn in (("wrapped", False), ("as_coded", True)):
        inside = spread(prepare(*at(1.5), convention=convention)[0])
        around = spread(prepare(*at(math.pi), convention=convention)[0])
        ratio = float(around.median() / inside.median())
        assert (ratio > 3) == torn, ratio
        assert torn or ratio == pytest.approx(1, abs=1e-3)


def test_preparation_as_coded_expects_azimuths_from_zero_on() -> None:
    """The same jets with azimuths in (-π, π]: the arccosine gives the wrong half-plane."""
    positive = at(4.5)
    for convention, equal in (("wrapped", True), ("as_coded", False)):
        negative = [*positive[:2], torch.where(positive[0] > 0, positive[2] - 2 * math.pi, 0.0), positive[3]]
        one, other = (spread(prepare(*x, convention=convention)[0]) for x in (positive, negative))
        assert torch.allclose(one, other, atol=1e-4) == equal


def test_preparation_as_coded_lets_empty_slots_be_neighbours() -> None:
    cols = at(0.02)
    cols = [torch.where(torch.arange(60) < 3, x, 0.0) for x in cols]
    cols[1] = torch.where(cols[0] > 0, cols[1] * 0.01 + 0.01, 0.0)
    lowest = math.log(1e-8)
    for convention, padded in (("wrapped", False), ("as_coded", True)):
        particles, inputs = prepare(*cols, convention=convention)
        momenta = inputs.neighbours[particles.real][:, :, 1]
        assert bool((momenta < lowest + 1e-3).any()) == padded


def test_preparation_as_coded_drops_rapidity_zero_and_rounds() -> None:
    cols = columns(3)
    cols[1][:, 2] = 0.0
    kept, coded = prepare(*cols)[0], prepare(*cols, convention="as_coded")[0]
    assert torch.equal((kept.pt[:, :5] > 0).sum(1), (coded.pt[:, :5] > 0).sum(1))
    assert not torch.isclose(coded.pt, cols[0][:, 2:3]).any()
    scaled = coded.pt_share * 1e5
    torch.testing.assert_close(scaled, scaled.round(), rtol=0, atol=2e-2)


def test_kinds_as_coded_have_the_momentum_of_their_vector_sum() -> None:
    cols = columns(6)
    p, inputs = prepare(*cols, convention="as_coded")
    for jet in range(6):
        real = p.pt[jet].numpy() > 0
        e, px, py, pz, pt = (
            getattr(p, name)[jet].double().numpy()[real] for name in ("energy", "px", "py", "pz", "pt")
        )
        place = np.stack([getattr(p, n)[jet].double().numpy()[real] for n in ("d_eta", "d_phi", "d_r")])
        kinds = [leading(jet, cols)[3][: len(e)] == kind for kind in HADRONS]
        transverse = np.array([math.hypot(px[kind].sum(), py[kind].sum()) for kind in kinds])
        lead = kinds[int(transverse.argmax())]
        largest = [max(abs(column[kind].sum()) for kind in kinds) for column in (e, px, py, pz)]
        expected = [
            *np.log([*largest, transverse.max()]),
            transverse.max() / math.hypot(px.sum(), py.sum()),
            max(e[kind].sum() for kind in kinds) / e.sum(),
            *(place[:, lead] @ pt[lead] / transverse.max()),
        ]
        np.testing.assert_allclose(inputs.jet[jet, :10, 10].numpy(), expected, rtol=1e-3, atol=1e-3)


def test_preparation_as_coded_rounds_last() -> None:
    """Energies come from unrounded rapidities: rounding 1.234567 first would add 2.4e-3 GeV to 500 GeV."""
    cols = columns(1)
    cols[0][:], cols[0][0, 0] = 0.0, 500.0
    cols[1][:], cols[1][0, 0] = 0.0, 1.234567
    particles = prepare(*cols, convention="as_coded")[0]
    assert float(particles.energy[0, 0]) == pytest.approx(500 * math.cosh(1.234567), abs=3e-4)
    assert float(particles.eta[0, 0]) == pytest.approx(1.23457, abs=1e-7)
