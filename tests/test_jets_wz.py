from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jet_files import LABEL, save, wz_jets

from bitsearch.core.errors import DataError
from bitsearch.models.jets import production, wz
from bitsearch.models.jets.kinematics import Array, wrapped
from bitsearch.models.jets.wz import PUBLIC


def soft_drop_by_hand(constituents: Array) -> float:
    """Cluster the nearest pair in rapidity and azimuth, again and again, then drop soft branches."""
    trees: list[tuple[Array, Any]] = [(p, None) for p in constituents]

    def position(p: Array) -> Array:
        return np.array([0.5 * np.log((p[3] + p[2]) / (p[3] - p[2])), np.arctan2(p[1], p[0])])

    def distance(i: int, j: int) -> float:
        dy, dphi = position(trees[i][0]) - position(trees[j][0])
        return float(np.hypot(dy, wrapped(dphi)))

    while len(trees) > 1:
        pairs = [(distance(i, j), i, j) for i in range(len(trees)) for j in range(i)]
        _, i, j = min(pairs)
        (first, second) = trees.pop(i), trees.pop(j)
        trees.append((first[0] + second[0], (first, second)))
    (p, parents) = trees[0]
    while parents:
        soft, hard = sorted(parents, key=lambda tree: np.hypot(*tree[0][:2]))
        pts = np.hypot(*soft[0][:2]), np.hypot(*hard[0][:2])
        if pts[0] / sum(pts) > 0.1:
            break
        p, parents = hard
    return float(np.sqrt(max(p[3] ** 2 - p[:3] @ p[:3], 0)))


@pytest.mark.parametrize("seed", range(8))
def test_soft_drop(seed: int) -> None:
    pytest.importorskip("fastjet")
    rng = np.random.default_rng(seed)
    pt = rng.exponential(10, 14)
    eta, phi = rng.normal(0.5, 0.2, 14), rng.normal(3.1, 0.2, 14)
    p = np.column_stack([pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta), pt * np.cosh(eta)])
    assert wz.soft_drop_mass(p) == pytest.approx(soft_drop_by_hand(p), rel=1e-5)


@pytest.mark.parametrize("suffix", ["npz", "h5"])
def test_written_files_read_back(suffix: str, tmp_path: Path) -> None:
    table, path = wz_jets(30), tmp_path / "new" / f"a.{suffix}"
    wz.write(path, table, LABEL)
    back, label = wz.read_labelled(path)
    assert label == LABEL
    exact = suffix == "npz"
    for name in PUBLIC:
        found, expected = getattr(back, name), getattr(table, name)
        assert found.dtype == expected.dtype
        fixed = name in wz.FIXED and not exact
        rough = name in ("pt", "theta") and not exact
        np.testing.assert_allclose(
            found, expected, atol=(wz.STEP / 2 + 1e-6) * fixed, rtol=2.0**-12 * rough, err_msg=name
        )
    few = wz.read(path, 5)
    assert few.pt.shape == (30, 5)
    np.testing.assert_array_equal(few.theta, back.theta[:, :5])
    np.testing.assert_array_equal(few.jet, back.jet)
    summary = wz.check(path)
    assert (summary.events, summary.constituents) == (30, 40)
    assert summary.mean_multiplicity == table.multiplicity.mean()


def test_constituents_are_sorted(tmp_path: Path) -> None:
    public = {key: getattr(wz_jets(), name) for name, key in PUBLIC.items()}
    shuffled = public | {key: public[key][:, ::-1] for key in ("pt", "theta", "phi", "deta", "dphi")}
    first, second = (
        wz.read(save(tmp_path / f"{name}.npz", **arrays))
        for name, arrays in {"a": public, "b": shuffled}.items()
    )
    np.testing.assert_array_equal(first.pt, second.pt)
    np.testing.assert_array_equal(first.delta_phi, second.delta_phi)


def changed(name: str, index: tuple[int, ...], value: float) -> dict[str, Any]:
    arrays = {key: getattr(wz_jets(), field).copy() for field, key in PUBLIC.items()}
    arrays[name][index] = value
    return arrays


