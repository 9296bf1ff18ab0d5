"""The state of things, derived from events: a join, so that their order, and hearing one twice, change nothing."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from actors.events.event import (
    ALIVE,
    DEAD,
    PENDING,
    RESTARTING,
    ActorChanged,
    CollectivesEnded,
    GroupChanged,
    ModelChanged,
    NodeChanged,
    TokensMade,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from actors.events.event import Event

MOST_ENDED = 1_000  # of each kind: those that ended first are forgotten
_PHASES = {PENDING: 0, ALIVE: 1, RESTARTING: 2, DEAD: 3}
_GROUPS = {"OPEN": 0, "CLOSED": 1}
_MODELS = {"LOADED": 0, "CLOSED": 1}


class State:
    """What is known of actors, groups, models and nodes.

    Attributes:
        actors: the latest of each, by id, the oldest actor first.
        groups: the latest of each member, by group and rank.
        collectives: sums by group, rank and operation.
        models: by id.
        tokens: sums by id of the model.
        nodes: by id.
    """

    def __init__(self, events: Iterable[Event] = ()) -> None:
        self.actors: OrderedDict[str, ActorChanged] = OrderedDict()
        self.groups: OrderedDict[tuple[str, int], GroupChanged] = OrderedDict()
        self.collectives: OrderedDict[tuple[str, int, str], CollectivesEnded] = OrderedDict()
        self.models: OrderedDict[str, ModelChanged] = OrderedDict()
        self.tokens: OrderedDict[str, TokensMade] = OrderedDict()
        self.nodes: dict[str, NodeChanged] = {}
        self._ended = 0
        for event in events:
            self.apply(event)

    def apply(self, event: Event) -> None:
        """Takes an event in. What sums up, `CollectivesEnded` and `TokensMade`, must come once only."""
        if isinstance(event, ActorChanged):
            self._actor(event)
        elif isinstance(event, GroupChanged):
            key, known = (event.id, event.rank), self.groups.get((event.id, event.rank))
            if known is None or _GROUPS[event.state] >= _GROUPS[known.state]:
                self.groups[key] = event
                _bound(self.groups)
        elif isinstance(event, CollectivesEnded):
            place = (event.group, event.rank, event.op)
            self.collectives[place] = _added(self.collectives.get(place), event)
            _bound(self.collectives)
        elif isinstance(event, ModelChanged):
            before = self.models.get(event.id)
            if before is None or _MODELS[event.state] >= _MODELS[before.state]:
                self.models[event.id] = event
                _bound(self.models)
        elif isinstance(event, TokensMade):
            made = self.tokens.get(event.id)
            if made is not None:
                event = replace(event, tokens=made.tokens + event.tokens, seconds=made.seconds + event.seconds)
            self.tokens[event.id] = event
            _bound(self.tokens)
        elif isinstance(event, NodeChanged):
            met = self.nodes.get(event.id)
            if met is None or event.at >= met.at:
                self.nodes[event.id] = event

    def _actor(self, event: ActorChanged) -> None:
        known = self.actors.get(event.id)
        if known is None:
            self.actors[event.id] = event
            self._ended += event.state == DEAD
        elif _order(event) > _order(known) or (_order(event) == _order(known) and event.at >= known.at):
            self._ended += (event.state == DEAD) - (known.state == DEAD)
            self.actors[event.id] = _completed(event, known)
        else:  # news of the past may still tell what was not known
            self.actors[event.id] = _completed(known, event)
        if self._ended > MOST_ENDED:
            self._forget_dead()

    def _forget_dead(self) -> None:
        dead = next(id for id, actor in self.actors.items() if actor.state == DEAD)
        del self.actors[dead]
        self._ended -= 1

    def events(self) -> list[Event]:
        """Returns the events from which this state can be made again."""
        return [
            *self.nodes.values(), *self.actors.values(), *self.groups.values(), *self.collectives.values(),
            *self.models.values(), *self.tokens.values(),
        ]  # fmt: skip


def _order(actor: ActorChanged) -> tuple[int, int]:
    """What is known of an actor by several is ordered without clocks: its lives count, and the end of one is its last.

    Whoever was cut off from an actor takes that life for ended, while another node gives it the next one.
    """
    return actor.life, _PHASES[actor.state]


def _completed(event: ActorChanged, other: ActorChanged) -> ActorChanged:
    """Returns an event with what another one of the same life, or of an earlier one, knows beside it."""
    if event.state in {PENDING, RESTARTING} and other.life < event.life:
        return event  # it has no place yet
    return replace(
        event,
        node=event.node or other.node,
        process=event.process or other.process,
        guest=event.guest or other.guest,
        pid=event.pid or other.pid,
        reason=event.reason or (other.reason if other.state == event.state else ""),
    )


def _added(known: CollectivesEnded | None, event: CollectivesEnded) -> CollectivesEnded:
    if known is None:
        return event
    return replace(
        event,
        count=known.count + event.count,
        nbytes=known.nbytes + event.nbytes,
        seconds=known.seconds + event.seconds,
        failed=known.failed + event.failed,
    )


def _bound(store: OrderedDict[Any, Any]) -> None:
    while len(store) > MOST_ENDED:
        store.popitem(last=False)
