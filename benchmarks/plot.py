"""The plot: for each workload how far ours is ahead of each side, as one SVG."""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

LEFT, WIDTH, ROW, BAR, TOP = 170, 620, 15, 11, 46
DECADES = 3  # drawn to either side of "alike"
COLOURS = ("#4c78a8", "#f58518", "#54a24b", "#e45756", "#72b7b2", "#b279a2", "#9d755d", "#eeca3b", "#8a8a8a", "#d67195")


def as_svg(report: Mapping[str, Any]) -> str:
    """Returns the picture of a run: bars to the right where ours is ahead, on a logarithmic scale."""
    names = [name for name in report["sides"] if any(name in w["ratios"] for w in report["workloads"].values())]
    colours = {name: COLOURS[index % len(COLOURS)] for index, name in enumerate(names)}
    shapes: list[str] = []
    y = TOP
    for title, workload in report["workloads"].items():
        if not workload["ratios"]:
            continue
        shapes.append(_text(LEFT - 10, y + ROW * len(workload["ratios"]) / 2 + 4, title, "end"))
        for name, ratio in workload["ratios"].items():
            ahead = ratio["median"] if workload["better"] == "higher" else 1 / ratio["median"]
            shapes.append(_bar(y, ahead, colours[name], f"{name}: {ahead:.2f} times"))
            y += ROW
        y += ROW // 2
    axis = [_line(_x(10.0**power), TOP - 8, y, "#bbb" if power else "#333") for power in range(-1, DECADES + 1)]
    marks = [_text(_x(10.0**power), TOP - 14, f"{10.0**power:g} times", "middle") for power in range(-1, DECADES + 1)]
    legend = [_key(index, name, colours[name]) for index, name in enumerate(names)]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + 160}" height="{y + 20}" font-family="sans-serif" font-size="12">'  # noqa: E501
    ground = '<rect width="100%" height="100%" fill="#fff"/>'
    caption = _text(LEFT, 16, "how many times quicker ours is (medians of one run); left of 1 it is slower", "start")
    return "\n".join([head, ground, caption, *axis, *marks, *shapes, *legend, "</svg>\n"])


def _x(ahead: float) -> float:
    return LEFT + (max(-1.0, min(DECADES, math.log10(ahead))) + 1) / (DECADES + 1) * WIDTH


def _bar(y: int, ahead: float, colour: str, title: str) -> str:
    left, right = sorted((_x(1.0), _x(ahead)))
    return (
        f'<rect x="{left:.1f}" y="{y}" width="{max(1.0, right - left):.1f}" height="{BAR}" fill="{colour}">'
        f"<title>{escape(title)}</title></rect>"
    )


def _line(x: float, top: int, bottom: int, colour: str) -> str:
    return f'<line x1="{x:.1f}" y1="{top}" x2="{x:.1f}" y2="{bottom}" stroke="{colour}"/>'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _key(index: int, name: str, colour: str) -> str:
    x, y = LEFT + WIDTH + 20, TOP + index * 20
    return f'<rect x="{x}" y="{y}" width="12" height="12" fill="{colour}"/>{_text(x + 18, y + 11, name, "start")}'
