"""An escort: the state of an actor that goes with the value of a call, to the process that has charge of the actor."""

from __future__ import annotations

from dataclasses import dataclass

from actors.messages import Payload

MINOR = 1
"""How far a process must know what was added to the protocol, to be sent one; see `actors.version`."""

MOST_BYTES = 64 << 10
"""Of the value and of the state: so the reply stays below what goes by the bulk lane."""


@dataclass(frozen=True, slots=True)
class Escort:
    """A state on its way.

    Attributes:
        actor: whose.
        number: of the state, counted by the actor's process from 1.
        state: itself.
    """

    actor: str
    number: int
    state: Payload

    def beside(self, value: Payload) -> Payload:
        """Returns both in one; see `actors.messages.Outcome.KEPT`."""
        return Payload(value.pickle, (self.actor.encode(), b"%d" % self.number, self.state.pickle))


def is_light(payload: Payload) -> bool:
    """Whether a value, or a state, can be one of the two: small, whole, and mentioning nothing."""
    return not payload.buffers and not payload.holds and len(payload.pickle) <= MOST_BYTES
