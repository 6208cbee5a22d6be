"""The plot of `economics.py` as SVG, with nothing but text. It can be read in grey: lines differ in dash and marker."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape
from typing import Any, Final

WIDTH, HEIGHT = 1060, 520
_INK, _SOFT = "#222222", "#cccccc"
_COLOURS: Final = ("#999999", "#0072b2", "#56b4e9", "#d55e00", "#000000")
_DASHES: Final = ("2 3", "7 4", "10 3 2 3", "", "4 2")
_LINEAR: Final = 0.01
"""Below this, the axis of gains is linear; beyond it, logarithmic."""


class _Svg:
    def __init__(self) -> None:
        self.parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
            'font-family="DejaVu Sans, Helvetica, Arial, sans-serif" font-size="12">',
            '<defs><pattern id="hatch" width="6" height="6" patternUnits="userSpaceOnUse" '
            'patternTransform="rotate(45)"><rect width="6" height="6" fill="#f2c9a8"/>'
            '<rect width="3" height="6" fill="#d55e00"/></pattern></defs>',
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        ]

    def text(self, x: float, y: float, text: str, *, anchor: str = "start", **style: object) -> None:
        extra = "".join(f' {name.replace("_", "-")}="{value}"' for name, value in style.items())
        self.parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{_INK}"{extra}>{escape(text)}</text>'
        )

    def line(
        self, points: Sequence[tuple[float, float]], *, colour: str = _INK, width: float = 1, dash: str = ""
    ) -> None:
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self.parts.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{width}" '
            f'stroke-dasharray="{dash}"/>'
        )

    def box(self, x: float, y: float, width: float, height: float, fill: str) -> None:
        self.parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{fill}"/>'
        )

    def marker(self, x: float, y: float, kind: int, colour: str) -> None:
        shapes = ("0,-5 5,4 -5,4", "-4,-4 4,-4 4,4 -4,4", "0,-5 5,0 0,5 -5,0", "", "-5,-4 5,-4 0,5")
        if not shapes[kind]:
            self.parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="{colour}"/>')
            return
        self.parts.append(
            f'<polygon points="{shapes[kind]}" fill="{colour}" transform="translate({x:.1f} {y:.1f})"/>'
        )

    def done(self) -> str:
        return "\n".join([*self.parts, "</svg>"]) + "\n"


def _symmetric_log(value: float) -> float:
    return math.copysign(math.log10(1 + abs(value) / _LINEAR), value)


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    return lambda value: start + (value - low) / (high - low) * (end - start)


def draw(result: dict[str, Any]) -> str:
    """The SVG of a result of `economics.py`."""
    svg = _Svg()
    _bars(svg, result)
    _curves(svg, result)
    return svg.done()


def _bars(svg: _Svg, result: dict[str, Any]) -> None:
    """What each way to cheat changes, against the honest way of the same person."""
    rows = [row for row in result["results"]["recommended"] if "wanted" in row]
    left, right, top, bottom = 300.0, 545.0, 64.0, 440.0
    place = _scale(_symmetric_log(-300), _symmetric_log(300), left, right)
    svg.text(20, 28, "What each life pays against the honest one", font_size=15, font_weight="bold")
    svg.text(20, 46, "recommended parameters; TON over the whole life, all fees in it")
    for tick in (-100, -1, 0, 1, 100):
        x = place(_symmetric_log(tick))
        svg.line([(x, top), (x, bottom)], colour=_INK if tick == 0 else _SOFT)
        svg.text(x, bottom + 16, f"{tick:+d}".replace("-", "\u2212") if tick else "0", anchor="middle")
    svg.text(
        (left + right) / 2, bottom + 36, "TON more (right) or less (left) than honesty", anchor="middle"
    )
    svg.text(
        (left + right) / 2, bottom + 52, "logarithmic on both sides of 0", anchor="middle", font_size=10
    )
    step = (bottom - top) / len(rows)
    fills = {"loses": "#1f4e79", "does not lose": "#bbbbbb", "bounded": "url(#hatch)"}
    for number, row in enumerate(rows):
        y, value = top + step * (number + 0.5), row["difference_ton"]
        x, zero = place(_symmetric_log(value)), place(0)
        svg.text(left - 10, y + 4, row["play"], anchor="end")
        svg.box(min(x, zero), y - 7, max(abs(x - zero), 1.5), 14, fills[row["wanted"]])
        if value < 0:
            svg.text(zero + 6, y + 4, f"\u2212{-value:.2f}", font_size=11)
        else:
            svg.text(zero - 6, y + 4, f"+{value:.2f}", anchor="end", font_size=11)
    legend = (("loses", "cheats that must lose"), ("does not lose", "victims that must not"))
    x = 20.0
    for kind, label in (*legend, ("bounded", "not for parameters to prevent")):
        svg.box(x, HEIGHT - 22, 12, 12, fills[kind])
        svg.text(x + 17, HEIGHT - 12, label, font_size=11)
        x += 45 + 6.2 * len(label)


def _curves(svg: _Svg, result: dict[str, Any]) -> None:
    """Loss per withheld receipt against the part of receipts that is looked for."""
    left, right, top, bottom = 650.0, 925.0, 64.0, 440.0
    across = _scale(math.log10(0.0008), math.log10(0.05), left, right)
    up = _scale(math.log10(0.001), math.log10(1.0), bottom, top)
    svg.text(600, 28, "What a withheld receipt costs the host", font_size=15, font_weight="bold")
    svg.text(600, 46, "a day of receipts withheld; stake and penalty in TON")
    for rate in (0.001, 0.002, 0.005, 0.01, 0.02, 0.05):
        x = across(math.log10(rate))
        svg.line([(x, top), (x, bottom)], colour=_SOFT)
        svg.text(x, bottom + 16, f"{100 * rate:g} %", anchor="middle")
    for loss in (0.001, 0.01, 0.1, 1.0):
        y = up(math.log10(loss))
        svg.line([(left, y), (right, y)], colour=_SOFT)
        svg.text(left - 8, y + 4, f"{loss:g}", anchor="end")
    svg.text((left + right) / 2, bottom + 36, "receipts whose holders look for them", anchor="middle")
    middle = (top + bottom) / 2
    svg.text(
        606, middle, "TON lost for each receipt", anchor="middle", transform=f"rotate(-90 606 {middle})"
    )
    price = up(math.log10(result["assumptions"]["answer_price"] / 1e9))
    svg.line([(left, price), (right, price)], width=2.5)
    svg.text(right + 6, price + 4, "price of an answer")
    for number, line in enumerate(result["sweep"]):
        colour = _COLOURS[number]
        points = [
            (across(math.log10(p["audit_rate"])), up(math.log10(p["loss_per_receipt_ton"])))
            for p in line["points"]
        ]
        svg.line(points, colour=colour, width=2, dash=_DASHES[number])
        for x, y in points:
            svg.marker(x, y, number, colour)
    _legend(svg, result["sweep"], right + 14, top + 8)


def _legend(svg: _Svg, lines: Sequence[dict[str, Any]], x: float, y: float) -> None:
    """Beside the curves, the most expensive first."""
    svg.text(x, y, "stake / penalty", font_weight="bold")
    numbered = sorted(enumerate(lines), key=lambda item: -item[1]["points"][0]["loss_per_receipt_ton"])
    for number, line in numbered:
        y += 26
        svg.line([(x, y - 4), (x + 30, y - 4)], colour=_COLOURS[number], width=2, dash=_DASHES[number])
        svg.marker(x + 15, y - 4, number, _COLOURS[number])
        svg.text(x + 38, y, f"{line['stake_ton']} / {line['penalty_ton']}")
        if line["name"]:
            svg.text(x + 38, y + 13, line["name"], font_size=10)
            y += 14
