"""Groups made of actors that exist already, and their end."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from actors import device
from actors.cluster import current
from actors.engine import chosen
from actors.exceptions import ActorDiedError, CollectiveError
from actors.group import ActorGroup
from actors.handle import ActorHandle, line_of
from actors.ids import new_id
from actors.spec import GroupSpec

from .context import remove_group

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from actors.address import Address
    from actors.process import Process

    from .group import Group

BACKENDS = ("auto", "shm", "grpc", "mlx")


def create_group(handles: Iterable[ActorHandle[Any]], backend: str = "auto") -> ActorGroup[Any]:
    """Makes a group of actors that exist, in rank order; an actor may be in several.

    Inside the actors, pass the result as ``group=`` to any collective. An actor that was in no group before needs no
    ``group=``: this one is its own. The group does not keep its actors from ending.

    Args:
        handles: the actors, each once, each in a process of its own.
        backend: ``"auto"`` takes shared memory where all ranks are on one host, else gRPC streams; ``"shm"`` takes
            shared memory or fails; ``"grpc"`` takes streams. ``"mlx"`` has arrays of more than 64 KiB carried by MLX's
            own ring, `mx.distributed`, which knows allreduce, reduce, broadcast and allgather of its dtypes by sum,
            mean, min and max. An actor can be in one such group only, which cannot be rebuilt; parts that `split` makes
            of it are as with ``"auto"``. MLX's connections are not encrypted.

    Raises:
        ActorDiedError: one of the actors is dead.
        CollectiveError: one of the actors shares its process with others.
        TypeError: something that is no handle.
        ValueError: no actor, one of them twice, or no such backend.
    """
    if isinstance(handles, ActorHandle):
        raise TypeError("create_group takes the handles of all ranks in a list; this is one handle")
    members = list(handles)
    _check(members, backend)
    return chosen().group_of(members, backend)


def group_of(members: Sequence[ActorHandle[Any]], backend: str) -> ActorGroup[Any]:
    """See `create_group`, which has checked the arguments."""
    process = current()
    spec = GroupSpec(new_id("group"), 0, (), (), backend, device.costs())
    process.portal.run(_enter(process, spec, members))
    return ActorGroup(spec.id, members)


def destroy_group(group: ActorGroup[Any] | Group) -> None:
    """Ends a group: its collectives fail from now on, wherever they are called; its actors live on.

    Args:
        group: the group, or, inside an actor, a `Group` that it got from `split`, of which only this rank's end is
            closed.

    Raises:
        TypeError: it is no group.
    """
    from .group import Group  # late: a driver does without numpy

    if isinstance(group, ActorGroup):
        chosen().end_group(group)
    elif isinstance(group, Group):
        remove_group(group.name)
        group.close()
    else:
        raise TypeError(f"a group is ended, as create_group or split returned it, not a {type(group).__name__}")


def end_group(group: ActorGroup[Any]) -> None:
    """See `destroy_group`."""
    process = current()
    process.portal.run(_leave(process, group.id, list(group)))


def _check(members: Sequence[object], backend: str) -> None:
    if backend == "jaccl":
        raise ValueError(
            "backend='jaccl', RDMA over Thunderbolt, is not there: it could be tried on no machine yet. Use 'mlx', "
            "MLX's ring over TCP, or 'auto'"
        )
    if backend not in BACKENDS:
        raise ValueError(f"unknown backend {backend!r:.100}; known: {', '.join(BACKENDS)}")
    for member in members:
        if not isinstance(member, ActorHandle):
            raise TypeError(f"a group is made of actor handles, not of a {type(member).__name__}")
    if not members:
        raise ValueError("a group needs at least one actor")
    if len(set(members)) < len(members):
        twice = next(member for index, member in enumerate(members) if member in members[:index])
        raise ValueError(f"{twice!r} is in the list twice: a rank is one actor")


async def _enter(process: Process, spec: GroupSpec, members: Sequence[ActorHandle[Any]]) -> None:
    addresses = await asyncio.gather(*(line_of(member).located() for member in members))
    for member, address in zip(members, addresses, strict=True):
        if address.guest or any(other is not address and other.process == address.process for other in addresses):
            raise CollectiveError(
                f"{member!r} shares its process with other actors: make it without isolation='thread'"
            )
    labels = tuple(f"{line_of(m).label} on node {a.node_name}" for m, a in zip(members, addresses, strict=True))
    specs = [replace(spec, rank=rank, members=tuple(addresses), labels=labels) for rank in range(len(members))]
    try:
        asked = (process.ask(a, "worker", "enter_group", s) for a, s in zip(addresses, specs, strict=True))
        await asyncio.gather(*asked)
    except BaseException:
        await _tell(process, spec.id, addresses)
        raise


async def _leave(process: Process, group: str, members: Sequence[ActorHandle[Any]]) -> None:
    found = await asyncio.gather(*(line_of(member).located() for member in members), return_exceptions=True)
    await _tell(process, group, [address for address in found if not isinstance(address, BaseException)])


async def _tell(process: Process, group: str, addresses: Sequence[Address]) -> None:
    asked = (process.ask(address, "worker", "leave_group", group) for address in addresses)
    for answer in await asyncio.gather(*asked, return_exceptions=True):
        if isinstance(answer, BaseException) and not isinstance(answer, ActorDiedError):
            raise answer
