"""Curves for the browser: downsampled with their extremes kept, smoothed, and turned into chart options."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

MAX_POINTS = 1200
PALETTE = ("#128a7d", "#c46a1b", "#5b6ee1", "#b0417e", "#7c8a1f", "#3f7fb5")
"""The accent color first; all have a contrast above 3:1 on the light and the dark background."""
GRAY = "#8a9490"


@dataclass(frozen=True, slots=True)
class Curve:
    """A named line of [x, y] points; with `dots`, each point is marked."""

    name: str
    points: Sequence[Sequence[float]]
    dots: bool = False
    color: int = 0
    faint: bool = False


def thin(x: Sequence[float], y: Sequence[float], max_points: int = MAX_POINTS) -> list[list[float]]:
    """At most `max_points` points: the first, the last, and the lowest and highest of each of equal intervals.

    NaN and infinite values are left out. The order is kept.
    """
    xs, ys = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    finite = np.isfinite(ys) & np.isfinite(xs)
    xs, ys = xs[finite], ys[finite]
    if len(xs) > max_points:
        borders = np.linspace(0, len(xs), max(1, (max_points - 2) // 2) + 1).astype(int)
        kept = {0, len(xs) - 1}
        for a, b in itertools.pairwise(borders):
            if b > a:
                kept |= {int(a + np.argmin(ys[a:b])), int(a + np.argmax(ys[a:b]))}
        chosen = np.array(sorted(kept))
        xs, ys = xs[chosen], ys[chosen]
    return [[float(a), float(b)] for a, b in zip(xs, ys, strict=True)]


def smooth(y: Sequence[float], weight: float) -> list[float]:
    """A bias-corrected exponential moving average; `weight` 0 returns the curve itself."""
    if weight <= 0:
        return list(y)
    mean, mass, out = 0.0, 0.0, []
    for value in y:
        if math.isfinite(value):
            mean = weight * mean + (1 - weight) * value
            mass = weight * mass + (1 - weight)
        out.append(mean / mass if mass else value)
    return out


def weight_for(level: int, points: int) -> float:
    """The weight for a smoothing level: 0 none, 1 over a fiftieth of the points, 2 over a tenth; at least a few."""
    return 0.0 if level == 0 else 1 - 1 / max(2.5, points / (50 if level == 1 else 10))


def chart(curves: Sequence[Curve], *, log: bool = False, x_name: str = "", legend: bool = True) -> dict[str, Any]:
    """The options of one chart with these curves."""
    axis = {
        "axisLine": {"lineStyle": {"color": GRAY}},
        "axisLabel": {"color": GRAY, "hideOverlap": True},
        "splitLine": {"lineStyle": {"color": GRAY, "opacity": 0.18}},
    }
    return {
        "animation": False,
        "grid": {"left": 8, "right": 22, "top": 36 if legend else 12, "bottom": 8, "containLabel": True},
        "legend": {
            "show": legend,
            "top": 0,
            "left": 0,
            "textStyle": {"color": GRAY},
            "icon": "roundRect",
            "itemHeight": 4,
            "data": [c.name for c in curves if not c.faint],
        },
        "tooltip": {"trigger": "axis", "renderMode": "richText", "confine": True},
        "xAxis": {
            "type": "value",
            "name": x_name,
            "nameLocation": "end",
            **axis,
            "splitLine": {"show": False},
            "min": "dataMin",
            "max": "dataMax",
        },
        "yAxis": {"type": "log" if log else "value", "scale": True, **axis},
        "series": [_series(curve) for curve in curves],
    }


def _series(curve: Curve) -> dict[str, Any]:
    color = PALETTE[curve.color % len(PALETTE)]
    return {
        "name": curve.name,
        "type": "line",
        "data": curve.points,
        "showSymbol": curve.dots,
        "symbol": "circle",
        "symbolSize": 7,
        "color": color,
        "silent": curve.faint,
        "lineStyle": {
            "width": 1 if curve.faint else 2,
            "opacity": 0.28 if curve.faint else 1,
            "type": "dashed" if curve.dots else "solid",
        },
        "itemStyle": {"color": color, "opacity": 0.28 if curve.faint else 1},
    }
