"""Tables and colours as commands print them: as wide as the terminal, plain where nobody looks."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Sequence

NARROWEST = 10  # characters of the widest column
COLORS = {
    "ALIVE": "green", "alive": "green", "OPEN": "green", "ok": "green", "RUNNING": "cyan", "PENDING_CREATION": "yellow",
    "RESTARTING": "yellow", "QUEUED": "yellow", "DEAD": "red", "gone": "red", "CLOSED": "red", "BROKEN": "red",
}  # fmt: skip


def use_color() -> bool:
    """Whether standard output takes colours: as ``NO_COLOR`` and ``FORCE_COLOR`` say, else where it is a terminal."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR", "0") not in {"", "0"}:
        return True
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def paint(text: str, color: str | None = None, **style: bool) -> str:
    """Returns a text in a colour, where standard output takes colours."""
    return click.style(text, fg=color, **style) if use_color() else text


def say(text: str) -> None:
    """Prints a line, with its colours where they are wanted."""
    click.echo(text, color=use_color())


def show(text: str) -> None:
    """Prints what may be long: page by page, where it is read on a terminal that has not so many lines."""
    if sys.stdout.isatty() and sys.stdin.isatty() and text.count("\n") + 2 > shutil.get_terminal_size().lines:
        click.echo_via_pager(text, color=use_color())
    else:
        say(text)


def width() -> int | None:
    """Returns how many characters a line may have; None where it is not read on a terminal."""
    if sys.stdout.isatty() or "COLUMNS" in os.environ:
        return max(20, shutil.get_terminal_size().columns)
    return None


def table(headers: Sequence[str], rows: Sequence[Sequence[object]], limit: int | None = None) -> str:
    """Returns rows under headers. Where the terminal is narrow, the widest columns are cut with an ellipsis.

    Where no more than a few characters of each would be left, each row is a block of lines instead, a value on each.

    Args:
        headers: of the columns.
        rows: as many values each.
        limit: characters of a line; None for as many as it takes.
    """
    cells = [[_plain(value) for value in row] for row in rows]
    widths = [max([len(header), *(len(row[i]) for row in cells)]) for i, header in enumerate(headers)]
    while limit is not None and sum(widths) + 2 * (len(widths) - 1) > limit:
        if max(widths) <= NARROWEST:
            return _blocks(headers, cells, limit)
        widths[widths.index(max(widths))] -= 1
    lines = ["  ".join(_fit(header, w) for header, w in zip(headers, widths, strict=True)).rstrip()]
    lines[0] = paint(lines[0], bold=True)
    for row in cells:
        fitted = [_fit(cell, w) for cell, w in zip(row, widths, strict=True)]
        fitted[-1] = fitted[-1].rstrip()
        lines.append("  ".join(paint(f, COLORS.get(c)) for f, c in zip(fitted, row, strict=True)).rstrip())
    return "\n".join(lines)


def _blocks(headers: Sequence[str], cells: Sequence[Sequence[str]], limit: int) -> str:
    lead = max(map(len, headers)) + 2
    blocks = []
    for row in cells:
        lines = []
        for header, cell in zip(headers, row, strict=True):
            pieces = textwrap.wrap(cell, max(NARROWEST, limit - lead), break_on_hyphens=False)
            first, *rest = pieces or [cell]  # blanks alone
            lines.append(paint(header, bold=True) + " " * (lead - len(header)) + paint(first, COLORS.get(cell)))
            lines += [" " * lead + line for line in rest]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def _plain(value: object) -> str:
    if value is None or value == "":
        return "-"
    return f"{value:,.3g}" if isinstance(value, float) else str(value)


def _fit(cell: str, width: int) -> str:
    return f"{cell[: width - 1]}…" if len(cell) > width else cell.ljust(width)


def seconds(value: float) -> str:
    """Returns a duration for people, such as ``"340 ms"`` or ``"2 min"``."""
    for limit, unit, name in ((1e-3, 1e-6, "µs"), (1.0, 1e-3, "ms"), (120.0, 1.0, "s"), (7200.0, 60.0, "min")):
        if value < limit:
            return f"{value / unit:.3g} {name}" if name != "s" else f"{value:.1f} s"
    return f"{value / 3600:.1f} h"


def size(value: float) -> str:
    """Returns a number of bytes for people, such as ``"3.1 GB"``."""
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    raise AssertionError(value)
