"""The report's charts: small SVG drawings whose colors are CSS variables of the page."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path

from sartor.base.i18n import Text, tr
from sartor.evaluation.difference import Difference
from sartor.evaluation.numbers import number

PAPER: Mapping[str, str] = {
    "ink": "#1d2733",
    "dim": "#66717f",
    "line": "#d8d3c8",
    "thread": "#2b5f8c",
    "cloth": "#e9eef3",
    "good": "#1f7a4d",
    "bad": "#b0412f",
    "open": "#97690c",
    "paper": "#ffffff",
}
"""The light palette, for standalone files; in the page the same names are CSS variables."""


MARGINS_SHOWN = 5
"""An interval bar reaches at least this many margins to each side."""


def loss_curve(
    steps: Sequence[tuple[int, float]], evals: Sequence[tuple[int, float]], languages: Sequence[str] = ("en",)
) -> str:
    """Training loss (each step, and smoothed) and held-out loss over optimizer steps; empty without two points.

    With several `languages`, the axis is labeled in each, for the page to show one.
    """
    points = [*steps, *evals]
    if len(points) < 2:
        return ""
    width, height, left, bottom, top = 720, 310, 56, 44, 16
    last = max(step for step, _ in points)
    ticks = _ticks(min(loss for _, loss in points), max(loss for _, loss in points))
    low, high = ticks[0], ticks[-1]

    def x(step: float) -> float:
        return left + (width - left - 12) * step / max(last, 1)

    def y(loss: float) -> float:
        return top + (height - top - bottom) * (high - loss) / (high - low)

    parts = [_grid_line(left, width - 12, y(tick), _tick(tick, ticks)) for tick in ticks]
    for step in _step_ticks(last):
        parts.append(f'<text x="{x(step):.1f}" y="{height - 22}" class="axis" text-anchor="middle">{step}</text>')
    center, axis = (left + width - 12) / 2, _label(tr("step"), languages)
    parts.append(f'<text x="{center}" y="{height - 3}" class="axis" text-anchor="middle">{axis}</text>')
    if steps:
        parts.append(_path(steps, x, y, "raw"))
        parts.append(_path(_smoothed(steps), x, y, "smooth"))
    if evals:
        parts.append(_path(evals, x, y, "held"))
        for step, loss in evals:
            title = str(tr("held-out loss at step {step}: {loss}", step=step, loss=number(loss)))
            parts.append(
                f'<circle cx="{x(step):.1f}" cy="{y(loss):.1f}" r="4" class="dot">'
                f"<title>{escape(title)}</title></circle>"
            )
    return _svg(width, height, parts, str(tr("training loss and held-out loss")), "curve")


def interval_bar(difference: Difference, reach: float | None = None, *, wide: bool = False) -> str:
    """The difference as a dot, its interval as a bar, zero as a line; better is to the right.

    The band around zero is what is not worth having. Unless `reach` is given, the scale follows it, so that a tiny
    difference looks tiny.
    """
    if difference.low is None or difference.high is None:
        return ""
    sign = 1.0 if difference.higher_is_better else -1.0
    low, high = sorted((sign * difference.low, sign * difference.high))
    middle = sign * difference.difference
    reach = reach or max(abs(low) * 1.15, abs(high) * 1.15, MARGINS_SHOWN * difference.margin, 1e-12)
    width, height = (720, 72) if wide else (180, 22)
    center = height / 2 + (12 if wide else 0)

    def x(value: float) -> float:
        return width / 2 + (width / 2 - 8) * max(-1.0, min(1.0, value / reach))

    kind = {"better": "good", "worse": "bad", "same": "same", "not_proven": "open"}[difference.outcome]
    thick = 12 if wide else 7
    band = x(difference.margin) - x(0.0)
    parts = [
        f'<rect x="{width / 2 - band:.1f}" y="{34 if wide else 2}" width="{2 * band:.1f}" '
        f'height="{height - (36 if wide else 4)}" class="margin"/>',
        f'<line x1="8" x2="{width - 8}" y1="{center}" y2="{center}" class="grid"/>',
        f'<line x1="{width / 2}" x2="{width / 2}" y1="{34 if wide else 2}" y2="{height - 2}" class="zero"/>',
        f'<rect x="{x(low):.1f}" y="{center - thick / 2}" width="{max(2.0, x(high) - x(low)):.1f}" height="{thick}" '
        f'rx="{thick / 2}" class="bar {kind}"/>',
        f'<circle cx="{x(middle):.1f}" cy="{center}" r="{thick * 0.62:.1f}" class="point {kind}"/>',
    ]
    if wide:
        ends = f"{number(difference.low, True)} … {number(difference.high, True)}"
        at = min(max(x(middle), 120.0), width - 120.0)
        parts.append(f'<text x="{at:.1f}" y="{center - 16}" class="axis" text-anchor="middle">{ends}</text>')
    label = f"{number(difference.difference, True)} ({number(difference.low, True)} … {number(difference.high, True)})"
    return _svg(width, height, parts, label, "interval")


def length_dots(groups: Sequence[tuple[Text, Sequence[int]]], languages: Sequence[str] = ("en",)) -> str:
    """Answer lengths in tokens: one row of dots per (label, lengths), a line at the median; empty without answers."""
    groups = [(name, sorted(values)) for name, values in groups if values]
    if not groups:
        return ""
    most = max(max(values) for _, values in groups)
    width, left, row = 720, 96, 46
    height = row * len(groups) + 26

    def x(value: float) -> float:
        return left + (width - left - 20) * value / max(most, 1)

    parts = []
    for index, (name, values) in enumerate(groups):
        middle, label = row * index + row / 2, _label(name, languages)
        parts.append(f'<text x="{left - 12}" y="{middle + 4}" class="axis" text-anchor="end">{label}</text>')
        parts.append(f'<line x1="{left}" x2="{width - 20}" y1="{middle}" y2="{middle}" class="grid"/>')
        for place, value in enumerate(values[:: max(1, len(values) // 200)]):
            jitter = (place * 7919 % 17 - 8) * 1.1
            parts.append(f'<circle cx="{x(value):.1f}" cy="{middle + jitter:.1f}" r="3" class="seed"/>')
        median = values[len(values) // 2]
        parts.append(
            f'<line x1="{x(median):.1f}" x2="{x(median):.1f}" y1="{middle - 16}" y2="{middle + 16}" class="median">'
            f"<title>{median}</title></line>"
        )
    for tick in _step_ticks(most):
        parts.append(f'<text x="{x(tick):.1f}" y="{height - 6}" class="axis" text-anchor="middle">{tick}</text>')
    return _svg(width, height, parts, ", ".join(str(name) for name, _ in groups), "lengths")


def standalone_svg(svg: str) -> str:
    """The chart as a standalone file: the light palette filled in, on white."""
    rules = STYLE
    for name, color in PAPER.items():
        rules = rules.replace(f"var(--{name})", color)
    start = svg.index(">") + 1
    background = f'<rect width="100%" height="100%" fill="{PAPER["paper"]}"/>'
    return svg[:start] + f"<style>{rules}</style>" + background + svg[start:] + "\n"


def as_png(svg: str) -> bytes:
    """A standalone SVG as PNG at twice its size, in matplotlib's font, which every machine has."""
    import matplotlib
    import resvg_py

    font = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
    return bytes(resvg_py.svg_to_bytes(svg_string=svg, zoom=2, font_files=[str(font)], sans_serif_family="DejaVu Sans"))


