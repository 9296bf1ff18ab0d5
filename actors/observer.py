"""The observer: what every view of a cluster is made of: how it looks, what happens in it, where an actor stands."""

from __future__ import annotations

import os
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from actors import device
from actors.exceptions import ActorsError, NoClusterError
from actors.local import clusters
from actors.visit import ASK_SECONDS, Visit, address_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from actors.events import ActorChanged, ClusterView, Event
    from actors.nodeinfo import NodeInfo

BIRTH_SECONDS = 3.0
NOTHING_RUNS = (
    "no cluster runs on this device: run `actors start`, or a program that calls actors.init(). Programs of another "
    "ACTORS_HOME, of another user or in a container are not seen from here"
)

Line = tuple[str, int, "str | None", "str | None", "str | None", tuple[str, str, str]]
"""Node, pid, actor, class and name of whoever printed; when (ISO 8601), on which stream, what."""


class Observer:
    """Looks at one cluster through one of its nodes. A context manager; `close` ends it.

    Attributes:
        label: which cluster it is, for people.
        program: pid of the program that has it for itself; None of a device's.
    """

    def __init__(
        self, label: str, ask: Callable[..., Any], close: Callable[[], None] = lambda: None, program: int | None = None
    ) -> None:
        self.label = label
        self.program = program
        self._ask = ask
        self.close = close

    @classmethod
    def here(cls) -> Observer:
        """Returns the observer of the cluster that this program is in.

        Raises:
            NoClusterError: it is in none.
        """
        from actors.cluster import joined  # late: commands need none of it

        process = joined()

        def ask(target: str, method: str, *args: Any, timeout: float = ASK_SECONDS) -> Any:
            assert process.home is not None
            return process.portal.run(process.ask(process.home, target, method, *args, timeout=timeout))

        return cls("this program's", ask)

    def view(self) -> ClusterView:
        """Returns what the cluster looks like just now."""
        found: ClusterView = self._ask("events", "cluster")
        return found

    def nodes(self) -> list[NodeInfo]:
        """Returns every node of the cluster that was ever seen; ``alive`` says which answer."""
        found: list[NodeInfo] = self._ask("node", "nodes")
        return found

    def circle(self) -> dict[str, Any]:
        """Returns what a device's node knows of the members of its cluster: its nodes, and why others are silent."""
        found: dict[str, Any] = self._ask("trust", "circle")
        return found

    def follow(self, numbers: dict[str, int], timeout: float) -> dict[str, tuple[list[Event], int, int]]:
        """Returns what has happened since, waiting for the first; see `actors.node.observatory.Observatory.follow`."""
        found: dict[str, tuple[list[Event], int, int]] = self._ask(
            "events", "follow", numbers, timeout, timeout=timeout + ASK_SECONDS
        )
        return found

    def events(self, *, past: bool = False, timeout: float = 5.0) -> Iterator[tuple[str, Event] | None]:
        """Returns what happens, as it happens, without end: the node's id and the event.

        Args:
            past: begin with what the nodes still have of the past.
            timeout: seconds without news after which it gives None, so that whoever iterates can do something else.
        """
        return self._events({node.id: 0 if past else node.number for node in self.view().nodes}, timeout)

    def _events(self, numbers: dict[str, int], timeout: float) -> Iterator[tuple[str, Event] | None]:
        while True:
            news = self.follow(numbers, timeout)
            numbers |= {id: number for id, (_, number, _) in news.items()}
            some = [(id, event) for id, (events, _, _) in news.items() for event in events]
            yield from sorted(some, key=lambda each: each[1].at)
            if not some:
                yield None

    def past(self) -> list[Event]:
        """Returns what the nodes still have of what has happened, by time."""
        numbers = {node.id: 0 for node in self.view().nodes}
        found: list[Event] = []
        while numbers:
            news = self.follow(numbers, 0.0)
            found += [event for events, _, _ in news.values() for event in events]
            numbers = {id: number for id, (events, number, _) in news.items() if events}
        return sorted(found, key=lambda event: event.at)

    def clocks(self) -> dict[str, float]:
        """Returns how many seconds each node's clock is ahead of that of the node that is asked, by name."""
        found: dict[str, float] = self._ask("events", "clocks")
        return found

    def end(self, actor: ActorChanged, *, no_restart: bool = True) -> None:
        """Ends an actor at once; returns when it has ended.

        Raises:
            ActorError: it is on no node just now.
        """
        self._ask("hosting", "end", actor, no_restart)

    def stack(self, actor: ActorChanged) -> tuple[bool, list[tuple[str, list[str]]]]:
        """Returns where an actor's code stands; see `actors.node.hosting.Hosting.stack`."""
        found: tuple[bool, list[tuple[str, list[str]]]] = self._ask("hosting", "stack", actor)
        return found

    def debugger(self, actor: ActorChanged) -> Callable[..., Any]:
        """Returns what has the debugger in an actor's process do something; see `actors.debugging.Debugger`."""
        return partial(self._ask, "hosting", "debug", actor)

    def logs(self, lines: int) -> list[Line]:
        """Returns the last lines that each worker of the cluster has printed, by time."""
        found: list[Line] = self._ask("events", "all_logs", lines)
        return sorted(found, key=lambda line: line[-1][0])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Observers:
    """The observers of all clusters that run on this device. A context manager.

    That is: the cluster of the device's own node (`actors start`, or a paired program), and those that programs have
    for themselves.

    Raises:
        NoClusterError: none runs.
    """

    def __init__(self) -> None:
        self._all: list[Observer] = []
        running = device.running()
        if running is not None:
            visit = Visit(address_of(running))
            self._all.append(Observer(f"device {running.name}", visit.ask, visit.close))
        for cluster in clusters():
            visit = Visit(cluster.nodes[0])
            program = os.path.basename(cluster.program) or "python"
            self._all.append(Observer(f"program {cluster.pid} ({program})", visit.ask, visit.close, cluster.pid))
        if not self._all:
            raise NoClusterError(NOTHING_RUNS)

    def views(self) -> list[tuple[Observer, ClusterView]]:
        """Returns how each cluster looks; one that has just ended is left out.

        Raises:
            NoClusterError: all have.
        """
        found, last = [], None
        for observer in self._all:
            try:
                found.append((observer, observer.view()))
            except ActorsError as error:
                last = error
        if not found:
            raise last or NoClusterError(NOTHING_RUNS)
        return found

    def __iter__(self) -> Iterator[Observer]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for observer in self._all:
            observer.close()


