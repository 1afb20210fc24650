"""Numbers for people, in SI units: bytes, seconds, joules, operations."""

from __future__ import annotations

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
