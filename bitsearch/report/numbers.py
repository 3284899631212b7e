"""Numbers as a physicist prints them."""

import math

from bitsearch.core.measurement import Latency, Measurement, Metric, Quantity

TIMES = "\N{MULTIPLICATION SIGN}"
MOST, MOST_SIGMAS = 1000, 10


def number(value: float, digits: int = 4) -> str:
    """Write `value` with `digits` significant digits, a true minus sign and powers of ten."""
    mantissa, power, exponent = f"{value:.{digits}g}".partition("e")
    return _minus(mantissa) + (f" {TIMES} {_ten(exponent)}" if power else "")


def short(quantity: Quantity) -> str:
    """Write value(std): 0.633(3) is 0.633 ± 0.003."""
    value, std = quantity.value, quantity.std
    if not std or not math.isfinite(std):
        return number(value)
    decimals = _decimals(std)
    return _minus(f"{value:.{decimals}f}({round(std * 10**decimals)})")


def in_prose(label: str) -> str:
    """Begin a label as within a sentence; abbreviations stay."""
    return label[:1].lower() + label[1:] if label[1:2].islower() else label


def magnitude(value: float) -> str:
    """Write a positive number to one digit, a small one with a power of ten."""
    mantissa, _, exponent = f"{value:.0e}".partition("e")
    return f"{mantissa} {TIMES} {_ten(exponent)}" if 0 < value < 1e-3 else number(value, 1)


def plus_minus(value: float, std: float | None, unit: str = "") -> str:
    """Write value ± std for running text, to the digits that std allows."""
    unit = f" {unit}" if unit else ""
    if not std or not math.isfinite(std):
        return f"{number(value, 3)}{unit}"
    decimals = _decimals(std)
    return _minus(f"{value:.{decimals}f} ± {std:.{decimals}f}{unit}")


def percent(share: float) -> str:
    """Write a share with one decimal, as the paper does, or two digits below one per cent."""
    if 0 < share < 0.0095:
        return f"{100 * share:.2g} %"
    return f"{100 * share:.1f} %" if share else "0 %"


def reach(item: Measurement) -> str:
    """Write how far a configuration goes: its quantised share, or the bits of a weight where those count."""
    return percent(item.executed_fraction) if item.mean_bits is None else f"{item.mean_bits:.2f} bits"


def size(size_bytes: int) -> str:
    """Write a file size in decimal units and three digits."""
    value, unit = float(size_bytes), "B"
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.5 or unit == "GB":
            break
        value /= 1000
    return f"{_three(value)} {unit}"


def duration_us(value_us: float) -> str:
    """Write a latency in µs, ms or s."""
    if value_us < 1e3:
        return f"{_three(value_us)} µs"
    return f"{_three(value_us / 1e3)} ms" if value_us < 1e6 else f"{_three(value_us / 1e6)} s"


def duration_s(value_s: float) -> str:
    """Write a wall time in s, minutes or hours."""
    minutes, seconds = divmod(round(value_s), 60)
    if value_s < 60:
        return f"{value_s:.1f} s"
    return f"{minutes} min {seconds:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def batch(latency: Latency) -> str:
    """Name the conditions of a latency: batch size and threads."""
    return f"batch {latency.batch}, {latency.threads} thread{'s' if latency.threads != 1 else ''}"


def sigmas(value: float) -> str:
    """Write a significance; beyond what distributions of trainings are known to, only that it is."""
    if abs(value) > MOST_SIGMAS:
        return f"{_minus('-') if value < 0 else ''}more than {MOST_SIGMAS} \N{GREEK SMALL LETTER SIGMA}"
    return f"{number(value, 2)} \N{GREEK SMALL LETTER SIGMA}"


def smaller(size_bytes: int, than_bytes: int) -> str:
    """Write how many times smaller a file is; empty where a size is unknown."""
    return f"{than_bytes / size_bytes:.1f} {TIMES} smaller" if size_bytes and than_bytes else ""


def axis(metric: Metric) -> str:
    """Label an axis or column with a metric and its unit."""
    return f"{metric.label} [{metric.unit}]" if metric.unit else metric.label


def better(metric: Metric) -> str:
    """Say which direction is good."""
    return "lower is better" if metric.direction == "minimize" else "higher is better"


def estimate(value: int) -> str:
    """Write how many of something it would take; beyond `MOST` nobody would."""
    return f"more than {MOST}" if value > MOST else f"about {count(value)}"


def count(value: int) -> str:
    """Write an integer with its thousands apart."""
    return f"{value:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def _ten(exponent: str) -> str:
    """Write a power of ten."""
    superscripts = str.maketrans("-0123456789", "\N{SUPERSCRIPT MINUS}⁰¹²³⁴⁵⁶⁷⁸⁹")
    return f"10{str(int(exponent)).translate(superscripts)}"


def _three(value: float) -> str:
    decimals = 2 - math.floor(math.log10(value)) if value > 0 else 0
    return f"{value:.{min(max(decimals, 0), 2)}f}"


def _decimals(std: float) -> int:
    """Keep two digits of an uncertainty that begins with 1 or 2, else one."""
    leading = math.floor(math.log10(std))
    return max(0, -leading + (1 if round(std / 10**leading, 1) < 3 else 0))


def _minus(text: str) -> str:
    return text.replace("-", "\N{MINUS SIGN}")
