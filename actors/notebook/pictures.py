"""Pictures: what a cluster, an actor or an error looks like, as HTML that needs nothing else, and as text."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from actors.events import ClusterView

MOST_ACTORS = 8  # of one device; the others are counted
_GIB = 2**30
_BOX = "border:1px solid color-mix(in srgb,currentColor 25%,transparent);border-radius:6px;padding:6px 10px"
_FAINT = "opacity:.65;font-size:90%"


@dataclass(frozen=True, slots=True)
class Picture:
    """One thing in two forms; a front end shows the one it can.

    Attributes:
        html: for notebooks.
        text: for everything else.
    """

    html: str
    text: str

    @property
    def bundle(self) -> dict[str, str]:
        """Both, by MIME type."""
        return {"text/html": self.html, "text/plain": self.text}


def of_cluster(view: ClusterView, *, note: str = "") -> Picture:
    """Returns the picture of all devices: chip, memory, load, actors and links.

    Args:
        view: what they look like just now.
        note: said below them.
    """
    actors = view.actors()
    devices = [
        _Device(
            node, [_Actor(a.name or a.class_name, a.state, view.pending(a.id)) for a in actors if a.node == node.name]
        )
        for node in view.nodes
    ]
    homeless = [a for a in actors if a.node is None]
    count, living = len(devices), len(actors) - len(homeless)
    title = f"{count} device{'s' * (count != 1)}, {living} actor{'s' * (living != 1)}"
    if homeless:
        title += f", {len(homeless)} waiting for room"
    notes = [f"{name} is silent: {why}" for name, why in view.silent] + [note] * bool(note)
    cards = "".join(device.html for device in devices)
    below = "".join(f'<div style="{_FAINT}">{escape(line)}</div>' for line in notes)
    html = (
        f'<div class="actors-cluster"><div style="margin-bottom:4px"><b>Cluster</b> of {escape(title)}</div>'
        f'<div style="display:flex;flex-wrap:wrap;gap:8px">{cards}</div>{below}</div>'
    )
    return Picture(html, "\n".join([f"Cluster of {title}", *(device.text for device in devices), *notes]))


@dataclass(frozen=True, slots=True)
class _Actor:
    label: str
    state: str
    pending: int

    def __str__(self) -> str:
        said = [self.state.lower().replace("_", " ")] * (self.state != "ALIVE")
        said += [f"{self.pending} call{'s' * (self.pending != 1)}"] * bool(self.pending)
        return f"{self.label} ({', '.join(said)})" if said else self.label


@dataclass(frozen=True, slots=True)
class _Device:
    node: Any  # actors.events.NodeView
    actors: Sequence[_Actor]

    @property
    def _links(self) -> list[str]:
        node = self.node
        if node.peers:
            return [f"{name} {1000 * s:.1f} ms" if s is not None else str(name) for name, s in node.peers]
        return [node.address or "this machine alone"]

    @property
    def _names(self) -> list[str]:
        more = len(self.actors) - MOST_ACTORS
        return [*map(str, self.actors[:MOST_ACTORS]), *[f"and {more} more"] * (more > 0)]

    @property
    def _memory(self) -> str:
        return f"{self.node.memory_used / _GIB:.1f} of {self.node.memory / _GIB:.0f} GiB"

    @property
    def html(self) -> str:
        node = self.node
        names = "<br>".join(map(escape, self._names)) or f'<span style="{_FAINT}">no actors</span>'
        return (
            f'<div style="{_BOX};min-width:12em"><b>{escape(node.name)}</b>'
            f'<div style="{_FAINT}">{escape(node.chip)}</div>'
            f"{_bar('memory', node.memory_used / max(node.memory, 1), self._memory)}"
            f"{_bar('load', node.load / max(node.cpus, 1), f'{node.load:.1f} on {node.cpus} CPUs')}"
            f'<div style="margin:4px 0">{names}</div>'
            f'<div style="{_FAINT}">{escape("; ".join(self._links))}</div></div>'
        )

    @property
    def text(self) -> str:
        node = self.node
        what = f"{node.chip}, memory {self._memory}, load {node.load:.1f} on {node.cpus} CPUs"
        return f"  {node.name}: {what}, {'; '.join(self._links)}\n    {', '.join(self._names) or 'no actors'}"


def _bar(what: str, share: float, text: str) -> str:
    percent = round(100 * min(max(share, 0.0), 1.0))
    return (
        f'<div title="{escape(what)}" style="font-size:85%;margin-top:3px">{escape(what)} {escape(text)}'
        f'<div role="progressbar" aria-label="{escape(what)}" aria-valuemin="0" aria-valuemax="100" '
        f'aria-valuenow="{percent}" style="height:4px;border-radius:2px;'
        f'background:color-mix(in srgb,currentColor 15%,transparent)">'
        f'<div style="height:4px;border-radius:2px;width:{percent}%;background:#2b7de9"></div></div></div>'
    )


def of_wait(done: int, total: int, seconds: float) -> Picture:
    """Returns the picture of a wait for many values."""
    text = f"{done} of {total} values after {seconds:.0f} s"
    return Picture(f'<div style="max-width:24em">{_bar("waiting:", done / max(total, 1), text)}</div>', text)


def of_progress(label: str, progress: Any) -> Picture:
    """Returns the picture of a progress bar of the user's own."""
    text = f"({label}) {progress}" if label else str(progress)
    if not progress.total:
        return Picture(f"<div>{escape(text)}</div>", text)
    bar = _bar("", progress.done / progress.total, text)
    return Picture(f'<div style="max-width:32em">{bar}</div>', text)


def of_lines(lines: Iterable[str]) -> Picture:
    """Returns the picture of lines that were printed; nothing where there are none."""
    text = "\n".join(lines)
    return Picture(f'<pre style="margin:0">{escape(text)}</pre>' if text else "<div></div>", text)


def table(title: str, rows: Sequence[tuple[str, str]]) -> str:
    """Returns the HTML of a thing and what is to be said of it; a value is text, not HTML."""
    body = "".join(
        f'<tr><td style="text-align:left;vertical-align:top;{_FAINT}">{escape(name)}</td>'
        f'<td style="text-align:left;white-space:pre-wrap">{escape(value)}</td></tr>'
        for name, value in rows
    )
    return f'<div><b>{escape(title)}</b><table style="margin:2px 0">{body}</table></div>'
