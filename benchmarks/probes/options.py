"""Every option of Ray's actors, methods and tasks: taken, or refused aloud."""

from engine import main, part, raised, ray, row, start


@ray.remote
class Thing:
    """Does little."""

    def f(self):
        """Returns one."""
        return 1


@ray.remote
def task():
    """Returns two."""
    return 2


def given(**options):
    """Makes an actor with options and calls it."""
    return raised(lambda: ray.get(Thing.options(**options).remote().f.remote(), timeout=10))


def given_task(**options):
    """Runs a task with options."""
    return raised(lambda: ray.get(task.options(**options).remote(), timeout=10))


_HONOURED = {
    "num_cpus": 0.5,
    "num_gpus": 0,
    "memory": 1 << 20,
    "resources": {"gold": 1},
    "label_selector": {"zone": "a"},
    "scheduling_strategy": "SPREAD",
    "name": "an_option",
    "namespace": "of_option",
    "lifetime": "non_detached",
    "max_restarts": 2,
    "max_task_retries": 2,
    "max_concurrency": 3,
    "max_pending_calls": 10,
    "allow_out_of_order_execution": True,
    "runtime_env": {"env_vars": {"A": "b"}},
}
_OF_RAY = {
    "accelerator_type": None,
    "object_store_memory": 1 << 20,
    "placement_group": None,
    "placement_group_bundle_index": -1,
    "placement_group_capture_child_tasks": None,
    "enable_tensor_transport": False,
    "fallback_strategy": None,
    "enable_task_events": True,
}
_NOT_HERE = "refused aloud: it would be ignored"


def _row_of(name, value, why=None):
    # One that Ray's node may stumble over gets a cluster of its own.
    def probe():
        if why:
            start()
        return given(**{name: value})

    probe.__name__ = f"option_{name}"
    row(f"actor option `{name}={value!r}`", why=why, fresh=bool(why))(probe)


for _name, _value in _HONOURED.items():
    _row_of(_name, _value)
for _name, _value in _OF_RAY.items():
    _row_of(_name, _value, _NOT_HERE)


@row("an option nobody knows", why="a `TypeError`, as Python's own calls give")
def option_unknown():
    return given(colour="red")


@row("options out of range")
def option_out_of_range():
    return [
        given(max_restarts=-2),
        given(max_task_retries=-2),
        given(max_concurrency=-1),
        given(lifetime="for ever"),
        given(num_cpus=-1),
        given(scheduling_strategy="NEAR"),
    ]


@row("`max_concurrency=0`", why="refused where it is written: nothing could ever run")
def option_no_concurrency():
    return given(max_concurrency=0, num_cpus=0)


@row("`max_pending_calls=0`", why="refused where it is written, as `max_concurrency=0` is; -1 is no limit")
def option_no_pending():
    return given(max_pending_calls=0, num_cpus=0)


@row("options of the wrong type")
def option_wrong_type():
    return [given(max_restarts="many"), given(num_cpus="two"), given(resources=[1]), given(runtime_env="x")]


_MAY_BE_NONE = (
    "max_restarts", "max_task_retries", "max_pending_calls", "max_concurrency", "num_cpus", "name",
    "scheduling_strategy", "runtime_env", "resources", "lifetime", "namespace", "label_selector",
)  # fmt: skip


@row("`None` for an option", why="taken as not given; Ray raises a `TypeError` about integers", fresh=True, seconds=60)
def option_none():
    start()
    return {name: given(**{name: None}) for name in _MAY_BE_NONE}


@row("`resources={'CPU': 1}`")
def option_cpu_resource():
    return given(resources={"CPU": 1})


@row("fractions of a resource that are not whole")
def option_fractions():
    return given(num_cpus=0.5), given(num_cpus=1.5), given(resources={"gold": 0.25})


@row("`max_task_retries` with `max_restarts=0`")
def option_retries_without_restarts():
    return given(max_task_retries=3)


@row("`lifetime='detached'` without a name")
def option_detached_nameless():
    return given(lifetime="detached", num_cpus=0)


@row("`NodeAffinitySchedulingStrategy` to this node, hard and soft")
def option_affinity():
    strategy = part("util.scheduling_strategies").NodeAffinitySchedulingStrategy
    here = ray.get_runtime_context().get_node_id()
    return given(scheduling_strategy=strategy(here, soft=False)), given(scheduling_strategy=strategy(here, soft=True))


@row("`placement_group(...)`", why="there are no placement groups; `.group(size)` and `SPREAD` or `PACK` place several")
def placement_groups():
    module = part("util.placement_group")
    group = module.placement_group([{"CPU": 1}])
    ready = bool(group.wait(5))
    module.remove_placement_group(group)
    return ready


@row("`concurrency_groups` by `.options()`", why="taken there too; Ray takes it in the decorator only")
def option_groups():
    return given(concurrency_groups={"io": 2})


@row("method `.options()`: `num_returns`, `name`, `concurrency_group`, `max_task_retries`, `retry_exceptions`")
def options_of_method():
    thing = Thing.remote()
    return [
        raised(lambda: ray.get(thing.f.options(name="shown").remote())),
        raised(lambda: ray.get(thing.f.options(max_task_retries=1).remote())),
        raised(lambda: ray.get(thing.f.options(retry_exceptions=True).remote())),
        raised(lambda: ray.get(thing.f.options(num_returns=1).remote())),
    ]


@row("an option of a method nobody knows")
def option_unknown_of_method():
    thing = Thing.remote()
    return raised(lambda: ray.get(thing.f.options(colour="red").remote()))


@row("an unknown concurrency group at a call", seconds=30, why="a `ValueError`; Ray's worker dies or hangs")
def option_unknown_group():
    thing = Thing.remote()
    return raised(lambda: ray.get(thing.f.options(concurrency_group="none").remote(), timeout=5))


@row("`@method` with an unknown argument", why="a `TypeError`")
def method_decorator_unknown():
    return raised(lambda: ray.method(colour="red")(lambda self: None) and None)


@row("`@method` without brackets")
def method_decorator_bare():
    def define():
        @ray.remote
        class Bare:
            @ray.method
            def f(self):
                return 4

        return ray.get(Bare.remote().f.remote())

    return raised(define)


@row("task options `num_cpus`, `num_returns`, `max_retries`, `retry_exceptions`, `name`, `resources`, `runtime_env`")
def options_of_task():
    return [
        given_task(num_cpus=1),
        given_task(num_returns=1),
        given_task(max_retries=2),
        given_task(retry_exceptions=True),
        given_task(name="shown"),
        given_task(resources={"gold": 1}),
        given_task(runtime_env={"env_vars": {"A": "b"}}),
    ]


@row("task option `max_calls` in the decorator", why="refused aloud: workers are used again")
def option_max_calls():
    return raised(lambda: ray.get(ray.remote(max_calls=1)(lambda: 3).remote(), timeout=10))


@row("options of an actor given to a task", why="a `TypeError`")
def option_of_actor_on_task():
    return given_task(max_restarts=1)


if __name__ == "__main__":
    main()
