"""Numbers for people: shares in percent, and amounts in SI units: bytes, seconds, joules, operations."""

from __future__ import annotations

import math
from decimal import ROUND_HALF_UP, Decimal

PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "µ"))
UNKNOWN = "-"


def amount(value: float | None, unit: str = "", gap: str = " ") -> str:
    """A number with three digits, a prefix and its unit.

    Args:
        value: None and what is no number are `UNKNOWN`.
        unit: 0.00218 with "s" is "2.18 ms"; without a unit it is "2.18m".
        gap: between number and unit.
    """
    if value is None or value != value:
        return UNKNOWN
    scale, prefix = next((one for one in PREFIXES if abs(value) >= 0.9995 * one[0]), (1.0, ""))
    return f"{value / scale:.3g}{gap if unit else ''}{prefix}{unit}"


def size(count: float | None, gap: str = " ") -> str:
    """Bytes, which have no parts, in powers of 1000: 12_345 -> "12.3 kB"."""
    if count is None or count != count:
        return UNKNOWN
    return f"{count:.0f}{gap}B" if abs(count) < 999.5 else amount(count, "B", gap)


def percent(share: float, sign: bool = False) -> str:
    """A share in percent, or a difference of shares in points, with one decimal: 0.7325 -> "73.3".

    Halves go away from 0, whatever floats add to them, so that what is shown of two shares agrees with what
    is shown of their difference. "-0.0" is a little below 0, which the end of an interval may be.

    Args:
        sign: also "+".
    """
    if not math.isfinite(share):
        return UNKNOWN
    exact = Decimal(str(round(100 * float(share), 6))).quantize(Decimal("0.1"), ROUND_HALF_UP)
    return f"{exact:+}" if sign else f"{exact}"


def whole(value: float | None) -> str:
    """A number without a prefix: three digits, or whole from 1,000 on."""
    if value is None or value != value:
        return UNKNOWN
    return f"{value:,.3g}" if abs(value) < 999.5 else f"{value:,.0f}"
