"""How a notebook shows handles, groups, references, plans and errors that are the value of a cell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from actors.notebook.pictures import table

if TYPE_CHECKING:
    from collections.abc import Callable

MOST_METHODS = 20


def of_handle(handle: Any) -> str:
    """Returns the HTML of an actor's handle: its methods, and what they take."""
    return table(repr(handle), _methods(handle))


def of_group(group: Any) -> str:
    """Returns the HTML of a group: its ranks and their methods."""
    ranks = [(f"rank {rank}", repr(handle)) for rank, handle in enumerate(group)]
    return table(f"Group of {len(group)} actors", ranks + (_methods(group[0]) if len(group) else []))


def _methods(handle: Any) -> list[tuple[str, str]]:
    names = [name for name in dir(handle) if not name.startswith("_")]
    rows = []
    for name in names[:MOST_METHODS]:
        method = getattr(handle, name)
        doc = f"  {method.__doc__}" if method.__doc__ else ""
        rows.append((f".{name}", f"{method.__signature__}{doc}"))
    more = len(names) - MOST_METHODS
    return rows + [("", f"and {more} methods more")] * (more > 0)


def of_ref(ref: Any) -> str:
    """Returns the HTML of a reference: whose value it is, whether that is there, and how to get it."""
    return table(repr(ref).strip("<>"), [("", "actors.get(ref) waits for the value, and so does: await ref")])


def of_stream(stream: Any) -> str:
    """Returns the HTML of a stream of references."""
    how = "for ref in stream: actors.get(ref)    or    async for ref in stream: await ref"
    return table(repr(stream).strip("<>"), [("", how)])


def of_error(error: Any) -> str:
    """Returns the HTML of an error that happened elsewhere: what, where, whether the call ran, and the traceback."""
    lines = str(error).split("\n\n", 1)
    where = [(name, getattr(error, name, None)) for name in ("node", "actor", "method")]
    rows = [(name, str(value)) for name, value in where if value]
    if (verdict := getattr(error, "verdict", None)) is not None:
        rows.append(("verdict", verdict.value))
    if len(lines) > 1:
        rows.append(("there", lines[1]))
    return table(lines[0], rows)


def of_plan(plan: Any) -> str:
    """Returns the HTML of a model's plan: which layers are on which node, and why."""
    first, *_ = str(plan).splitlines()
    return table(first, [(f"stage {stage.stage}", _stage(stage)) for stage in plan.stages])


def _stage(stage: Any) -> str:
    mebibytes = stage.nbytes / 2**20
    return f"{stage.node}: layers {stage.first} to {stage.last}, {mebibytes:,.1f} MiB, {stage.why}"


HTML: dict[tuple[str, str], Callable[[Any], str]] = {
    ("actors.handle", "ActorHandle"): of_handle,
    ("actors.group", "ActorGroup"): of_group,
    ("actors.refs", "ObjectRef"): of_ref,
    ("actors.stream", "ObjectRefGenerator"): of_stream,
    ("actors.exceptions", "RemoteError"): of_error,
    ("actors.models.plan", "Plan"): of_plan,
}
"""By module and name of the class, so that none is loaded before it is used."""
