"""`import actors as ray`: the names are where Ray's users look for them."""

from __future__ import annotations

import subprocess
import sys

import pytest

import actors as ray
from actors import exceptions

# What a program of Ray's may touch after `import ray` alone, or import from.
NAMES = [
    "actor",
    "actor.ActorClass",
    "actor.ActorHandle",
    "actor.ActorMethod",
    "actor.exit_actor",
    "exceptions",
    "exceptions.RayError",
    "exceptions.RayTaskError",
    "exceptions.RayActorError",
    "exceptions.ActorDiedError",
    "exceptions.ActorUnavailableError",
    "exceptions.ObjectLostError",
    "exceptions.GetTimeoutError",
    "exceptions.OwnerDiedError",
    "exceptions.TaskCancelledError",
    "exceptions.NodeDiedError",
    "exceptions.PendingCallsLimitExceeded",
    "exceptions.WorkerCrashedError",
    "exceptions.RuntimeEnvSetupError",
    "exceptions.ActorUnschedulableError",
    "exceptions.TaskUnschedulableError",
    "exceptions.OutOfMemoryError",
    "util",
    "util.ActorPool",
    "util.inspect_serializability",
    "util.list_named_actors",
    "util.actor_pool.ActorPool",
    "util.queue.Queue",
    "util.queue.Empty",
    "util.queue.Full",
    "util.metrics.Counter",
    "util.metrics.Gauge",
    "util.metrics.Histogram",
    "util.scheduling_strategies.NodeAffinitySchedulingStrategy",
    "util.scheduling_strategies.NodeLabelSchedulingStrategy",
    "util.scheduling_strategies.PlacementGroupSchedulingStrategy",
]
OURS = ["util.Queue", "util.Executor", "util.progress.tqdm", "util.metrics.snapshot"]

_EACH = """
import sys
for name in sys.argv[1:]:
    for module in [module for module in sys.modules if module.partition(".")[0] == "actors"]:
        del sys.modules[module]
    import actors as ray
    value = ray
    for part in name.split("."):
        value = getattr(value, part)
    print(name)
"""


def test_each_name_is_there_after_the_import_alone() -> None:
    found = subprocess.check_output([sys.executable, "-c", _EACH, *NAMES, *OURS], text=True, timeout=60)
    assert found.split() == [*NAMES, *OURS]


def test_util_loads_what_is_touched_and_no_more() -> None:
    program = "import sys, actors; actors.util.metrics; print(*(n for n in sys.modules if n.startswith('actors.util')))"
    loaded = subprocess.check_output([sys.executable, "-c", program], text=True, timeout=60).split()
    assert loaded == ["actors.util", "actors.util.metrics"]


@pytest.mark.parametrize("module", [ray, ray.util, ray.actor])
def test_a_name_that_is_not_there_is_an_attribute_error(module: object) -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = module.no_such_name  # type: ignore[attr-defined]


def test_dir_lists_the_names() -> None:
    assert {"actor", "util"} <= set(dir(ray))
    assert {"ActorPool", "Queue", "metrics", "progress"} <= set(dir(ray.util))


def test_what_ray_catches_by_a_name_is_caught() -> None:
    caught_by = {
        exceptions.RayActorError: (
            exceptions.ActorDiedError, exceptions.ActorUnavailableError, exceptions.NodeDiedError,
        ),
        exceptions.RayError: (
            exceptions.RayTaskError, exceptions.RayActorError, exceptions.ObjectLostError, exceptions.GetTimeoutError,
            exceptions.TaskCancelledError, exceptions.WorkerCrashedError, exceptions.PendingCallsLimitExceeded,
            exceptions.RuntimeEnvSetupError, exceptions.ActorUnschedulableError, exceptions.OutOfMemoryError,
        ),
        exceptions.ObjectLostError: (exceptions.OwnerDiedError, exceptions.ObjectFetchTimedOutError),
        TimeoutError: (exceptions.GetTimeoutError,),
    }  # fmt: skip
    for base, classes in caught_by.items():
        assert all(issubclass(cls, base) for cls in classes)
    assert not issubclass(exceptions.RayTaskError, exceptions.RayActorError)


@pytest.mark.parametrize("name", ["NodeLabelSchedulingStrategy", "PlacementGroupSchedulingStrategy"])
def test_strategies_that_are_not_here_say_what_to_use(name: str) -> None:
    strategy = getattr(ray.util.scheduling_strategies, name)
    with pytest.raises(NotImplementedError, match=r"label_selector|scheduling_strategy"):
        strategy({})
    with pytest.raises(NotImplementedError):
        strategy(hard={}, placement_group=None)


class Strict(Exception):
    def __init__(self, pid: int, why: str) -> None:
        super().__init__(f"{pid}: {why}")
        self.pid = pid


@pytest.mark.usefixtures("cluster")
def test_a_task_error_has_what_rays_has() -> None:
    @ray.remote
    class Raiser:
        def plain(self) -> None:
            raise KeyError("missing")

        def own(self) -> None:
            raise Strict(7, "no")

        def pid(self) -> int:
            import os

            return os.getpid()

    raiser = Raiser.remote()
    with pytest.raises(KeyError) as caught:
        ray.get(raiser.plain.remote())
    error = caught.value
    assert isinstance(error, ray.exceptions.RayTaskError)
    assert type(error.cause) is KeyError
    assert error.cause.args == ("missing",)
    assert error.as_instanceof_cause() is error
    assert error.function_name == "plain"
    assert "KeyError: 'missing'" in error.traceback_str
    assert error.pid == ray.get(raiser.pid.remote())
    with pytest.raises(Strict) as own:
        ray.get(raiser.own.remote())
    assert own.value.pid == 7  # the user's own attribute
    with pytest.raises(ray.exceptions.RayActorError):
        ray.kill(raiser)
        ray.get(raiser.plain.remote())
