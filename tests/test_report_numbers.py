"""Numbers are printed to the digits that their uncertainty allows."""

import pytest

from bitsearch.core.measurement import Quantity
from bitsearch.report import numbers


@pytest.mark.parametrize(
    ("value", "std", "text"),
    [
        (0.6334, 0.003, "0.633(3)"),
        (0.6334, 0.0016, "0.6334(16)"),
        (-612.386, 0.071, "\N{MINUS SIGN}612.39(7)"),
        (12.34, 1.2, "12.3(12)"),
        (1234.0, 56.0, "1234(56)"),
        (0.00068, 0.00027, "0.00068(27)"),
        (0.99, 0.0999, "0.99(10)"),
        (0.5, 0.0297, "0.50(3)"),
        (0.1234567, None, "0.1235"),
        (1.0, 0.0, "1"),
    ],
)
def test_short(value: float, std: float | None, text: str) -> None:
    assert numbers.short(Quantity(value, std)) == text


@pytest.mark.parametrize(
    ("written", "text"),
    [
        (numbers.plus_minus(1.7342, 0.104, "nats"), "1.73 \N{PLUS-MINUS SIGN} 0.10 nats"),
        (numbers.plus_minus(1.7342, None), "1.73"),
        (numbers.percent(0.0), "0 %"),
        (numbers.percent(0.0034), "0.34 %"),
        (numbers.percent(0.665802), "66.6 %"),
        (numbers.percent(0.998585), "99.9 %"),
        (numbers.size(999), "999 B"),
        (numbers.size(1_234_567), "1.23 MB"),
        (numbers.size(75_300_000), "75.3 MB"),
        (numbers.duration_us(4000.0), "4.00 ms"),
        (numbers.duration_us(310.2), "310 \N{MICRO SIGN}s"),
        (numbers.duration_s(59.96), "60.0 s"),
        (numbers.duration_s(3725), "1 h 02 min"),
        (numbers.magnitude(2.4e-7), "2 \N{MULTIPLICATION SIGN} 10⁻⁷"),
        (numbers.magnitude(9.7e-6), "1 \N{MULTIPLICATION SIGN} 10⁻⁵"),
        (numbers.magnitude(0.02), "0.02"),
        (numbers.magnitude(0.0), "0"),
        (numbers.count(20_000), "20\N{NARROW NO-BREAK SPACE}000"),
    ],
)
def test_texts(written: str, text: str) -> None:
    assert written == text
