"""A run: by its seed, and again with fewer faults where a promise was broken."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from .faults import faults_of, fewest
from .outcome import Journal
from .world import World

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator, Sequence

    from .faults import Fault
    from .outcome import Outcome

REPLAY = "python -m actors.testing.replay"


class SimulationError(AssertionError):
    """A promise was broken; the message has the seed, the fewest faults that break it, and how to see it again."""


def simulate(
    seed: int = 0,
    *,
    actor: Callable[[], Any] = Journal,
    script: Callable[[random.Random, int, int], tuple[str, tuple[Any, ...]]] | None = None,
    check: Callable[[Any, Outcome], None] | None = None,
    callers: int = 3,
    calls: int = 20,
    faults: int = 6,
    max_restarts: int = -1,
    max_task_retries: int = 0,
    trace: bool = False,
) -> Outcome:
    """Runs an actor and its callers over a network on which things go wrong; the same seed gives the same run.

    Args:
        seed: decides all that is left to chance.
        actor: makes the actor's object: a plain class of your own, such as ``Counter.cls``. With ``__actor_save__`` and
            ``__actor_load__`` its state is saved after each call, before the answer.
        script: says what is called: given a random source, the caller and the number of the call, returns a method's
            name and its arguments. None for `Journal`.
        check: looks at the actor's object and the outcome in the end, and raises AssertionError where something is
            wrong.
        callers: how many call it at once.
        calls: how many calls each makes.
        faults: how many things go wrong.
        max_restarts: how often the actor is made anew; -1 for ever.
        max_task_retries: how often a call is made again that a death has cut off; -1 for ever.
        trace: whether to write down what happens.

    Raises:
        SimulationError: a promise was broken, or ``check`` raised.
    """
    plan = faults_of(seed, faults, callers)

    def run(chosen: Sequence[Fault], trace: bool = False) -> Outcome:
        world = World(seed, actor, script, callers, calls, chosen, max_restarts, max_task_retries, trace)
        world.run()
        if check is not None:
            check(world.life.thing if world.life is not None else None, world.outcome)
        return world.outcome

    try:
        return run(plan, trace)
    except AssertionError as error:
        own = actor is Journal and script is None and check is None
        again = f"{REPLAY} {seed}" if own else f"actors.testing.simulate(seed={seed}, trace=True, …)"
        raise SimulationError(_told(run, seed, plan, error, again)) from error


@contextmanager
def unheard() -> Iterator[None]:
    """What the runtime logs is left out meanwhile: that things go wrong is what is looked for."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


class Runnable(Protocol):
    """A world that can be run, once; it raises AssertionError where a promise was broken."""

    outcome: Outcome

    def run(self) -> None:
        """Lets all happen."""


def held(
    world: Callable[[Sequence[Fault], bool], Runnable], seed: int, plan: list[Fault], what: str, trace: bool
) -> Outcome:
    """Runs a seed; where a promise is broken, says with which faults at least.

    Args:
        world: makes one in which these faults strike, and which writes down what happens or does not.
        seed: it is of.
        plan: all that goes wrong.
        what: is simulated, as the replay knows it.
        trace: whether to write down what happens.

    Raises:
        SimulationError: a promise was broken.
    """

    def run(chosen: Sequence[Fault], trace: bool = False) -> Outcome:
        made = world(chosen, trace)
        made.run()
        return made.outcome

    try:
        return run(plan, trace)
    except AssertionError as error:
        raise SimulationError(_told(run, seed, plan, error, f"{REPLAY} {seed} --of {what}")) from error


def _told(
    run: Callable[[Sequence[Fault]], Outcome], seed: int, plan: Sequence[Fault], error: AssertionError, again: str
) -> str:
    """Finds the fewest faults that still break it, and says all that is to be known."""
    few, last = fewest(run, list(plan), error)
    struck = "\n".join(f"  {f.at:.3f} s: {f.kind} of {f.whom} for {f.seconds:.3f} s" for f in few) or "  none"
    return f"seed {seed}: {last}\nwith these faults:\n{struck}\nSee it again by: {again}"
