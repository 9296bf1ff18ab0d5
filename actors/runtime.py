"""Which cluster this process is part of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from actors import holdings

if TYPE_CHECKING:
    from actors.address import Address
    from actors.process import Process
    from actors.spec import ActorSpec, GroupSpec


@dataclass(frozen=True, slots=True)
class Incarnation:
    """The actor that runs in this process.

    Attributes:
        spec: what it is.
        group: its place in its group, if it has one.
        node: name of its node.
    """

    spec: ActorSpec
    group: GroupSpec | None
    node: str


_process: Process | None = None
_self: Incarnation | None = None


def joined() -> Process | None:
    """Returns this process's part in the cluster, None where it has none."""
    return _process


def join(process: Process | None) -> None:
    """Sets, or with None ends, this process's part in a cluster."""
    global _process  # noqa: PLW0603 - the one place that knows
    _process = process
    holdings.use(process.holdings if process is not None else None)


def become(actor: Incarnation) -> None:
    """This process's actor has been born."""
    global _self  # noqa: PLW0603 - the one place that knows
    _self = actor


def myself() -> Incarnation | None:
    """Returns the actor that runs in this process; None in a driver."""
    return _self


def driver() -> Address | None:
    """Returns the driver that this process works for, which shows what its actors print."""
    if _self is not None:
        return _self.spec.driver
    return _process.address if _process is not None else None
