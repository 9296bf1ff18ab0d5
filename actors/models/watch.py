"""Who looks after a model's nodes while answers are under way: one that has gone silent is not waited for.

A call waits half a minute for a device whose cable was pulled, since it may come back and the call may run once only.
A model need not wait: what its stages do can be done again by others. So it does not even wait until all agree that
the device is gone, which takes some seconds: a stage on another host that does not answer for a second, while others
do, is gone on without. Should it be merely slow, that costs the time of taking in an answer's tokens once more.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

from actors.api import get_runtime_context, nodes, wait
from actors.exceptions import ActorsError

from .holders import host

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from actors.handle import ActorHandle
    from actors.nodeinfo import NodeInfo
    from actors.refs import ObjectRef

    from .deployment import Deployment

_EVERY: Final = 0.25  # seconds between two looks
_LOOKS: Final = 4  # without an answer, while others answer; they are counted, since this process may have stood still
_GONE: Final = 2  # looks at which all agree that a node is gone


class Watch:
    """Looks while there is something to look after, on a thread of its own.

    Args:
        needed: the stages that give answers now.
        lost: told which of them need a node that has gone silent, and the names of those nodes.
    """

    def __init__(
        self, needed: Callable[[], Collection[Deployment]], lost: Callable[[Deployment, set[str]], None]
    ) -> None:
        self._needed, self._lost = needed, lost
        self._guard = threading.Lock()
        self._thread: threading.Thread | None = None
        self._ended = threading.Event()

    def look(self) -> None:
        """Begin to look, if this is not done already."""
        with self._guard:
            if self._thread is None and not self._ended.is_set():
                self._thread = threading.Thread(target=self._run, name="model-watch", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Look no more."""
        self._ended.set()

    def _run(self) -> None:
        pulses: dict[Deployment, Pulse] = {}
        while not self._ended.wait(_EVERY):
            with self._guard:
                needed = self._needed()
                if not needed:
                    self._thread = None
                    return
            pulses = {each: pulses.get(each) or Pulse(each) for each in needed if not each.broken}
            try:
                there = nodes()
                for each, pulse in pulses.items():
                    if silent := pulse.silent(there):
                        self._lost(each, silent)
            except ActorsError:  # the cluster was left
                continue


class Pulse:
    """What is known of the stages of one deployment."""

    def __init__(self, deployment: Deployment) -> None:
        pairs = zip(deployment.plan.stages, deployment.stages, strict=True)
        self._stages = {stage.node: actor for stage, actor in pairs}
        self._asked: dict[str, ObjectRef[None]] = {}
        self._missed = dict.fromkeys(self._stages, 0)
        self._absent = dict.fromkeys(self._stages, 0)

    def silent(self, there: Collection[NodeInfo]) -> set[str]:
        """Names of the nodes that are not waited for any more, after another look.

        Args:
            there: the nodes that are known.
        """
        alive = {node.name: node for node in there if node.alive}
        home = next((host(node) for node in alive.values() if node.id == get_runtime_context().get_node_id()), "")
        for name, actor in self._stages.items():
            self._absent[name] = 0 if name in alive else self._absent[name] + 1
            if name in alive and host(alive[name]) != home:  # on this host a death is known at once
                self._ask(name, actor)
        gone = {name for name, looks in self._absent.items() if looks >= _GONE}
        if min(self._missed.values()) > 0:  # nobody answers: it is this device that is cut off, or stood still
            return gone
        return gone | {name for name, looks in self._missed.items() if looks >= _LOOKS}

    def _ask(self, name: str, actor: ActorHandle) -> None:
        asked = self._asked.get(name)
        if asked is not None and not wait([asked], timeout=0)[0]:
            self._missed[name] += 1
            return
        self._asked[name], self._missed[name] = actor.beat.remote(), 0
