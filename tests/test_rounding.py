"""Rounding of weights against searches over all codes, and files that are ternary already."""

import itertools

import numpy as np
import pytest

from bitsearch.core import rounding
from bitsearch.core.precision import Precision
from bitsearch.core.rounding import Rounding, fit_scale, is_lossless, round_rows

RNG = np.random.default_rng(0)


def squared_error(weight: rounding.Float, codes: rounding.Codes, scale: rounding.Float) -> rounding.Float:
    found: rounding.Float = ((weight - codes * scale[:, None].astype(np.float64)) ** 2).sum(axis=1)
    return found


@pytest.mark.parametrize(
    ("precision", "values"), [(Precision.TERNARY, (-1, 0, 1)), (Precision.BINARY, (-1, 1))]
)
def test_optimal_beats_every_other_choice(precision: Precision, values: tuple[int, ...]) -> None:
    weight = RNG.normal(size=(20, 6)).astype(np.float32)
    weight[0, :3] = 0
    found = squared_error(weight, *round_rows(weight, Rounding.OPTIMAL, precision))
    for row, error in zip(weight.astype(np.float64), found, strict=True):
        codes = np.array([c for c in itertools.product(values, repeat=6) if any(c)])
        fitted = codes @ row / (codes**2).sum(axis=1)
        assert error <= ((row - codes * fitted[:, None]) ** 2).sum(axis=1).min() * (1 + 1e-6)


@pytest.mark.parametrize("size", [1, 3, 129, 4097])
def test_optimal_finds_what_is_ternary_already(size: int) -> None:
    codes = RNG.integers(-1, 2, (64, size)).astype(np.int8)
    scale = np.exp(RNG.normal(size=64) * 20).astype(np.float32)
    weight = codes * scale[:, None]
    assert is_lossless(weight, *round_rows(weight))
    np.testing.assert_array_equal(round_rows(weight)[0], codes)
    signs = np.where(codes < 0, np.int8(-1), np.int8(1))
    assert is_lossless(
        signs * scale[:, None], *round_rows(signs * scale[:, None], "optimal", Precision.BINARY)
    )
    assert not is_lossless(
        RNG.normal(size=(2, 5)).astype(np.float32), *round_rows(weight[:2, :1] * np.ones(5, np.float32))
    )


def test_zero_rows_have_scale_zero() -> None:
    codes, scale = round_rows(np.zeros((2, 3), np.float32))
    assert not codes.any()
    assert not scale.any()


def test_paper_is_equation_1() -> None:
    weight = np.array([[1.0, 1.0], [0.5, 1.5]], np.float32)
    codes, scale = round_rows(weight, "paper")  # ties go to even: 0.5 to 0, 1.5 to 2 and then to 1
    assert codes.tolist() == [[1, 1], [0, 1]]
    assert scale.tolist() == [1.0, 1.0]
    codes, scale = round_rows(weight, "paper", Precision.BINARY)
    assert codes.tolist() == [[0, 0], [-1, 1]]
    assert round_rows(np.zeros((2, 2), np.float32), "paper")[1].tolist() == [np.float32(1e-8)] * 2


def test_mean_is_equation_1_for_each_row() -> None:
    weight = (
        RNG.normal(size=(7, 31)).astype(np.float32) * np.geomspace(1e-3, 1e3, 7, dtype=np.float32)[:, None]
    )
    for precision in (Precision.TERNARY, Precision.BINARY):
        codes, scale = round_rows(weight, "mean", precision)
        for row in range(7):
            alone = round_rows(weight[row : row + 1], "paper", precision)
            np.testing.assert_array_equal(codes[row], alone[0][0])
            assert scale[row] == alone[1][0]


@pytest.mark.parametrize("kind", Rounding)
@pytest.mark.parametrize("precision", [Precision.TERNARY, Precision.BINARY])
def test_blocks_change_nothing(kind: Rounding, precision: Precision, monkeypatch: pytest.MonkeyPatch) -> None:
    weight = RNG.normal(size=(33, 17)).astype(np.float32)
    codes, scale = round_rows(weight, kind, precision)
    monkeypatch.setattr(rounding, "BLOCK", 40)
    again, scale_again = round_rows(weight, kind, precision)
    np.testing.assert_array_equal(codes, again)
    np.testing.assert_array_equal(scale, scale_again)


def test_fitted_scale_is_the_least_squares_one() -> None:
    weight = RNG.normal(size=(9, 40)).astype(np.float32)
    codes = RNG.integers(-1, 2, (9, 40)).astype(np.int8)
    expected = [
        np.linalg.lstsq(c[:, None].astype(float), w, rcond=None)[0][0]
        for w, c in zip(weight, codes, strict=True)
    ]
    np.testing.assert_allclose(fit_scale(weight, codes), expected, rtol=1e-5)
