"""Admission: what a node answers only to programs of its own device."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actors.exceptions import AuthenticationError

if TYPE_CHECKING:
    from actors.transport.acceptor import Visitor


def must_be_local(visitor: Visitor) -> None:
    """Lets programs of this device pass.

    Raises:
        AuthenticationError: another device asks.
    """
    if visitor.node is not None:
        raise AuthenticationError("only programs of the device itself may ask this")
