"""What actors print, on its way to the driver that shows it: in batches, and never more than so much at once."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from actors.console import Line

if TYPE_CHECKING:
    from actors.address import Address
    from actors.process import Process

WAITING_LINES = 10_000  # for one driver; what an actor prints beyond that is counted and left out
BATCH_LINES = 500
SHOW_SECONDS = 30.0


@dataclass(slots=True, eq=False)
class _Way:
    """The lines that wait for one driver."""

    driver: Address
    lines: deque[Line] = field(default_factory=deque)
    left_out: int = 0
    sender: asyncio.Task[None] | None = None


class Printing:
    """Takes lines over and sends them to the drivers. On the I/O loop."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._ways: dict[str, _Way] = {}

    def add(self, driver: Address, line: Line) -> None:
        """Takes one line over; drops it where the driver is far behind."""
        way = self._ways.get(driver.process)
        if way is None:
            way = self._ways[driver.process] = _Way(driver)
        if len(way.lines) >= WAITING_LINES:
            way.left_out += 1
            return
        way.lines.append(line)
        if way.sender is None:
            way.sender = self._process.loop.create_task(self._send(way))

    async def flushed(self, driver: str) -> None:
        """Waits until nothing waits for this driver."""
        way = self._ways.get(driver)
        if way is not None and way.sender is not None:
            await asyncio.wait({way.sender})

    async def _send(self, way: _Way) -> None:
        try:
            while way.lines:
                batch = [way.lines.popleft() for _ in range(min(len(way.lines), BATCH_LINES))]
                if way.left_out and not way.lines:
                    batch.append(Line(batch[-1].label, "stderr", f"({way.left_out} lines were left out here)"))
                    way.left_out = 0
                await self._process.ask(way.driver, "console", "show", batch, timeout=SHOW_SECONDS)
        except Exception:
            return  # the driver is gone, or shows nothing
        finally:
            del self._ways[way.driver.process]
