"""What the node of a device keeps on its disk and knows of its machine, as far as belonging to a cluster needs it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors.device import Door, Running
    from actors.identity import Identity
    from actors.trust import Roll


class Store(Protocol):
    """Who belongs to the cluster; see `actors.trust.TrustStore`."""

    def stamp(self) -> object:
        """Changes whenever the roll does."""

    def read(self) -> Roll | None:
        """Returns the roll; None where the device belongs to no cluster."""

    def change(self, how: Callable[[Roll | None], Roll | None]) -> Roll | None:
        """Replaces the roll by what ``how`` makes of it."""


class Disk(Protocol):
    """See above. The module `actors.device` is one; a simulated device has another."""

    def identity(self) -> Identity:
        """Returns the device's key."""

    def store(self) -> Store:
        """Returns who belongs to its cluster."""

    def doors(self) -> dict[str, list[str]]:
        """Returns where members were last reached, by node id."""

    def remember_doors(self, more: dict[str, list[str]], /) -> None:
        """Keeps where members are."""

    def hosts(self, door: Door, /) -> tuple[str, ...]:
        """Returns the addresses at which a door is reached, best first."""

    def announce(self, what: Running, /) -> None:
        """The node says where programs of the device find it."""
