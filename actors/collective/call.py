"""One collective as one rank calls it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .agreement import Offer
    from .channel import Channel


class Call(ABC):
    """Making one raises what is wrong with the arguments.

    Attributes:
        offer: what the others are told of it.
    """

    offer: Offer

    def prepare(self, channel: Channel) -> None:  # noqa: B027 - most have nothing to prepare
        """Does what can be done before the ranks have agreed, and is of no effect if they do not."""

    @abstractmethod
    def perform(self, channel: Channel, offers: Sequence[Offer]) -> Any:
        """Does it and returns this rank's result. All ranks have made offers that go together."""
