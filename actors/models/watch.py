"""Who looks after a model's stages: one that has died, or whose node has gone silent, is not waited for.

A call waits half a minute for a device whose cable was pulled, since it may come back and the call may run once only.
A model need not wait: what its stages do can be done again by others. So it does not even wait until all agree that
the device is gone, which takes some seconds: a stage on another host that does not answer for a second, while others
do, is gone on without. Should it be merely slow, that costs the time of taking in an answer's tokens once more.

Of a stage on this host the end of its process is seen at once. What is not seen is one that stands still: it does not
answer for two seconds, while others do, and uses no time of any core, as one does that is slow. It is ended, and then
goes the way of all that die.

A model that has nothing to do is looked after too, less often, so that it is whole again before somebody asks.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary, WeakMethod

import psutil

from actors.api import get, get_runtime_context, is_initialized, kill, nodes, wait
from actors.exceptions import ActorDiedError, ActorsError

from .holders import host

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, MutableMapping

    from actors.handle import ActorHandle
    from actors.nodeinfo import NodeInfo
    from actors.refs import ObjectRef

    from .deployment import Deployment

_EVERY: Final = 0.25  # seconds between two looks while answers are under way
_IDLE: Final = 1.0  # and while none are
_LOOKS: Final = 4  # without an answer, while others answer; they are counted, since this process may have stood still
_STILL: Final = 8  # the same for a stage on this host, each without a hundredth of a second on a core
_GONE: Final = 2  # looks at which all agree that a node is gone


class Watch:
    """Looks, on a thread of its own, for as long as there is a model to look after.

    Args:
        needed: a method that gives the stages that give answers now. It is held weakly, as is `current`: a model that
            nobody holds any more is looked after no more.
        current: a method that gives the stages that new answers would come from.
        lost: told which of them need a node that has gone silent, or have a stage that has died, and the names of the
            nodes that are silent.
    """

    def __init__(
        self,
        needed: Callable[[], Collection[Deployment]],
        current: Callable[[], Deployment],
        lost: Callable[[Deployment, set[str]], None],
    ) -> None:
        self._needed, self._current, self._lost = WeakMethod(needed), WeakMethod(current), WeakMethod(lost)
        self._ended, self._news = threading.Event(), threading.Event()

    def start(self) -> None:
        """Begin to look."""
        threading.Thread(target=self._run, name="model-watch", daemon=True).start()

    def look(self) -> None:
        """An answer has begun."""
        self._news.set()

    def close(self) -> None:
        """Look no more."""
        self._ended.set()
        self._news.set()

    def _run(self) -> None:
        pulses: MutableMapping[Deployment, Pulse] = WeakKeyDictionary()
        every, home = _IDLE, get_runtime_context().get_node_id()
        while not self._ended.is_set():
            if self._news.wait(every):
                self._news.clear()
                self._ended.wait(_EVERY)
            try:
                if not is_initialized() or get_runtime_context().get_node_id() != home:
                    return  # the cluster was left, and the stages with it
                if (needed := self._looked(pulses)) is None:
                    return
            except ActorsError:  # the same, just now
                continue
            every = _EVERY if needed else _IDLE

    def _looked(self, pulses: MutableMapping[Deployment, Pulse]) -> bool | None:
        """Whether answers are under way; None where nobody has the model any more."""
        needed, current, lost = self._needed(), self._current(), self._lost()
        if needed is None or current is None or lost is None:
            return None
        busy = needed()
        there = nodes()
        for each in {*busy, current()}:
            if each.broken:
                continue
            if (pulse := pulses.get(each)) is None:
                pulse = pulses[each] = Pulse(each)
            silent = pulse.silent(there, idle=not busy)
            for actor in pulse.still(silent):
                threading.Thread(target=_end, args=(actor,), daemon=True).start()
            if silent or pulse.died:
                lost(each, silent)
        return bool(busy)


class Pulse:
    """What is known of the stages of one deployment.

    Attributes:
        died: a stage that was asked has died.
    """

    def __init__(self, deployment: Deployment) -> None:
        pairs = zip(deployment.plan.stages, deployment.stages, strict=True)
        self._stages = {stage.node: actor for stage, actor in pairs}
        self._pids = {held["node"]: int(held["pid"]) for held in deployment.held}
        self.died = False
        self._asked: dict[str, ObjectRef[None]] = {}
        self._missed = dict.fromkeys(self._stages, 0)
        self._absent = dict.fromkeys(self._stages, 0)
        self._here: set[str] = set()
        self._used: dict[str, float] = {}
        self._still = dict.fromkeys(self._stages, 0)

    def silent(self, there: Collection[NodeInfo], *, idle: bool) -> set[str]:
        """Names of the nodes that are not waited for any more, after another look.

        Args:
            there: the nodes that are known.
            idle: no answers are under way, whose readers would know at once of a death on this host.
        """
        alive = {node.name: node for node in there if node.alive}
        home = next((host(node) for node in alive.values() if node.id == get_runtime_context().get_node_id()), "")
        self._here = {name for name in self._stages if name in alive and host(alive[name]) == home}
        for name, actor in self._stages.items():
            self._absent[name] = 0 if name in alive else self._absent[name] + 1
            if name in alive:
                self._ask(name, actor, idle=idle)
        gone = {name for name, looks in self._absent.items() if looks >= _GONE}
        if self._nobody_answers:
            return gone
        return gone | {name for name, looks in self._missed.items() if looks >= _LOOKS and name not in self._here}

    def still(self, but: Collection[str]) -> list[ActorHandle]:
        """Stages on this host that stand still, after the same look, each once.

        Args:
            but: names of nodes that are not counted on any more anyway.
        """
        for name in self._here:
            used = _core_seconds(self._pids.get(name))
            stands = self._missed[name] > 0 and used == self._used.get(name) and not self._nobody_answers
            self._still[name] = self._still[name] + 1 if stands else 0
            self._used[name] = used
        return [self._stages[name] for name in self._here if self._still[name] == _STILL and name not in but]

    @property
    def _nobody_answers(self) -> bool:
        """It is this device that is cut off, or stood still."""
        return min(self._missed.values()) > 0

    def _ask(self, name: str, actor: ActorHandle, *, idle: bool) -> None:
        asked = self._asked.get(name)
        if asked is not None and not wait([asked], timeout=0)[0]:
            self._missed[name] += 1
            return
        if idle and asked is not None:
            self.died |= _is_death(asked)
        self._asked[name], self._missed[name] = actor.beat.remote(), 0


def _core_seconds(pid: int | None) -> float:
    """What a process of this host has used of its cores; 0 where it is not to be seen."""
    try:
        used = psutil.Process(pid).cpu_times() if pid is not None else None
    except psutil.Error:
        used = None
    return 0.0 if used is None else used.user + used.system


def _end(actor: ActorHandle) -> None:
    with suppress(ActorsError, TimeoutError):
        kill(actor)


def _is_death(beat: ObjectRef[None]) -> bool:
    try:
        get(beat)
    except ActorDiedError:
        return True
    except ActorsError:
        return False
    return False
