"""The record of an actor: its class, how it was made, and its calls in their order, in a file; to be run again here.

A file is a row of entries, each a line of JSON and, as long as that says, what was pickled. The last entry of a process
that was killed may be cut off: what is before it counts.
"""

from __future__ import annotations

import contextlib
import json
import platform
import threading
import time
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actors.exceptions import ActorsError
from actors.home import log_dir, private_folder
from actors.messages import Argument, Outcome, Payload
from actors.sealed import open_arguments
from actors.serialize import dumps, dumps_arguments, loads
from actors.version import __version__

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator
    from typing import BinaryIO

    from actors.job import Job
    from actors.spec import Construction

FORMAT = 1
SUFFIX = ".calls"
MOST_FILES = 100  # of a device; the oldest go
MOST_BYTES = 1 << 30  # of one file; later calls are not recorded


class RecordError(ActorsError):
    """A file is no record of an actor, or cannot be run again here."""


class Record:
    """Writes the calls of one actor as they begin and end; safe for any thread. One that cannot be written ends.

    Attributes:
        path: of the file.
    """

    def __init__(self, construction: Construction, node: str) -> None:
        spec = construction.spec
        folder = private_folder(log_dir() / "records")
        _drop_oldest(folder)
        when = datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
        self.path = folder / f"{when}-{spec.class_name}-{spec.id}-{spec.life}{SUFFIX}"
        self._lock = threading.Lock()
        self._numbers: dict[tuple[str, int], int] = {}  # of the calls that run
        self._begun = 0
        self._written = 0
        self._file: BinaryIO | None = self.path.open("xb", buffering=0)
        self.path.chmod(0o600)
        about = {
            "entry": "actor", "format": FORMAT, "class": spec.class_name, "label": spec.label, "node": node,
            "life": spec.life, "is_async": construction.is_async, "has_state": construction.state is not None,
            "python": platform.python_version(), "actors": __version__,
        }  # fmt: skip
        state = construction.state or Payload(b"")
        self._write(about, construction.code, construction.arguments, state)

    def began(self, job: Job) -> None:
        """A call begins."""
        payload = job.call.payload
        if isinstance(payload, Argument):
            payload = dumps_arguments((payload.value,), {})
        if not isinstance(payload, Payload):
            return
        with self._lock:
            self._begun += 1
            self._numbers[job.key] = number = self._begun
        self._write({"entry": "call", "number": number, "method": job.method}, payload)

    def ended(self, job: Job, outcome: Outcome, payload: Payload, error: BaseException | None) -> None:
        """A call has had its answer."""
        with self._lock:
            number = self._numbers.pop(job.key, None)
        if number is None:
            return
        about: dict[str, Any] = {"entry": "end", "number": number, "outcome": outcome.name}
        if error is not None:
            about["error"] = said(error)
        self._write(about, payload if outcome is Outcome.VALUE else Payload(b""))

    def _write(self, about: dict[str, Any], *payloads: Payload) -> None:
        parts = [part for payload in payloads for part in (payload.pickle, *payload.buffers)]
        about["at"] = time.time()
        about["sizes"] = [[len(payload.pickle), *map(len, payload.buffers)] for payload in payloads]
        data = b"".join([json.dumps(about).encode(), b"\n", *parts])
        with self._lock:
            if self._file is None:
                return
            try:
                if self._written + len(data) > MOST_BYTES:
                    data = json.dumps({"entry": "full", "at": time.time(), "sizes": []}).encode() + b"\n"
                    self._file.write(data)
                    self._close()
                    return
                self._file.write(data)
                self._written += len(data)
            except OSError:  # the disk is full: the actor goes on
                self._close()

    def _close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(OSError):
                file.close()


def _drop_oldest(folder: Path) -> None:
    files = sorted(folder.glob(f"*{SUFFIX}"))
    for file in files[: max(0, len(files) - MOST_FILES + 1)]:
        file.unlink(missing_ok=True)