ODD = {
    "pt": (changed("pt", (4, 1), -2), "jet 4 has constituent pT = -2"),
    "theta": (changed("theta", (0, 0), 3.2), "jet 0 has theta = 3.2 .*expected 0 to pi"),
    "phi": (changed("phi", (7, 0), 6.2), "jet 7 has phi = 6.2 .*expected -pi to pi"),
    "target": (changed("target", (3,), np.inf), "jet 3 has target = inf .*expected finite numbers"),
    "range": (changed("target_lab", (3,), 4), "jet 3 has decay_plane_angle_lab = 4 "),
    "jet": (changed("jet", (5, 0), 0), "jet 5 has jet pT = 0"),
    "padding": (changed("pt", (0, 0), 0), "jet 0 has theta = .*expected 0 where pT is 0"),
    "none": ({"pt": np.zeros((3, 4))}, "has no 'theta' .found pt.; expected pt, theta, phi"),
}


@pytest.mark.parametrize(("arrays", "message"), ODD.values(), ids=ODD)
def test_odd_content_is_refused(arrays: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        wz.read(save(tmp_path / "odd.npz", **arrays))


def test_the_sample_is_what_it_should_be() -> None:
    """Limits: closed-form estimators on 3,251 jets of an independent production, plane by plane in the decay frame."""
    summary = wz.check(wz.SAMPLE)
    assert wz.SAMPLE.stat().st_size <= 8_000_000
    assert summary.events >= 20_000
    assert summary.label is not None
    assert summary.label.version == wz.VERSION
    passed = dict(summary.label.settings)
    cut_flow = passed.pop("passed")
    assert passed == wz.SETTINGS
    assert list(cut_flow) == list(wz.CUTS)
    assert 0.42 < cut_flow["soft-drop mass"] / cut_flow["generated"] < 0.47
    table = wz.read(wz.SAMPLE)
    assert summary.constituents == wz.LEADING
    assert 600 < table.jet[:, 0].mean() < 660
    assert 80 < table.jet[:, 3].mean() < 83
    assert 49 < summary.mean_multiplicity < 53
    assert 0.98 < (table.pt.sum(axis=1) / table.jet[:, 0]).mean() < 1
    assert table.jet[:, 0].min() >= wz.PT_GEV
    assert 69.9 < table.jet[:, 3].min() < table.jet[:, 3].max() < 110.1
    counts = np.histogram(table.decay_plane_angle, 20, (-np.pi, np.pi))[0] / len(table) * 20
    assert np.abs(counts - 1).max() < 0.15
    # pT theta to the first power along the plane, and the second moment in the laboratory.
    for weight, azimuth, angle, low, high in (
        (table.theta, table.phi, table.decay_plane_angle, 0.015, 0.02),
        (table.theta**2, table.phi, table.decay_plane_angle, 0.022, 0.03),
        (
            np.hypot(table.delta_phi, table.delta_eta) ** 2,
            np.arctan2(table.delta_eta, table.delta_phi),
            table.decay_plane_angle_lab,
            0.022,
            0.03,
        ),
    ):
        tensor = (table.pt * weight * np.exp(2j * azimuth)).sum(axis=1)
        residual = np.angle(tensor) / 2 - angle
        assert low < (np.sin(residual) ** 2).mean() < high


def test_generated_jets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pythia8mc")
    pytest.importorskip("fastjet")
    monkeypatch.setattr(production, "CHUNK", 3)
    first, second = (
        wz.make(5, 3, tmp_path / f"{workers}.h5", workers, underlying_event=False) for workers in (1, 2)
    )
    assert first.read_bytes() == second.read_bytes()
    assert capfd.readouterr() == ("", "")
    summary, table = wz.check(first), wz.read(first)
    assert summary.label is not None
    cut_flow = list(summary.label.settings["passed"].values())
    assert cut_flow == sorted(cut_flow, reverse=True)
    assert cut_flow[-1] == len(table) == 5
    assert table.jet[:, 0].min() > 500
    assert np.all((table.jet[:, 3] > 70) & (table.jet[:, 3] < 110))
    # The leading constituents are the jet, but for a few per cent.
    for name in ("delta_eta", "delta_phi"):
        assert np.abs((table.pt * getattr(table, name)).sum(axis=1) / table.pt.sum(axis=1)).max() < 0.02
    with pytest.raises(DataError, match="got 0 jets and seed 1"):
        wz.make(0, 1, tmp_path / "a.h5")
