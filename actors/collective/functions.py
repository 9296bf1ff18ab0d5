"""The collectives as functions: in the group given, else in that of the actor which calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .context import current_group

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .group import Group


def allreduce(x: Any, op: str = "sum", group: Group | None = None, timeout: float | None = None) -> Any:
    """Returns the reduction of all ranks' ``x``: the same bits on every rank, in the kind, dtype and shape of ``x``.

    Args:
        x: a numpy or MLX array, of the same shape and dtype on all ranks.
        op: ``sum``, ``product``, ``min``, ``max`` or ``mean``; no mean of integers. On booleans sum and max are
            "or", product and min are "and".
        group: the group; the calling actor's own by default.
        timeout: seconds to wait for the other ranks, 60 by default.

    Raises:
        CollectiveError: the ranks do not call the same, or one died or did not come; on every rank, naming it.
        TypeError: ``x`` is no array that can be reduced.
        ValueError: no such op, or the mean of integers.
    """
    return current_group(group).allreduce(x, op, timeout=timeout)


def reduce(x: Any, dst: int, op: str = "sum", group: Group | None = None, timeout: float | None = None) -> Any:
    """Returns the reduction of all ranks' ``x`` on rank ``dst``, None elsewhere; otherwise as `allreduce`."""
    return current_group(group).reduce(x, dst, op, timeout=timeout)


def broadcast(x: Any, src: int = 0, group: Group | None = None, timeout: float | None = None) -> Any:
    """Returns rank ``src``'s ``x`` on every rank.

    Args:
        x: on ``src`` an array or any object that can be pickled; elsewhere None, or an array of the same shape
            and dtype, whose kind the result then has.
        src: the rank that sends.
        group: the group; the calling actor's own by default.
        timeout: seconds to wait for the other ranks, 60 by default.

    Raises:
        CollectiveError: the ranks do not call the same, or one died or did not come; on every rank, naming it.
        SerializationError: ``x`` cannot be pickled.
        ValueError: ``src`` is no rank of the group.
    """
    return current_group(group).broadcast(x, src, timeout=timeout)


def allgather(x: Any, group: Group | None = None, timeout: float | None = None) -> list[Any]:
    """Returns the list of all ranks' ``x``, in rank order: arrays of one shape and dtype, or any objects."""
    return current_group(group).allgather(x, timeout=timeout)


def gather(x: Any, dst: int, group: Group | None = None, timeout: float | None = None) -> list[Any] | None:
    """Returns the list of all ranks' ``x``, in rank order, on rank ``dst``, None elsewhere."""
    return current_group(group).gather(x, dst, timeout=timeout)


def scatter(xs: Sequence[Any] | None, src: int, group: Group | None = None, timeout: float | None = None) -> Any:
    """Returns this rank's item of rank ``src``'s list ``xs``, one item for each rank; the others pass None."""
    return current_group(group).scatter(xs, src, timeout=timeout)


def reducescatter(x: Any, op: str = "sum", group: Group | None = None, timeout: float | None = None) -> Any:
    """Returns this rank's part of the reduction of all ranks' ``x``, split evenly along axis 0.

    Raises:
        CollectiveError: as `allreduce`.
        ValueError: axis 0 cannot be split over the ranks; and as `allreduce`.
    """
    return current_group(group).reducescatter(x, op, timeout=timeout)


def alltoall(xs: Sequence[Any], group: Group | None = None, timeout: float | None = None) -> list[Any]:
    """Returns the items that all ranks have for this one, in rank order; ``xs[j]`` goes to rank ``j``."""
    return current_group(group).alltoall(xs, timeout=timeout)


def send(x: Any, dst: int, tag: int | str = 0, group: Group | None = None, timeout: float | None = None) -> None:
    """Hands ``x``, an array or any object that can be pickled, over for rank ``dst``; does not wait for it."""
    current_group(group).send(x, dst, tag, timeout=timeout)


def recv(src: int, tag: int | str = 0, group: Group | None = None, timeout: float | None = None) -> Any:
    """Returns what rank ``src`` sends next under ``tag``; numpy arrays are read-only.

    Raises:
        CollectiveError: the rank died, or nothing came in time, after which one can try again.
        ValueError: ``src`` is no other rank of the group.
    """
    return current_group(group).recv(src, tag, timeout=timeout)


def barrier(group: Group | None = None, timeout: float | None = None) -> None:
    """Returns once every rank has called it.

    Raises:
        CollectiveError: a rank called something else, died or did not come; on every rank, naming it.
    """
    current_group(group).barrier(timeout=timeout)


def get_rank(group: Group | None = None, timeout: float | None = None) -> int:  # noqa: ARG001 - all take it
    """Returns the number of the calling rank in its group, from 0."""
    return current_group(group).rank


def get_world_size(group: Group | None = None, timeout: float | None = None) -> int:  # noqa: ARG001 - all take it
    """Returns how many ranks the group has."""
    return current_group(group).size