def said(error: BaseException) -> str:
    """Returns an error's class and words, on which two runs are compared."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # an error of the user's own may be unable to say anything
        return type(error).__name__


@dataclass(slots=True)
class RecordedCall:
    """One call of a record.

    Attributes:
        number: from 1, in the order in which the calls began.
        method: its name.
        outcome: ``"VALUE"``, ``"RAISED"``, …; None where the process ended before the call did.
        error: class and words of what it raised.
    """

    number: int
    method: str
    at: float
    outcome: str | None = None
    error: str | None = None
    arguments: Payload = field(default_factory=lambda: Payload(b""), repr=False)
    value: Payload | None = field(default=None, repr=False)

    def opened(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Returns its arguments.

        Raises:
            RecordError: they cannot be had any more.
        """
        try:
            return open_arguments(self.arguments)
        except Exception as error:
            raise RecordError(
                f"the arguments of call {self.number}, of {self.method}, cannot be had here: {said(error)}. "
                "A reference among them lives no longer than the program that made it"
            ) from error


class Recording:
    """A record that was read from a file.

    Attributes:
        about: what the file says of itself: ``class``, ``label``, ``node``, ``python``, ….
        calls: in the order in which they began.

    Raises:
        RecordError: the file is none.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        entries = _entries(Path(path))
        try:
            about, payloads = next(entries)
        except StopIteration:
            raise RecordError(f"{path} is no record of an actor's calls") from None
        if about.get("entry") != "actor" or about.get("format") != FORMAT:
            raise RecordError(f"{path} is no record of an actor's calls, or one of another version of this package")
        self.about = about
        self._code, self._arguments, self._state = payloads
        self.calls: list[RecordedCall] = []
        for entry, parts in entries:
            if entry["entry"] == "call":
                self.calls.append(RecordedCall(entry["number"], entry["method"], entry["at"], arguments=parts[0]))
            elif entry["entry"] == "end" and 0 < entry["number"] <= len(self.calls):
                call = self.calls[entry["number"] - 1]
                call.outcome, call.error = entry["outcome"], entry.get("error")
                call.value = parts[0] if entry["outcome"] == Outcome.VALUE.name else None

    def make(self) -> Any:
        """Makes the object anew, as it was before its first call. This runs the code that is in the file.

        Raises:
            RecordError: the class cannot be had here.
            Exception: whatever its constructor raises.
        """
        try:
            cls = loads(self._code)
        except Exception as error:
            raise RecordError(f"the class {self.about['class']} cannot be had here: {said(error)}") from error
        args, kwargs = open_arguments(self._arguments)
        thing = cls(*args, **kwargs)
        if self.about["has_state"]:
            thing.__actor_load__(loads(self._state))
        return thing


def is_same(call: RecordedCall, value: Any) -> bool:
    """Whether a value is what the call gave when it was recorded."""
    if call.value is None:
        return False
    found = dumps(value)
    if found.pickle == call.value.pickle and list(map(bytes, found.buffers)) == list(map(bytes, call.value.buffers)):
        return True
    try:
        return bool(loads(call.value) == value)
    except Exception:  # arrays say it for each element, and a class of the user's may say anything
        return False


def _entries(path: Path) -> Iterator[tuple[dict[str, Any], list[Payload]]]:
    try:
        with path.open("rb") as file:
            while line := file.readline():
                about = _parsed(line)
                if about is None:
                    return
                payloads = []
                for sizes in about["sizes"]:
                    parts = [file.read(size) for size in sizes]
                    if [len(part) for part in parts] != sizes:
                        return  # the process was killed while it wrote
                    payloads.append(Payload(parts[0], tuple(parts[1:])))
                yield about, payloads
    except OSError as error:
        raise RecordError(f"{path} cannot be read: {error.strerror}") from error


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        about = json.loads(line)
        sizes = about["sizes"]
        whole = all(size >= 0 for some in sizes for size in some) and isinstance(about["entry"], str)
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return about if whole and isinstance(about, dict) else None
