"""Simulation: actors, callers and a faulty network on a simulated clock, all by one seed, with what must hold.

What delivers messages is the runtime's own `Session`, what restarts an actor its own `Life`; the network, the processes
and the time are simulated, and so a run with the same seed is the same run. The promises are those of the runtime:
order, at most once, one answer, true verdicts, and that what was acknowledged is in the state.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any

from actors.life import Life, State
from actors.transport.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

REPLAY = "python -m actors.testing.replay"
FAULTS = ("cut", "crash", "stall", "move")
SPAN_SECONDS = 10.0  # in which faults strike and calls are made
LONGEST_SECONDS = 600.0  # after which what is not over never will be
BATCH = 16
TWICE = 0.02  # of what is sent arrives once more


class SimulationError(AssertionError):
    """A promise was broken; the message has the seed, the fewest faults that break it, and how to see it again."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that goes wrong.

    Attributes:
        at: when, in seconds.
        kind: ``"cut"``, a connection breaks and what is under way on it is lost; ``"crash"``, the actor's process dies;
            ``"stall"``, the actor stands still for a while; ``"move"``, it is moved to another process.
        whom: which of the connections.
        seconds: how long.
    """

    at: float
    kind: str
    whom: int
    seconds: float


@dataclass(slots=True)
class Outcome:
    """What a run came to.

    Attributes:
        events: how many there were.
        seconds: of simulated time.
        ran: for each start of a call who made it, its number there, and in which life of the actor.
        answers: for each caller what its calls came to, by number: ``("value", …)``, ``("raised", …)``,
            ``("never started", …)`` or ``("may have run", …)``.
        lives: how often the actor was made.
        faults: what went wrong.
        trace: what happened, for people; empty unless it was asked for.
    """

    events: int = 0
    seconds: float = 0.0
    ran: list[tuple[int, int, int]] = field(default_factory=list)
    answers: list[dict[int, tuple[str, Any]]] = field(default_factory=list)
    lives: int = 0
    faults: tuple[Fault, ...] = ()
    trace: list[str] = field(default_factory=list)


class Journal:
    """The actor where no other is given: it writes down who called."""

    def __init__(self) -> None:
        self.entries: list[tuple[int, int]] = []

    def enter(self, caller: int, number: int) -> int:
        """Writes a call down; returns how many there are."""
        self.entries.append((caller, number))
        return len(self.entries)

    def __actor_save__(self) -> list[tuple[int, int]]:
        """Returns what was written."""
        return list(self.entries)

    def __actor_load__(self, entries: list[tuple[int, int]]) -> None:
        """Takes it up again."""
        self.entries = list(entries)


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
    plan = _faults(seed, faults, callers)

    def run(chosen: Sequence[Fault], trace: bool = False) -> Outcome:
        world = _World(seed, actor, script, callers, calls, chosen, max_restarts, max_task_retries, trace)
        world.run()
        if check is not None:
            check(world.life.thing if world.life is not None else None, world.outcome)
        return world.outcome

    try:
        return run(plan, trace)
    except AssertionError as error:
        fewest, last = _fewest(run, list(plan), error)
        struck = "\n".join(f"  {f.at:.3f} s: {f.kind} of {f.whom} for {f.seconds:.3f} s" for f in fewest) or "  none"
        own = actor is Journal and script is None and check is None
        again = f"{REPLAY} {seed}" if own else f"actors.testing.simulate(seed={seed}, trace=True, …)"
        raise SimulationError(f"seed {seed}: {last}\nwith these faults:\n{struck}\nSee it again by: {again}") from error


def _faults(seed: int, number: int, callers: int) -> tuple[Fault, ...]:
    chance = random.Random(f"faults/{seed}")  # noqa: S311 - to be the same again is what is wanted
    found = [
        Fault(
            chance.uniform(0, SPAN_SECONDS), chance.choice(FAULTS), chance.randrange(callers + 1), chance.expovariate(1)
        )
        for _ in range(number)
    ]
    return tuple(sorted(found, key=lambda fault: fault.at))


def _fewest(
    run: Callable[[Sequence[Fault]], Outcome], faults: list[Fault], error: AssertionError
) -> tuple[list[Fault], AssertionError]:
    """Leaves out fault after fault as long as something is broken still."""
    for fault in list(faults):
        rest = [other for other in faults if other is not fault]
        try:
            run(rest)
        except AssertionError as still:
            faults, error = rest, still
    return faults, error


# -- the simulated world ---------------------------------------------------------------------------------------------


class _World:
    """Clock, chance, and what is to happen."""

    def __init__(  # noqa: PLR0917 - one place makes it
        self,
        seed: int,
        actor: Callable[[], Any],
        script: Callable[[random.Random, int, int], tuple[str, tuple[Any, ...]]] | None,
        callers: int,
        calls: int,
        faults: Sequence[Fault],
        max_restarts: int,
        retries: int,
        trace: bool,
    ) -> None:
        self.chance = random.Random(f"world/{seed}")  # noqa: S311 - as above
        self.now = 0.0
        self.outcome = Outcome(faults=tuple(faults))
        self.make = actor
        self.fate = Life(max_restarts)
        self.life: _Life | None = None
        self.state: Any = None
        self.saves = hasattr(actor, "__actor_save__")
        self.retries = retries
        self._trace = trace
        self._order = count()
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self.callers = [_Caller(self, number, calls, script) for number in range(callers)]
        self.outcome.answers = [caller.answers for caller in self.callers]
        for fault in faults:
            self.at(fault.at, self._strike, fault)
        self.live()

    def at(self, when: float, what: Callable[..., None], *args: Any) -> None:
        heapq.heappush(self._heap, (when, next(self._order), what, args))

    def after(self, seconds: float, what: Callable[..., None], *args: Any) -> None:
        self.at(self.now + seconds, what, *args)

    def delay(self) -> float:
        """Returns how long a frame takes: mostly little, at times much."""
        return self.chance.expovariate(1000) if self.chance.random() < 0.95 else self.chance.uniform(0, 0.5)

    def note(self, text: str) -> None:
        if self._trace:
            self.outcome.trace.append(f"{self.now:10.6f} {text}")

    def run(self) -> None:
        events = 0
        while self._heap:
            self.now, _, what, args = heapq.heappop(self._heap)
            events += 1
            assert self.now < LONGEST_SECONDS, "it does not come to an end"
            what(*args)
        self.outcome.events, self.outcome.seconds = events, self.now
        self._judge()

    # -- what goes wrong ----------------------------------------------------------------------------------------

    def _strike(self, fault: Fault) -> None:
        life = self.life
        if life is None or life.dead:
            return
        self.note(f"{fault.kind} of {fault.whom}")
        if fault.kind == "cut":
            life.wires[fault.whom].cut(fault.seconds)
        elif fault.kind == "crash":
            life.die()
        elif fault.kind == "stall":
            life.stall(fault.seconds)
        else:
            life.depart()

    # -- the owner ----------------------------------------------------------------------------------------------

    def live(self) -> None:
        """The actor is made, or made anew."""
        self.outcome.lives += 1
        self.fate.placed()
        self.life = _Life(self, self.outcome.lives, self.state)
        self.note(f"life {self.life.number} begins")
        for caller in self.callers:
            self.after(self.delay(), caller.found, self.life)

    def died(self, life: _Life, *, moved: bool) -> None:
        """The owner hears of the end of a life."""
        if moved or self.fate.died(intended=False):
            self.after(0.1, self.live)
        for caller in self.callers:
            self.after(self.delay(), caller.lost, life, moved, self.fate.doomed and not moved)

    # -- the promises -------------------------------------------------------------------------------------------

    def _judge(self) -> None:
        counts: dict[tuple[int, int], int] = {}
        latest: dict[tuple[int, int], int] = {}
        for who, number, life in self.outcome.ran:
            counts[who, number] = counts.get((who, number), 0) + 1
            if not self.retries:
                assert latest.get((who, life), -1) < number, f"call {number} of {who} started out of order"
            latest[who, life] = number
        for caller in self.callers:
            for number in range(caller.made):
                call = f"call {number} of {caller.number}"
                assert number in caller.answers, f"{call} was never answered"
                verdict, times = caller.answers[number][0], counts.get((caller.number, number), 0)
                assert self.retries or times <= 1, f"{call} ran {times} times"
                assert verdict != "never started" or not times, f"{call} ran, and never started"
                assert verdict != "value" or times, f"{call} was answered and never ran"
        thing = self.life.thing if self.life is not None else None
        if isinstance(thing, Journal) and self.saves and self.fate.state is not State.DEAD:
            kept = set(thing.entries)
            for caller in self.callers:
                for number, (verdict, _) in caller.answers.items():
                    lost = verdict == "value" and (caller.number, number) not in kept
                    assert not lost, f"call {number} of {caller.number} was acknowledged, and its effect is lost"


class _Wire:
    """One conversation: a session at each end, over connections that come and go."""

    def __init__(self, world: _World, here: Callable[[Any], None], there: Callable[[Any], None]) -> None:
        self.world = world
        self.ends = (_End(self, here), _End(self, there))
        self.ends[0].other, self.ends[1].other = self.ends[1], self.ends[0]
        self.epoch = 0
        self.up = True
        self.closed = False

    def cut(self, seconds: float) -> None:
        self.epoch += 1
        if self.up:
            self.up = False
            self.world.after(seconds, self._dial)

    def _dial(self) -> None:
        if self.closed:
            return
        self.up = True
        first, second = self.ends
        first.session.connected(second.session.received)
        second.session.connected(first.session.received)
        for end in self.ends:
            end.arrives = self.world.now
            end.flush()

    @property
    def idle(self) -> bool:
        return all(end.session.idle for end in self.ends)


class _End:
    """One end of it."""

    def __init__(self, wire: _Wire, take: Callable[[Any], None]) -> None:
        self.session: Session[Any] = Session()
        self.other: _End
        self.arrives = 0.0  # what is sent next arrives no earlier: a connection keeps order
        self._wire = wire
        self._take = take

    def post(self, message: Any) -> None:
        self.session.push(message, 1)
        self.flush()

    def flush(self) -> None:
        wire = self._wire
        world = wire.world
        while wire.up and not wire.closed and (batch := self.session.take(BATCH, 1 << 20)):
            self.arrives = max(self.arrives, world.now + world.delay())
            world.at(self.arrives, self.other.arrived, wire.epoch, batch)
            if world.chance.random() < TWICE:
                world.at(self.arrives + world.delay(), self.other.arrived, wire.epoch, batch)

    def arrived(self, epoch: int, batch: list[tuple[int, Any]]) -> None:
        wire = self._wire
        if epoch != wire.epoch or wire.closed:
            return  # lost with its connection
        fresh = [message for number, message in batch if self.session.accept(number)]
        wire.world.after(wire.world.delay(), self.other.acknowledged, epoch, self.session.received)
        for message in fresh:
            if not wire.closed:
                self._take(message)

    def acknowledged(self, epoch: int, upto: int) -> None:
        if epoch == self._wire.epoch and not self._wire.closed:
            self.session.acknowledged(upto)


class _Life:
    """One life of the actor, in a process of its own."""

    def __init__(self, world: _World, number: int, state: Any) -> None:
        self.number = number
        self.dead = False
        self.thing = world.make()
        if state is not None:
            self.thing.__actor_load__(state)
        self._world = world
        self._mailbox: deque[tuple[_Caller, int, str, tuple[Any, ...]]] = deque()
        self._busy = False
        self._moved = False
        self._until = 0.0
        self._waits: deque[tuple[_Caller, int, tuple[str, Any]]] = deque()  # for the owner to have the state
        self.wires = [_Wire(world, caller.answered, self._arrived(caller)) for caller in world.callers]
        self.wires.append(_Wire(world, self._saved, self._owner_takes))  # to the owner

    def _arrived(self, caller: _Caller) -> Callable[[Any], None]:
        def take(message: Any) -> None:
            number, method, args = message
            if self._moved:
                self._reply(caller, number, ("ended", None))
                return
            self._mailbox.append((caller, number, method, args))
            self._turn()

        return take

    def stall(self, seconds: float) -> None:
        self._until = max(self._until, self._world.now + seconds)

    def _turn(self) -> None:
        if self._mailbox and not self._busy:
            self._busy = True
            self._world.at(max(self._until, self._world.now + self._world.chance.expovariate(5000)), self._execute)

    def _execute(self) -> None:
        if self.dead or self._moved or not self._mailbox:
            return
        world = self._world
        if self._until > world.now:
            world.at(self._until, self._execute)
            return
        caller, number, method, args = self._mailbox.popleft()
        world.outcome.ran.append((caller.number, number, self.number))
        world.note(f"life {self.number} runs call {number} of {caller.number}: {method}{args}")
        try:
            answer = ("value", getattr(self.thing, method)(*args))
        except Exception as error:
            answer = ("raised", error)
        if world.saves:
            self._waits.append((caller, number, answer))
            self.wires[-1].ends[0].post(self.thing.__actor_save__())
        else:
            self._reply(caller, number, answer)
            self._over()

    def _owner_takes(self, state: Any) -> None:
        if not self.dead:
            self._world.state = state
            self.wires[-1].ends[1].post("saved")

    def _saved(self, _: Any) -> None:
        if not self.dead and self._waits:
            self._reply(*self._waits.popleft())
            self._over()

    def _over(self) -> None:
        self._busy = False
        self._turn()

    def _reply(self, caller: _Caller, number: int, answer: tuple[str, Any]) -> None:
        self.wires[caller.number].ends[1].post((number, answer))

    def depart(self) -> None:
        """It moves between two calls; the old process stays until every caller has its answers."""
        world = self._world
        if self.dead or self._moved or not world.saves:
            return
        if self._busy and (self._waits or self._mailbox):  # one runs
            world.after(0.001, self.depart)
            return
        self._moved = True
        world.state = self.thing.__actor_save__()
        for caller, number, _, _ in self._mailbox:
            self._reply(caller, number, ("ended", None))
        self._mailbox.clear()
        self._end_when_idle()

    def _end_when_idle(self) -> None:
        if self.dead:
            return
        if all(wire.ends[1].session.idle for wire in self.wires):
            self._close(moved=True)
        else:
            self._world.after(0.01, self._end_when_idle)

    def die(self) -> None:
        # What it has answered and not let out is lost with it; after a move the state is elsewhere already.
        self._close(moved=False)

    def _close(self, *, moved: bool) -> None:
        self.dead = True
        self._world.note(f"life {self.number} {'has moved' if moved else 'dies'}")
        for wire in self.wires:
            wire.closed = True
        self._world.died(self, moved=moved)


class _Caller:
    """Makes calls, in order, and hears what became of them."""

    def __init__(
        self,
        world: _World,
        number: int,
        calls: int,
        script: Callable[[random.Random, int, int], tuple[str, tuple[Any, ...]]] | None,
    ) -> None:
        self.number = number
        self.made = 0
        self.answers: dict[int, tuple[str, Any]] = {}
        self._world = world
        self._script = script
        self._line: list[int] = []  # to be sent, by number
        self._calls: dict[int, tuple[str, tuple[Any, ...]]] = {}
        self._out: set[int] = set()  # sent and not answered
        self._tried: dict[int, int] = {}
        self._life: _Life | None = None
        self._gone = False
        for moment in sorted(world.chance.uniform(0, SPAN_SECONDS) for _ in range(calls)):
            world.at(moment, self._call)

    def _call(self) -> None:
        number, self.made = self.made, self.made + 1
        chance = self._world.chance
        self._calls[number] = (
            self._script(chance, self.number, number) if self._script is not None else ("enter", (self.number, number))
        )
        if self._gone:
            self._end(number, ("never started", None))
            return
        self._line.append(number)
        self._pump()

    def _pump(self) -> None:
        if self._life is None:
            return
        for number in sorted(self._line):
            self._out.add(number)
            self._life.wires[self.number].ends[0].post((number, *self._calls[number]))
        self._line.clear()

    def found(self, life: _Life) -> None:
        if not life.dead and self._life is None:  # else it has yet to hear that the one before is gone
            self._life = life
            self._pump()

    def answered(self, message: Any) -> None:
        number, answer = message
        if answer[0] == "ended":
            return  # it goes back in line when its process has ended
        assert number in self._out, f"call {number} of {self.number} was answered twice"
        self._out.discard(number)
        self._end(number, answer)

    def lost(self, life: _Life, moved: bool, final: bool) -> None:
        """A process has died: what it cannot have seen goes elsewhere, the rest has a verdict."""
        self._gone = self._gone or final
        if self._life is life or self._life is None:
            self._life = None
            unsent = {message[0] for message in life.wires[self.number].ends[0].session.never_written()}
            for number in sorted(self._out):
                self._out.discard(number)
                tries = self._tried.get(number, self._world.retries)
                if final and number in unsent:
                    self._end(number, ("never started", None))
                elif moved or number in unsent:
                    self._line.append(number)
                elif tries and not final:
                    self._tried[number] = tries - (tries > 0)
                    self._line.append(number)
                else:
                    self._end(number, ("may have run", None))
        if self._gone:
            for number in self._line:
                self._end(number, ("never started" if number not in self._tried else "may have run", None))
            self._line.clear()
        newest = self._world.life
        if newest is not None and not newest.dead:
            self.found(newest)

    def _end(self, number: int, answer: tuple[str, Any]) -> None:
        assert number not in self.answers, f"call {number} of {self.number} was answered twice"
        self.answers[number] = answer
        self._world.note(f"call {number} of {self.number}: {answer[0]}")
