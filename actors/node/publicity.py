"""Publicity: calls of public methods that come in at this node's door, passed on to the actors they are meant for."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from actors.creation import find_named
from actors.exceptions import ActorDiedError, Verdict
from actors.public import PUBLIC, NoActorError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actors.address import Address
    from actors.process import Process
    from actors.public import Part


class Publicity:
    """Calls named actors for clients that have no session.

    Args:
        process: the node's.
    """

    def __init__(self, process: Process) -> None:
        self._process = process

    async def call(self, namespace: str, name: str, method: str, parts: Sequence[Part], patience: float) -> Part:
        """Calls a public method of a named actor, wherever it is; one that has just moved is followed.

        Raises:
            NoActorError: no actor has the name.
            TimeoutError: there was no answer in time.
            ActorDiedError: the actor is gone.
            Exception: what the method raised.
        """
        deadline = time.monotonic() + patience
        handle = await find_named(self._process, name, namespace)
        if handle is None:
            raise NoActorError(f"no actor is named {name!r} in namespace {namespace!r}")
        h, left = handle, None
        where: Address | None = handle._where  # noqa: SLF001 - one of us
        while True:
            if where is None:
                where = await self._process.ask(h._keeper, "keeper", "locate", h._id, left, timeout=_left(deadline))  # noqa: SLF001
            try:
                target = where.guest or h._id  # noqa: SLF001
                answer: Part = await self._process.ask(
                    where, target, PUBLIC, method, tuple(parts), timeout=_left(deadline)
                )
            except ActorDiedError as error:
                if error.verdict is not Verdict.NEVER_STARTED or not h._manner.follows:  # noqa: SLF001
                    raise
                left, where = where.life, None
            else:
                return answer


def _left(deadline: float) -> float:
    return max(0.01, deadline - time.monotonic())
