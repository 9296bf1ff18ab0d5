"""A migration: how an actor's state leaves one process, as its owner sees it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from actors.exceptions import ActorDiedError, ActorsError, ArgumentError
from actors.failure import unpack
from actors.messages import DEPART, GO, PREPARE, STAY, Outcome, Payload
from actors.serialize import dumps_arguments, loads

if TYPE_CHECKING:
    import asyncio

    from actors.address import Address
    from actors.exceptions import Verdict
    from actors.messages import Item, Reply
    from actors.process import Process
    from actors.spec import ActorSpec
    from actors.transport.peer import Death


def check_moves(spec: ActorSpec) -> None:
    """Raises ValueError where an actor has its place for good."""
    if spec.moves:
        return
    why = "it needs both __actor_save__ and __actor_load__, and to be in no group"
    if spec.light:
        why = "it is a light actor (isolation='thread'), which lives in a process with others"
    raise ArgumentError(f"{spec.label} cannot be moved: {why}")


def destined(spec: ActorSpec, node: str | None) -> ActorSpec:
    """Returns an actor's specification for its way to ``node``: at once, or not at all; None for any other node."""
    return replace(spec, demand=replace(spec.demand, node=node, timeout=0.0, strategy="DEFAULT"))


def settled(spec: ActorSpec, there: Address) -> ActorSpec:
    """Returns it once it has moved: one that was to be on one node is to be on the new one."""
    demand = spec.demand if spec.demand.node is None else replace(spec.demand, node=there.node)
    return replace(spec, demand=demand)


def prepare(process: Process, there: Address, spec: ActorSpec, code: Payload) -> None:
    """Has a process that an actor is to move to load its class, whatever becomes of that."""
    process.party(there).call(spec.id, PREPARE, dumps_arguments((code,), {}), _Departed(process.loop))


async def depart(process: Process, here: Address, spec: ActorSpec) -> Payload:
    """Has an actor stand still between two calls; returns its state.

    Raises:
        ActorDiedError: it is gone.
        Exception: why it cannot; it goes on then.
    """
    departed = _Departed(process.loop)
    peer = process.party(here)
    number = peer.call(spec.id, DEPART, dumps_arguments((), {}), departed)
    try:
        return await departed.state
    except BaseException:
        peer.cancel(number)
        stay(process, here, spec)
        raise


def stay(process: Process, here: Address, spec: ActorSpec) -> None:
    """Has an actor that stands still go on."""
    process.party(here).call(spec.id, STAY, dumps_arguments((), {}), _Departed(process.loop))


async def go(process: Process, here: Address, spec: ActorSpec, there: Address) -> None:
    """Ends an actor where it stands still, since it lives elsewhere now; returns when it takes no call any more."""
    gone = _Departed(process.loop)
    process.party(here).call(spec.id, GO, dumps_arguments((there.node_name,), {}), gone)
    try:
        await gone.state
    except ActorDiedError:
        return  # it was quicker


class _Departed:
    """Waits for the answer to one of the three."""

    anywhere = False

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.state: asyncio.Future[Payload] = loop.create_future()
        self.state.add_done_callback(lambda state: state.cancelled() or state.exception())

    def replied(self, reply: Reply) -> None:
        """See `actors.transport.peer.Caller`."""
        assert isinstance(reply.payload, Payload)
        if self.state.done():
            return
        if reply.outcome is Outcome.VALUE:
            self.state.set_result(reply.payload)
        elif reply.outcome is Outcome.RAISED:
            failure = unpack(reply.payload)
            cause = getattr(failure, "cause", None)
            self.state.set_exception(cause if isinstance(cause, ActorsError) else failure)
        else:
            self.state.set_exception(loads(reply.payload) or ActorDiedError("the actor has just ended"))

    def yielded(self, item: Item) -> None:
        """See `actors.transport.peer.Caller`."""

    def lost(self, death: Death, verdict: Verdict) -> None:
        """See `actors.transport.peer.Caller`."""
        if not self.state.done():
            self.state.set_exception(ActorDiedError(f"it died while it was to move: {death.reason}", verdict=verdict))
