"""What all simulated worlds have: a clock, chance, how long a frame takes, and notes of what happens."""

from __future__ import annotations

import random
from collections import deque
from typing import TYPE_CHECKING, Any

from .clock import Clock
from .outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .faults import Fault


class Network(Clock):
    """A clock, and a network on which frames take their time.

    Args:
        chance: names what all that is left to chance comes from.
        faults: what goes wrong.
        slowest: how many seconds a frame takes at most.
        trace: whether to write down what happens.

    Attributes:
        chance: the source.
        outcome: what the run comes to.
    """

    def __init__(self, chance: str, faults: Sequence[Fault], slowest: float, trace: bool) -> None:
        super().__init__()
        self.chance = random.Random(chance)  # noqa: S311 - to be the same again is what is wanted
        self.outcome = Outcome(faults=tuple(faults))
        self._slowest = slowest
        self._trace = trace

    def delay(self) -> float:
        """Returns how long a frame takes: mostly little, at times much."""
        chance = self.chance
        return chance.expovariate(1000) if chance.random() < 0.95 else chance.uniform(0, self._slowest)

    def note(self, text: str) -> None:
        """Writes down what happens, where that is asked for."""
        if self._trace:
            self.outcome.trace.append(f"{self.now:10.6f} {text}")


class Loop:
    """What one process does, in order. It may stand still, as a device that sleeps, while time goes on.

    Attributes:
        dead: nothing is done any more.
        until: it stands still.
    """

    def __init__(self, network: Network) -> None:
        self.dead = False
        self.until = 0.0
        self._network = network
        self._waiting: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()

    def run(self, work: Callable[..., None], *args: Any) -> None:
        """Does something, unless it is dead; later, in order, where it stands still."""
        if self.dead:
            return
        if self._waiting or self._network.now < self.until:
            self._waiting.append((work, args))
            if len(self._waiting) == 1:
                self._network.at(self.until, self._go_on)
        else:
            work(*args)

    def _go_on(self) -> None:
        if self._network.now < self.until:
            self._network.at(self.until, self._go_on)
            return
        while self._waiting and not self.dead:
            work, args = self._waiting[0]
            work(*args)
            self._waiting.popleft()
