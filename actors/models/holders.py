"""Which nodes have a model on their disks, and what the program itself needs of it."""

from __future__ import annotations

from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Final

from actors.actorclass import remote
from actors.api import get, get_runtime_context, kill, nodes
from actors.exceptions import ActorsError

from .weights import Library, Sender, fetch

if TYPE_CHECKING:
    from actors.handle import ActorHandle
    from actors.nodeinfo import NodeInfo

_BEGINNING: Final = 1 << 20  # bytes of each file that tell one model from another
_SECONDS: Final = 60


def holders(path: str | Path, *, like: str | None = None) -> list[NodeInfo]:
    """Nodes that have a model at `path`, one for each host, this program's own first.

    Args:
        path: file or directory, as each node sees it.
        like: the model's `fingerprint`; others at the same path do not count. None takes those of most hosts' kind.
    """
    home = get_runtime_context().get_node_id()
    hosts: dict[str, NodeInfo] = {}
    for node in sorted((node for node in nodes() if node.alive), key=lambda node: node.id != home):
        hosts.setdefault(node.address.rpartition(":")[0], node)
    task = remote(fingerprint)
    asked = [(node, task.options(node=node.name).remote(str(path))) for node in hosts.values()]
    found: list[tuple[NodeInfo, str]] = []
    for node, ref in asked:
        with suppress(ActorsError, TimeoutError):  # one that does not answer has it not
            if (print_ := get(ref, timeout=_SECONDS)) is not None:
                found.append((node, print_))
    if like is None and found:
        kinds = [print_ for _, print_ in found]
        like = max(kinds, key=kinds.count)
    return [node for node, print_ in found if print_ == like]


def fingerprint(path: str) -> str | None:
    """What tells the model at `path` from others: names, sizes and beginnings of its files; None if there is none."""
    where = Path(path)
    if not where.exists():
        return None
    files = sorted(file for file in where.iterdir() if file.is_file()) if where.is_dir() else [where]
    seen = blake2b(digest_size=16)
    for file in files:
        if where.is_dir() and file.suffix not in {".json", ".safetensors"}:
            continue
        with file.open("rb") as opened:
            seen.update(f"{file.name} {file.stat().st_size} ".encode())
            seen.update(opened.read(_BEGINNING))
    return seen.hexdigest()


def library(node: NodeInfo, path: str | Path) -> ActorHandle:
    """An actor on a node that gives out the weights there."""
    made: ActorHandle = remote(Library).options(node=node.id).remote(str(path))
    return made


def headers(path: Path) -> Path | None:
    """Bring all but the weights of a model that other nodes have here; None where nobody has it."""
    found = holders(path)
    if not found:
        return None
    libraries = [library(node, path) for node in found]
    try:
        return fetch([Sender(each) for each in libraries])
    finally:
        for each in libraries:
            kill(each)
