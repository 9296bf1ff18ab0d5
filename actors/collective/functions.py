"""The collectives as functions: in the group given, else in that of the actor which calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from .context import current_group
from .later import alone

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from actors.group import ActorGroup

    from .group import Group

    Grouped: TypeAlias = Group | ActorGroup[Any] | None


def allreduce(
    x: Any,
    op: str = "sum",
    group: Grouped = None,
    timeout: float | None = None,
    *,
    deterministic: bool = False,
    async_op: bool = False,
) -> Any:
    """Returns the reduction of all ranks' ``x``: the same bits on every rank, in the kind, dtype and shape of ``x``.

    Args:
        x: a numpy or MLX array, of the same shape and dtype on all ranks, or a dict, list or tuple of such, nested to
            any depth, reduced in one go.
        op: ``sum``, ``product``, ``min``, ``max`` or ``mean``; no mean of integers. On booleans sum and max are
            "or", product and min are "and".
        group: the group; the calling actor's own by default.
        timeout: seconds to wait for the other ranks, 60 by default.
        deterministic: every element is reduced in rank order, wherever the ranks are.
        async_op: return a `Work` at once, whose ``wait()`` returns the result; all functions here take it. The
            group's collectives run in the order of their calls; until it is done, ``x`` must not be changed.

    Raises:
        CollectiveError: the ranks do not call the same, or one died or did not come; on every rank, naming it.
        TypeError: ``x`` is no array that can be reduced.
        ValueError: no such op, or the mean of integers.
    """
    member = current_group(group)
    return _run(
        member, "allreduce", lambda: member.allreduce(x, op, timeout=timeout, deterministic=deterministic), async_op
    )


def reduce(
    x: Any, dst: int, op: str = "sum", group: Grouped = None, timeout: float | None = None, *, async_op: bool = False
) -> Any:
    """Returns the reduction of all ranks' ``x`` on rank ``dst``, None elsewhere; otherwise as `allreduce`."""
    member = current_group(group)
    return _run(member, "reduce", lambda: member.reduce(x, dst, op, timeout=timeout), async_op)


def broadcast(
    x: Any, src: int = 0, group: Grouped = None, timeout: float | None = None, *, async_op: bool = False
) -> Any:
    """Returns rank ``src``'s ``x`` on every rank.

    Args:
        x: on ``src`` an array or any object that can be pickled; elsewhere None, or an array of the same shape
            and dtype, whose kind the result then has.
        src: the rank that sends.
        group: the group; the calling actor's own by default.
        timeout: seconds to wait for the other ranks, 60 by default.
        async_op: return a `Work` at once, as in `allreduce`.

    Raises:
        CollectiveError: the ranks do not call the same, or one died or did not come; on every rank, naming it.
        SerializationError: ``x`` cannot be pickled.
        ValueError: ``src`` is no rank of the group.
    """
    member = current_group(group)
    return _run(member, "broadcast", lambda: member.broadcast(x, src, timeout=timeout), async_op)


def allgather(x: Any, group: Grouped = None, timeout: float | None = None, *, async_op: bool = False) -> Any:
    """Returns the list of all ranks' ``x``, in rank order: arrays of one shape and dtype, or any objects."""
    member = current_group(group)
    return _run(member, "allgather", lambda: member.allgather(x, timeout=timeout), async_op)


def gather(x: Any, dst: int, group: Grouped = None, timeout: float | None = None, *, async_op: bool = False) -> Any:
    """Returns the list of all ranks' ``x``, in rank order, on rank ``dst``, None elsewhere."""
    member = current_group(group)
    return _run(member, "gather", lambda: member.gather(x, dst, timeout=timeout), async_op)


def scatter(
    xs: Sequence[Any] | None, src: int, group: Grouped = None, timeout: float | None = None, *, async_op: bool = False
) -> Any:
    """Returns this rank's item of rank ``src``'s list ``xs``, one item for each rank; the others pass None."""
    member = current_group(group)
    return _run(member, "scatter", lambda: member.scatter(xs, src, timeout=timeout), async_op)


def reducescatter(
    x: Any, op: str = "sum", group: Grouped = None, timeout: float | None = None, *, async_op: bool = False
) -> Any:
    """Returns this rank's part of the reduction of all ranks' ``x``, split evenly along axis 0.

    Raises:
        CollectiveError: as `allreduce`.
        ValueError: axis 0 cannot be split over the ranks; and as `allreduce`.
    """
    member = current_group(group)
    return _run(member, "reducescatter", lambda: member.reducescatter(x, op, timeout=timeout), async_op)


def alltoall(xs: Sequence[Any], group: Grouped = None, timeout: float | None = None, *, async_op: bool = False) -> Any:
    """Returns the items that all ranks have for this one, in rank order; ``xs[j]`` goes to rank ``j``."""
    member = current_group(group)
    return _run(member, "alltoall", lambda: member.alltoall(xs, timeout=timeout), async_op)


def send(x: Any, dst: int, tag: int | str = 0, group: Grouped = None, timeout: float | None = None) -> None:
    """Hands ``x``, an array or any object that can be pickled, over for rank ``dst``; does not wait for it."""
    current_group(group).send(x, dst, tag, timeout=timeout)


def recv(
    src: int, tag: int | str = 0, group: Grouped = None, timeout: float | None = None, *, async_op: bool = False
) -> Any:
    """Returns what rank ``src`` sends next under ``tag``; numpy arrays are read-only.

    Raises:
        CollectiveError: the rank died, or nothing came in time, after which one can try again.
        ValueError: ``src`` is no other rank of the group.
    """
    member = current_group(group)
    return (
        alone("recv", lambda: member.recv(src, tag, timeout=timeout))
        if async_op
        else member.recv(src, tag, timeout=timeout)
    )


def barrier(group: Grouped = None, timeout: float | None = None, *, async_op: bool = False) -> Any:
    """Returns once every rank has called it.

    Raises:
        CollectiveError: a rank called something else, died or did not come; on every rank, naming it.
    """
    member = current_group(group)
    return _run(member, "barrier", lambda: member.barrier(timeout=timeout), async_op)


def get_rank(group: Grouped = None, timeout: float | None = None) -> int:  # noqa: ARG001 - all take it
    """Returns the number of the calling rank in its group, from 0."""
    return current_group(group).rank


def get_world_size(group: Grouped = None, timeout: float | None = None) -> int:  # noqa: ARG001 - all take it
    """Returns how many ranks the group has."""
    return current_group(group).size


def average_gradients(tree: Any, group: Grouped = None, timeout: float | None = None, *, async_op: bool = False) -> Any:
    """Returns the mean over the ranks of a structure of arrays, such as gradients: `allreduce` with op ``mean``."""
    return allreduce(tree, "mean", group, timeout, async_op=async_op)


def split(color: int | None, key: int = 0, group: Grouped = None, timeout: float | None = None) -> Group | None:
    """Makes a group of all ranks that pass the same ``color``, in the order of ``key``; None where it is None."""
    return current_group(group).split(color, key, timeout=timeout)


def rebuild(group: Grouped = None, timeout: float | None = None) -> Group:
    """Makes a broken group usable again with the ranks that are left, which all call it; see `Group.rebuild`."""
    member = current_group(group)
    member.rebuild(timeout=timeout)
    return member


def get_group(group: Grouped = None) -> Group:
    """Returns the calling rank's end of its group, whose methods are the collectives."""
    return current_group(group)


def _run(member: Group, name: str, step: Callable[[], Any], async_op: bool) -> Any:
    return member.start(name, step) if async_op else step()
