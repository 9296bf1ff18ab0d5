"""Virtual environments of a node: one for each set of requirements and Python, laid over the node's own."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import importlib.util
import os
import random
import shutil
import signal
import site
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, STDOUT
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING

from actors.environment import PIP_SECONDS
from actors.exceptions import RuntimeEnvError
from actors.home import cache_dir, private_folder

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors.environment import Requirements

KEPT = 10  # virtual environments on this device that nobody uses
LOCK_SLICE_SECONDS = 0.1
LAST_LINES = 15
READY = "ready"  # the file that says that one was made to its end
_SHOWN = ("Collecting ", "Downloading ", "Building ", "Installing ", "Successfully ")


class Venvs:
    """Makes virtual environments, and keeps those in use from being cleared away.

    Each has a lock file beside it. Who makes one holds the lock alone, and so does pip, so that nobody starts anew
    where the pip of a killed node still writes; who uses one shares the lock for as long as the node lives.

    Args:
        node: name of this node, for messages.
    """

    def __init__(self, node: str) -> None:
        self._node = node
        self._making: dict[str, asyncio.Task[str]] = {}
        self._locks: list[int] = []

    async def python(self, wanted: Requirements, variables: dict[str, str], tell: Callable[[str], None]) -> str:
        """Returns the interpreter of an environment in which ``wanted`` is installed, made if it is not there.

        Args:
            wanted: the requirements.
            variables: environment variables for pip.
            tell: told how it goes.

        Raises:
            RuntimeEnvError: pip could not install them; the message holds what it said last.
        """
        own = f"{wanted.digest} {sys.version} {sys.prefix} {Path(__file__).parents[2]}"
        key = hashlib.sha256(own.encode()).hexdigest()[:32]
        task = self._making.get(key)
        if task is None or (task.done() and (task.cancelled() or task.exception() is not None)):
            make = self._make(key, wanted, {**os.environ, **variables}, tell)
            task = self._making[key] = asyncio.get_running_loop().create_task(make)
        # Shielded: another actor may wait for the same.
        return await asyncio.shield(task)

    async def _make(
        self, key: str, wanted: Requirements, variables: dict[str, str], tell: Callable[[str], None]
    ) -> str:
        shelf = private_folder(cache_dir() / "venvs")
        folder = shelf / key
        lock = os.open(shelf / f"{key}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            async with asyncio.timeout(PIP_SECONDS):
                if not await _is_there(folder, lock):
                    await self._install(folder, wanted, variables, tell, lock)
                    fcntl.flock(lock, fcntl.LOCK_SH)
            os.utime(folder)
        except BaseException as error:
            os.close(lock)
            if isinstance(error, TimeoutError):
                raise self._error(wanted, f"was not done within {PIP_SECONDS:g} s", []) from None
            if isinstance(error, OSError):
                raise self._error(wanted, f"failed: {error}", []) from error
            raise
        self._locks.append(lock)
        await asyncio.to_thread(_clear, shelf)
        return str(_interpreter(folder))

    async def _install(
        self, folder: Path, wanted: Requirements, variables: dict[str, str], tell: Callable[[str], None], lock: int
    ) -> None:
        began = time.monotonic()
        names = " ".join(wanted.lines)
        tell(f"pip install {names} …")
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        with_pip = importlib.util.find_spec("pip") is None  # else this Python's own pip does it, and quicker
        arguments = [] if with_pip else ["--without-pip"]
        await self._run(["-m", "venv", *arguments, str(folder)], wanted, variables, lock, lambda _: None)
        await asyncio.to_thread(_lay_over, folder)
        listing = folder / "requirements.txt"
        listing.write_text("".join(f"{line}\n" for line in wanted.lines))
        pip = ["-m", "pip", "--python", str(_interpreter(folder)), "install", "--disable-pip-version-check"]
        if with_pip:
            pip[2:4] = []
        await self._run(
            [*pip, "--no-input", "--progress-bar=off", *wanted.options, "-r", str(listing)],
            wanted, variables, lock, tell, str(_interpreter(folder)) if with_pip else sys.executable,
        )  # fmt: skip
        (folder / READY).touch()
        tell(f"pip install {names}: done in {time.monotonic() - began:.1f} s")

    async def _run(  # noqa: PLR0917 - two calls
        self,
        arguments: list[str],
        wanted: Requirements,
        variables: dict[str, str],
        lock: int,
        tell: Callable[[str], None],
        python: str = sys.executable,
    ) -> None:
        # Without PYTHONPATH: what lies there is not installed, and must not look as if it were.
        clean = {name: value for name, value in variables.items() if name not in {"PYTHONPATH", "PYTHONHOME"}}
        process = await asyncio.create_subprocess_exec(
            python, "-P", *arguments, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT, env=clean,
            start_new_session=True, pass_fds=(lock,),
        )  # fmt: skip
        said: deque[str] = deque(maxlen=LAST_LINES)
        assert process.stdout is not None
        try:
            async for raw in process.stdout:
                line = raw.decode(errors="replace").rstrip()
                said.append(line)
                if line.lstrip().startswith(_SHOWN):
                    tell(line.strip())
            code = await process.wait()
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # with the compilers it may have started
            await process.wait()
            raise
        if code != 0:
            raise self._error(wanted, f"failed with exit code {code}", said)

    def _error(self, wanted: Requirements, what: str, said: deque[str] | list[str]) -> RuntimeEnvError:
        lines = "".join(f"\n  {line}" for line in said)
        return RuntimeEnvError(
            f"runtime_env['pip']: on node {self._node}, pip install {' '.join(wanted.lines)} {what}"
            + (f". It last said:{lines}\n" if lines else ". ")
            + "Look at the names and versions, and whether that node reaches the package index."
        )

    async def close(self) -> None:
        """Ends what is being installed."""
        making = [task for task in self._making.values() if not task.done()]
        for task in making:
            task.cancel()
        await asyncio.gather(*making, return_exceptions=True)
        while self._locks:
            os.close(self._locks.pop())


async def _is_there(folder: Path, lock: int) -> bool:
    """Waits until an environment is there, sharing its lock, or is to be made, having the lock alone."""
    while True:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            if (folder / READY).exists():
                return True
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return False
        fcntl.flock(lock, fcntl.LOCK_UN)  # else two who both want to make it would stop each other
        await asyncio.sleep(LOCK_SLICE_SECONDS * random.uniform(0.5, 1.5))  # noqa: S311 - no secret


def _interpreter(folder: Path) -> Path:
    return folder / "bin" / "python"


def _lay_over(folder: Path) -> None:
    """Makes what is installed beside this Python importable in the new environment, after its own.

    ``--system-site-packages`` would not do: where this Python is in a virtual environment itself, it means what lies
    below that one.
    """
    below = site.getsitepackages()
    if site.ENABLE_USER_SITE:
        below.append(site.getusersitepackages())
    lines = [f"import site; site.addsitedir({path!r})" for path in below if os.path.isdir(path)]
    lines.append(str(Path(__file__).parents[2]))  # this package, however it came here
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    target = folder / "lib" / version / "site-packages" / "_actors_base.pth"
    target.write_text("".join(f"{line}\n" for line in lines))


def _clear(shelf: Path) -> None:
    """Removes virtual environments beyond `KEPT` that nobody uses, those first that were not used for longest."""
    folders = [path for path in shelf.iterdir() if path.is_dir()]
    folders.sort(key=lambda path: path.stat().st_mtime)
    for folder in folders[: max(0, len(folders) - KEPT)]:
        lock = os.open(shelf / f"{folder.name}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue  # in use
        else:
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(lock)