STYLE = """
.axis{font:12px system-ui,sans-serif;fill:var(--dim)}
.grid{stroke:var(--line);stroke-width:1}
.margin{fill:var(--dim);opacity:.16}
.zero{stroke:var(--dim);stroke-width:1.5;stroke-dasharray:4 3}
.raw{fill:none;stroke:var(--thread);stroke-width:1;opacity:.35}
.smooth{fill:none;stroke:var(--thread);stroke-width:2.5;stroke-linejoin:round}
.held{fill:none;stroke:var(--bad);stroke-width:2;stroke-dasharray:6 4}
.dot{fill:var(--bad);stroke:var(--paper);stroke-width:1.5}
.bar{opacity:.35}.bar.good,.point.good{fill:var(--good)}.bar.bad,.point.bad{fill:var(--bad)}
.bar.open,.point.open{fill:var(--open)}.bar.same,.point.same{fill:var(--thread)}
.seed{fill:var(--thread);opacity:.45}.median{stroke:var(--ink);stroke-width:2}
"""


def _svg(width: int, height: int, parts: Sequence[str], label: str, kind: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" class="{kind}" '
        f'aria-label="{escape(label)}">{"".join(parts)}</svg>'
    )


def _label(text: Text, languages: Sequence[str]) -> str:
    """The words for an SVG text: plain in one language, else a span for each, of which CSS shows one."""
    if len(languages) == 1:
        return escape(text.render(languages[0]))
    return "".join(f'<tspan class="{lang}">{escape(text.render(lang))}</tspan>' for lang in languages)


def _path(
    points: Sequence[tuple[int, float]], x: Callable[[float], float], y: Callable[[float], float], kind: str
) -> str:
    pairs = " ".join(f"{x(step):.1f},{y(loss):.1f}" for step, loss in points)
    return f'<polyline points="{pairs}" class="{kind}"/>'


def _grid_line(left: float, right: float, at: float, text: str) -> str:
    return (
        f'<line x1="{left}" x2="{right}" y1="{at:.1f}" y2="{at:.1f}" class="grid"/>'
        f'<text x="{left - 8}" y="{at + 4:.1f}" class="axis" text-anchor="end">{text}</text>'
    )


def _smoothed(points: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """A bias-corrected exponential moving average over about a tenth of the steps."""
    keep = 1 - 1 / max(2.0, len(points) / 10)
    total = weight = 0.0
    smooth = []
    for step, loss in points:
        total, weight = keep * total + loss, keep * weight + 1
        smooth.append((step, total / weight))
    return smooth


def _ticks(low: float, high: float) -> list[float]:
    """Four to seven round values that include both ends."""
    span = max(high - low, 1e-6)
    size = 10 ** math.floor(math.log10(span / 4))
    step = next(size * m for m in (1, 2, 5, 10) if span / (size * m) <= 5)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [step * k for k in range(first, max(last, first + 1) + 1)]


def _tick(value: float, ticks: Sequence[float]) -> str:
    digits = max(0, -math.floor(math.log10(ticks[1] - ticks[0]) + 1e-9))
    return f"{value:.{digits}f}"


def _step_ticks(last: int) -> list[int]:
    return sorted({round(tick) for tick in _ticks(0, max(last, 1)) if tick <= last})
