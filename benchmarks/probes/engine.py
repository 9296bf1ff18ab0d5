"""What the probes stand on: the engine that is asked, Ray or this package, and a way to say what it did."""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

ENGINE = os.environ.get("FEATURES_ENGINE", "actors")
ray = importlib.import_module(ENGINE)

# The same small machine under both names: two CPUs, a resource of its own and a label.
_MACHINE = {"num_cpus": 2, "resources": {"gold": 2}, "labels": {"zone": "a"}, "log_to_driver": False}
_START = {
    "actors": {"address": "local"},
    "ray": {"include_dashboard": False, "object_store_memory": 200 << 20, "logging_level": "ERROR"},
}
# One thing with two names.
_SAME = {
    "RayTaskError": "TaskError",
    "RayActorError": "ActorError",
    "RayError": "ActorsError",
    "RuntimeEnvSetupError": "RuntimeEnvError",
    "OwnerDiedError": "ObjectLostError",
    # Classes of their own, which are also the one that a program would name.
    "ActorClassInheritanceException": "TypeError",
    "SerializationError": "TypeError",
    "TaskError(TaskCancelledError)": "TaskCancelledError",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One thing a program may rely on.

    Attributes:
        name: name of the probe.
        about: what it does, in words of the table.
        probe: does it and returns what came of it.
        why: where the other answer is given here on purpose: the reason.
        fresh: it begins and ends the cluster itself.
        seconds: after these it hangs.
    """

    name: str
    about: str
    probe: Callable[[], Any]
    why: str | None
    fresh: bool
    seconds: float


ROWS: dict[str, Row] = {}
_said: list[str] = []


def row(about: str, *, why: str | None = None, fresh: bool = False, seconds: float = 45.0) -> Callable[..., Any]:
    """Makes a row of the table of a function."""

    def note(probe: Callable[[], Any]) -> Callable[[], Any]:
        ROWS[probe.__name__] = Row(probe.__name__, about, probe, why, fresh, seconds)
        return probe

    return note


def part(name: str) -> Any:
    """Returns a module of the engine: ``part("util.queue")``."""
    return importlib.import_module(f"{ENGINE}.{name}")


def start(**more: Any) -> Any:
    """Starts the engine on its small machine."""
    return ray.init(**{**_MACHINE, **_START[ENGINE], **more})


def raised(call: Callable[[], Any]) -> str:
    """Returns the name of what a call raises, or ``no error`` and its value; keeps what it said."""
    try:
        value = call()
    except BaseException as error:
        return kind(error)
    return f"no error: {value!r}"


def kind(error: BaseException) -> str:
    """Returns the name of an error's class in our spelling; keeps what it said."""
    name = type(error).__name__
    _said.append(f"{name}: {error}")
    task_error = getattr(ray.exceptions, "RayTaskError", ())
    if isinstance(error, task_error):  # RayTaskError(ValueError) there, ValueError here; both are of both classes
        inner = name.removeprefix("RayTaskError").strip("()")
        inner = _SAME.get(inner, inner)
        name = f"TaskError({inner})" if inner not in {"", "TaskError"} else "TaskError"
    return _SAME.get(name, name)


def eventually(condition: Callable[[], Any], within: float = 8.0) -> Any:
    """Returns the first true answer, or the last one when ``within`` seconds are over."""
    deadline = time.monotonic() + within
    while not (answer := condition()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return answer


def main() -> None:
    """Runs the rows named on the command line; writes a line of JSON for each, or lists them all."""
    if sys.argv[1:] == ["--list"]:
        rows = [{"name": r.name, "about": r.about, "why": r.why, "seconds": r.seconds} for r in ROWS.values()]
        print(json.dumps(rows))
        return
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the engine prints is no outcome
    for name in sys.argv[1:]:
        _said.clear()
        probed = ROWS[name]
        if not probed.fresh and not ray.is_initialized():
            start()
        elif probed.fresh and ray.is_initialized():
            ray.shutdown()
        print(json.dumps({"name": name, "begins": True}), file=out, flush=True)
        try:
            shown = repr(probed.probe())
        except BaseException as error:
            shown = f"raises {kind(error)}"
        if probed.fresh:
            ray.shutdown()
        print(json.dumps({"name": name, "shown": shown, "said": list(_said)}), file=out, flush=True)
    ray.shutdown()
