"""Shows a run of the simulation once more: ``python -m actors.testing.replay SEED``."""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING

from actors.simulation import (
    SimulationError,
    simulate,
    simulate_collectives,
    simulate_crowd,
    simulate_membership,
    simulate_names,
    simulate_ownership,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors.simulation import Outcome

WHAT: dict[str, Callable[..., Outcome]] = {
    "calls": simulate,
    "names": simulate_names,
    "ownership": simulate_ownership,
    "collectives": simulate_collectives,
    "membership": simulate_membership,
    "crowd": simulate_crowd,
}


def main() -> int:
    """Replays one seed with what happened, or runs many."""
    parser = argparse.ArgumentParser(prog="python -m actors.testing.replay", description=__doc__)
    parser.add_argument("seed", type=int, help="the seed, or with --many the first of them")
    parser.add_argument("--many", type=int, default=1, metavar="N", help="run N seeds, and say how fast")
    parser.add_argument("--of", choices=WHAT, default="calls", help="what is simulated [default: %(default)s]")
    given = parser.parse_args()
    begun, events = time.perf_counter(), 0
    for seed in range(given.seed, given.seed + given.many):
        try:
            outcome = WHAT[given.of](seed, trace=given.many == 1)
        except SimulationError as error:
            print(error)
            return 1
        events += outcome.events
        for line in outcome.trace:
            print(line)
    seconds = time.perf_counter() - begun
    print(
        f"{given.many} seeds of {given.of} held: {events} events in {seconds:.1f} s, {events / seconds:.0f} a second",
        file=sys.stderr,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
