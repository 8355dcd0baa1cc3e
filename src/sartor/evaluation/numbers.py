"""Numbers as a verdict shows them: a few significant digits, p values and intervals."""

from __future__ import annotations

import math

NO_NUMBER = "–"


def number(value: float | None, signed: bool = False) -> str:
    """`value` with as many digits as are worth reading; `–` for None, NaN and infinities."""
    if value is None or not math.isfinite(value):
        return NO_NUMBER
    if value == 0:
        return "0"
    size = abs(value)
    digits = 0 if size >= 1000 else 1 if size >= 10 else 2 if size >= 1 else 3
    text = f"{value:{'+' if signed else ''}.{digits}f}"
    return text.replace("-", "−") if float(text) else text.lstrip("+-")


def p_value(p: float) -> str:
    """`p < 0.001`, `p = 0.032`."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def interval(low: float | None, high: float | None) -> str:
    """`−0.61 … −0.18`; `–` where there is no interval."""
    return NO_NUMBER if low is None or high is None else f"{number(low, True)} … {number(high, True)}"