def find(who: str, found: Sequence[tuple[Observer, ClusterView]]) -> tuple[Observer, ActorChanged]:
    """Returns the one actor that is meant by an id, the beginning of one, or a name, and who observes it.

    Raises:
        LookupError: none is meant, or several are; the message says which there are.
    """
    all_ = [(observer, actor) for observer, view in found for actor in view.actors(ended=True)]
    for meant in (
        [pair for pair in all_ if pair[1].id == who],
        [pair for pair in all_ if pair[1].name == who and pair[1].state != "DEAD"],
        [pair for pair in all_ if pair[1].name == who],
        [pair for pair in all_ if len(who) > 3 and pair[1].id.removeprefix("actor-").startswith(who)],
        [pair for pair in all_ if pair[1].class_name == who and pair[1].state != "DEAD"],
    ):
        if len(meant) == 1:
            return meant[0]
        if meant:
            raise LookupError(f"{who!r} means {len(meant)} actors: {', '.join(actor.id for _, actor in meant[:10])}")
    raise LookupError(f"no actor is called {who!r}{_nearest(who, [actor for _, actor in all_])}")


def find_living(who: str, observers: Observers) -> tuple[Observer, ActorChanged]:
    """Returns the one living actor that is meant, see `find`; one that is just coming to life is waited for a little.

    Raises:
        LookupError: none is meant, several are, or it has ended; the message says so.
    """
    deadline = time.monotonic() + BIRTH_SECONDS
    while True:
        observer, actor = find(who, observers.views())
        if actor.state == "DEAD":
            raise LookupError(f"{actor.class_name} {actor.id} has ended already: {actor.reason}")
        if actor.process or time.monotonic() > deadline:
            return observer, actor
        time.sleep(0.05)


def _nearest(who: str, actors: list[ActorChanged]) -> str:
    import difflib

    words = [word for actor in actors for word in (actor.name, actor.id, actor.class_name) if word]
    close = difflib.get_close_matches(who, words, 1)
    return f": did you mean {close[0]!r}?" if close else "; `actors list actors` shows those there are"
