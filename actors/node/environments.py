"""Environments on a node: folders unpacked once, virtual environments, and what a worker is started with."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import re
import shutil
import sys
import zipfile
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from actors.archive import extract
from actors.exceptions import ActorDiedError, RuntimeEnvError
from actors.node.venvs import Venvs
from actors.parcels import PIECE_BYTES, read_piece

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from actors.address import Address
    from actors.environment import Environment, Parcel
    from actors.messages import Payload
    from actors.process import Process

UNUSED_FOLDERS = 8  # kept for the next actor that asks for the same
_VARIABLE = re.compile(r"\$\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Launch:
    """How a worker is started.

    Attributes:
        python: the interpreter.
        variables: beyond those of the node.
        folder: current folder; None for the node's.
        path: what goes before all else on ``sys.path``.
    """

    python: str
    variables: dict[str, str] = field(default_factory=dict)
    folder: str | None = None
    path: tuple[str, ...] = ()


PLAIN = Launch(sys.executable)


class Lease:
    """An environment in use: what it is made of stays until `end`."""

    def __init__(self, launch: Launch, node: str, keys: str, give_back: Callable[[], None]) -> None:
        self.launch = launch
        self._node = node
        self._keys = keys
        self._give_back: Callable[[], None] | None = give_back

    def end(self) -> None:
        """Gives it back; may be called again."""
        give_back, self._give_back = self._give_back, None
        if give_back is not None:
            give_back()

    def refused(self, why: str) -> RuntimeEnvError:
        """Returns the error for a worker that did not start in it."""
        return RuntimeEnvError(f"no process starts on node {self._node} in this runtime_env ({self._keys}): {why}")


class Environments:
    """Makes what actors of this node are to run in.

    What is unpacked lies in the cluster's run folder and ends with it, since actors may write there; a virtual
    environment is kept for the next cluster.

    Args:
        process: this node's.
        node_name: its name.
        say: told, with the driver concerned, how it goes.
    """

    def __init__(self, process: Process, node_name: str, say: Callable[[Address, str], None]) -> None:
        self._process = process
        self._node = node_name
        self._say = say
        self._folder: Path = process.folder / f"env-{process.id}"
        self._fetching: dict[str, asyncio.Task[Path]] = {}
        self._users: dict[str, int] = {}  # of each unpacked folder; the one longest unused comes first
        self._numbers = itertools.count()
        self._venvs = Venvs(node_name)

    async def lease(self, environment: Environment, driver: Address | None) -> Lease:
        """Makes an environment, or takes what is there of it.

        Raises:
            RuntimeEnvError: it cannot be made; the message says which key is at fault.
        """

        def tell(line: str) -> None:
            if driver is not None:
                self._say(driver, line)

        digests = [parcel.digest for parcel in environment.parcels]
        for digest in digests:
            self._users[digest] = self._users.pop(digest, 0) + 1
        try:
            folders = [str(await self._unpacked(parcel)) for parcel in environment.parcels]
            folder = folders[0] if environment.working_dir is not None else None
            variables = _variables(environment.env_vars, folder)
            python = sys.executable
            if environment.pip is not None:
                python = await self._venvs.python(environment.pip, variables, tell)
        except BaseException:
            self._give_back(digests)
            raise
        launch = Launch(python, variables, folder, tuple(folders))
        keys = ", ".join(_keys_of(environment))
        return Lease(launch, self._node, keys, lambda: self._give_back(digests))

    def _give_back(self, digests: list[str]) -> None:
        for digest in digests:
            self._users[digest] = self._users.pop(digest) - 1
        unused = [digest for digest, users in self._users.items() if users == 0 and self._is_settled(digest)]
        for digest in unused[: max(0, len(unused) - UNUSED_FOLDERS)]:
            del self._users[digest]
            self._fetching.pop(digest, None)
            self._remove(digest)

    def _is_settled(self, digest: str) -> bool:
        """Whether nothing is being written for it; who wanted it may have given up meanwhile."""
        task = self._fetching.get(digest)
        return task is None or task.done()

    def _remove(self, digest: str) -> None:
        (self._folder / digest).unlink(missing_ok=True)
        # Out of the way at once, since the same may be asked for again; what is large is removed on a thread.
        aside = self._folder / f"old-{next(self._numbers)}"
        with contextlib.suppress(FileNotFoundError):  # it was never unpacked
            (self._folder / "unpacked" / digest).rename(aside)
            self._process.loop.run_in_executor(None, partial(shutil.rmtree, aside, ignore_errors=True))

    # -- folders ------------------------------------------------------------------------------------------------

    async def _unpacked(self, parcel: Parcel) -> Path:
        task = self._fetching.get(parcel.digest)
        if task is None or (task.done() and (task.cancelled() or task.exception() is not None)):
            task = self._fetching[parcel.digest] = self._process.loop.create_task(self._fetch(parcel))
        # Shielded: another actor may wait for the same.
        return await asyncio.shield(task)

    async def _fetch(self, parcel: Parcel) -> Path:
        archive = self._folder / parcel.digest
        target = self._folder / "unpacked" / parcel.digest
        try:
            if not archive.exists():
                await self._bring(parcel, archive)
            await asyncio.to_thread(extract, archive, target)
        except (OSError, zipfile.BadZipFile) as error:
            raise self._error(parcel, f"could not be unpacked: {error}") from error
        return target

    async def _bring(self, parcel: Parcel, archive: Path) -> None:
        archive.parent.mkdir(mode=0o700, exist_ok=True)
        draft = archive.with_name(f"{archive.name}.new")
        problem: Exception | None = None
        for where, service, method in self._sources(parcel):
            try:
                if await self._copy(where, service, method, parcel.digest, draft):
                    draft.rename(archive)
                    return
            except (TimeoutError, ActorDiedError) as error:
                problem = problem or error
        raise self._error(parcel, "could not be had from the program that packed it, nor from any node") from problem

    async def _copy(self, where: Address, service: str, method: str, digest: str, draft: Path) -> bool:
        """Copies a parcel piece by piece; returns whether it was there."""
        with draft.open("wb") as file:
            while True:
                piece = await self._process.ask(where, service, method, digest, file.tell())
                if piece is None:
                    return False
                data = piece.buffers[0]
                await asyncio.to_thread(file.write, data)
                if len(data) < PIECE_BYTES:
                    return True

    def _sources(self, parcel: Parcel) -> Iterator[tuple[Address, str, str]]:
        yield parcel.source, "parcels", "fetch"
        # Its maker may be gone, and the actor be made anew elsewhere.
        for node in list(self._process.directory.values()):
            if node.process != self._process.id:
                yield node, "node", "parcel"

    def _error(self, parcel: Parcel, what: str) -> RuntimeEnvError:
        key, _, path = parcel.label.partition(" ")
        return RuntimeEnvError(f"runtime_env[{key!r}]: {path} {what} (node {self._node})")

    async def parcel(self, digest: str, offset: int) -> Payload | None:
        """Returns a piece of a parcel that is here, for another node; see `read_piece`."""
        return await asyncio.to_thread(read_piece, self._folder, digest, offset)

    async def close(self) -> None:
        """Ends what is being made."""
        for task in self._fetching.values():
            task.cancel()
        await self._venvs.close()


def _variables(wanted: dict[str, str], folder: str | None) -> dict[str, str]:
    """Returns the variables to set; ``${NAME}`` is the node's own value, empty where it has none."""
    found = {name: _VARIABLE.sub(lambda match: os.environ.get(match[1], ""), value) for name, value in wanted.items()}
    own = os.environ.get("PYTHONPATH", "")
    if folder is not None and own:
        own = os.pathsep.join(os.path.abspath(part) for part in own.split(os.pathsep) if part)
    if own and ("PYTHONPATH" in found or folder is not None):
        # This package itself may have come by it.
        found["PYTHONPATH"] = os.pathsep.join(filter(None, [found.get("PYTHONPATH"), own]))
    return found


def _keys_of(environment: Environment) -> list[str]:
    said = {
        "env_vars": environment.env_vars,
        "working_dir": environment.working_dir,
        "py_modules": environment.py_modules,
        "pip": environment.pip,
    }
    return [key for key, value in said.items() if value]
