"""Which nodes have a model on their disks, and what the program itself needs of it."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Final

from actors.actorclass import remote
from actors.api import get, get_runtime_context, kill, nodes, wait
from actors.exceptions import ActorsError

from .hub import Hub, is_on_hub
from .ledger import kept
from .stock import Stock
from .weights import Library, Sender, fetch

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from actors.handle import ActorHandle
    from actors.nodeinfo import NodeInfo

_BEGINNING: Final = 1 << 20  # bytes of each file that tell one model from another
_SECONDS: Final = 60
_BRIEF: Final = 5.0  # seconds; the nodes that were sent a model are asked each time that its layers are dealt out


def holders(path: str | Path, *, like: str | None = None, gone: Collection[str] = ()) -> list[NodeInfo]:
    """Nodes that have a model at `path`, one for each host, this program's own first.

    Args:
        path: file or directory, as each node sees it.
        like: the model's `fingerprint`; others at the same path do not count. None takes those of most hosts' kind.
        gone: names of nodes that are not asked.
    """
    home = get_runtime_context().get_node_id()
    hosts: dict[str, NodeInfo] = {}
    there = (node for node in nodes() if node.alive and node.name not in gone)
    for node in sorted(there, key=lambda node: node.id != home):
        hosts.setdefault(host(node), node)
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


def stocks(path: str | Path, but: Collection[NodeInfo] = (), gone: Collection[str] = ()) -> list[ActorHandle]:
    """Actors on nodes that were sent a part of a model, which give it out, one for each host.

    Args:
        path: what it was called where it came from.
        but: nodes whose hosts are not asked, as they have all of it. Where there are none, and models of that name are
            not all the same, it is the one that most were sent.
        gone: names of nodes that are not asked.
    """
    hosts = {host(node): node for node in nodes() if node.alive and node.name not in gone}
    for node in but:
        hosts.pop(host(node), None)
    task = remote(kept)
    asked = {task.options(node=node.name).remote(str(path)): node for node in hosts.values()}
    found: list[tuple[NodeInfo, str]] = []
    for ref in wait(list(asked), num_returns=len(asked), timeout=_BRIEF)[0] if asked else []:
        with suppress(ActorsError):  # one that does not answer has nothing
            found += [(asked[ref], each) for each in get(ref)]
    keys = [key for _, key in found]
    likely = None if but or not keys else max(keys, key=keys.count)
    return [remote(Stock).options(node=node.id).remote(key) for node, key in found if likely in {None, key}]


class Shelves:
    """Where one model's weights, and those of its draft, are to be had: looked for once, and told after that."""

    def __init__(self) -> None:
        self._found: dict[str, set[str]] = {}  # ids of nodes

    def libraries(
        self, path: str, names: Collection[str], *, always: bool, gone: Collection[str] = ()
    ) -> list[ActorHandle]:
        """Actors that have the weights, one on each host that does: all of them, or what it was sent of them.

        Args:
            path: file or directory.
            names: of the nodes that need them.
            always: also where all of these are on the program's own host, which sees them.
            gone: names of nodes that are not asked.
        """
        known = {node.name: node for node in nodes() if node.alive and node.name not in gone}
        home = get_runtime_context().get_node_id()
        hosts = {host(known[name]) for name in names if name in known}
        hosts |= {host(node) for node in known.values() if node.id == home}
        if not always and len(hosts) == 1:
            return []
        found = [node for node in known.values() if node.id in self._found.get(path, ())]
        if not found:
            found = holders(path, like=fingerprint(path), gone=gone)
            self._found[path] = {node.id for node in found}
        return [library(node, path) for node in found] + stocks(path, found, gone)


@contextmanager
def hub_of(path: str) -> Iterator[list[Sender]]:
    """Who reads a model from the hub, for as long as it is wanted: an actor on this node, which has this device's keys.

    It is a process of its own since that of a stage has no client of the hub's (`lean`). Nobody where the model is not
    on the hub.
    """
    if not is_on_hub(path):
        yield []
        return
    reader: ActorHandle = remote(Hub).options(node=get_runtime_context().get_node_id()).remote(path)
    try:
        yield [Sender(reader)]
    finally:
        kill(reader)


def host(node: NodeInfo) -> str:
    """The machine that a node is on."""
    return node.address.rpartition(":")[0]


def headers(path: Path) -> Path | None:
    """Bring all but the weights of a model that other nodes have here; None where nobody has it."""
    found = [library(node, path) for node in holders(path)] or stocks(path)
    if not found:
        return None
    try:
        return fetch([Sender(each) for each in found], model=str(path))
    finally:
        for each in found:
            kill(each)
