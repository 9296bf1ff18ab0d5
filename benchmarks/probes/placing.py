"""Where actors run, and in what environment."""

import os
import tempfile
import time

from engine import main, part, raised, ray, row, start


@ray.remote
class Thing:
    """Says where it is."""

    def ok(self):
        return "ok"

    def env(self, name):
        return os.environ.get(name)

    def cwd(self):
        return sorted(os.listdir("."))

    def module(self, name):
        import importlib

        return importlib.import_module(name).VALUE

    def node(self):
        return ray.get_runtime_context().get_node_id()


@row("actors by default: more than there are CPUs")
def more_than_cpus():
    things = [Thing.remote() for _ in range(5)]
    return ray.get([thing.ok.remote() for thing in things], timeout=18)


@row("`num_cpus=1` explicit: what is held, and the third waits on two CPUs")
def explicit_cpus():
    things = [Thing.options(num_cpus=1).remote() for _ in range(2)]
    ray.get([thing.ok.remote() for thing in things])
    left = ray.available_resources().get("CPU", 0) or 0  # Ray leaves out what is all taken
    third = Thing.options(num_cpus=1).remote()
    waits = raised(lambda: ray.get(third.ok.remote(), timeout=1))
    ray.kill(things[0])
    return left, waits, raised(lambda: ray.get(third.ok.remote(), timeout=8))


@row("an actor without `num_cpus` while all CPUs are held: it needs a node that has one, not a free one")
def default_waits_for_cpu():
    things = [Thing.options(num_cpus=1).remote() for _ in range(2)]
    ray.get([thing.ok.remote() for thing in things])
    plain = Thing.remote()
    waits = raised(lambda: ray.get(plain.ok.remote(), timeout=1))
    del things
    return waits, raised(lambda: ray.get(plain.ok.remote(), timeout=8))


@row("`num_cpus=0` while all CPUs are held")
def zero_cpus():
    things = [Thing.options(num_cpus=1).remote() for _ in range(2)]
    ray.get([thing.ok.remote() for thing in things])
    free = Thing.options(num_cpus=0).remote()
    return raised(lambda: ray.get(free.ok.remote(), timeout=8))


@row("a resource nobody has: pending, and `get` waits", why="waits as in Ray, says why; `placement_timeout=` bounds it")
def infeasible():
    thing = Thing.options(resources={"silver": 1}).remote()
    return raised(lambda: ray.get(thing.ok.remote(), timeout=1.5))


@row("more of a resource than any node has")
def too_much():
    thing = Thing.options(num_cpus=64).remote()
    return raised(lambda: ray.get(thing.ok.remote(), timeout=1.5))


@row("`num_gpus=1` on a machine without")
def no_gpu():
    thing = Thing.options(num_gpus=1).remote()
    return raised(lambda: ray.get(thing.ok.remote(), timeout=1.5))


@row("a custom resource is held and given back")
def custom():
    one = Thing.options(resources={"gold": 2}).remote()
    ray.get(one.ok.remote())
    two = Thing.options(resources={"gold": 1}).remote()
    waits = raised(lambda: ray.get(two.ok.remote(), timeout=1))
    ray.kill(one)
    return waits, raised(lambda: ray.get(two.ok.remote(), timeout=8))


@row("`kill` of a pending actor")
def kill_pending():
    thing = Thing.options(resources={"silver": 1}).remote()
    ref = thing.ok.remote()
    time.sleep(0.3)
    ray.kill(thing)
    return raised(lambda: ray.get(ref, timeout=8))


@row("`label_selector`: equal, `!x`, `in(…)`, `!in(…)`, and none that fits")
def labels():
    def on(selector):
        thing = Thing.options(label_selector=selector).remote()
        return raised(lambda: ray.get(thing.ok.remote(), timeout=2.5))

    return (
        on({"zone": "a"}),
        on({"zone": "!b"}),
        on({"zone": "in(a,b)"}),
        on({"zone": "!in(c,d)"}),
        on({"zone": "b"}),
        on({"other": "x"}),
        on({"other": "!x"}),
    )


@row("`label_selector` that cannot be read")
def labels_bad():
    return (
        raised(lambda: Thing.options(label_selector={"zone": 5}).remote()),
        raised(lambda: Thing.options(label_selector={"zone": "in(a"}).remote()),
        raised(lambda: Thing.options(label_selector={"": "a"}).remote()),
        raised(lambda: Thing.options(label_selector="zone").remote()),
    )


@row(
    "hard affinity to a node that is not there",
    why="waits, as that device may come back; `placement_timeout=` bounds it",
)
def affinity_unknown():
    strategy = part("util.scheduling_strategies").NodeAffinitySchedulingStrategy
    nobody = "e" * len(ray.get_runtime_context().get_node_id())

    def make():
        thing = Thing.options(scheduling_strategy=strategy(nobody, soft=False)).remote()
        return ray.get(thing.ok.remote(), timeout=5)

    return raised(make)


@row("soft affinity to a node that is not there")
def affinity_soft():
    strategy = part("util.scheduling_strategies").NodeAffinitySchedulingStrategy
    nobody = "e" * len(ray.get_runtime_context().get_node_id())
    thing = Thing.options(scheduling_strategy=strategy(nobody, soft=True)).remote()
    return raised(lambda: ray.get(thing.ok.remote(), timeout=8))


@row("affinity to this node's id")
def affinity_here():
    strategy = part("util.scheduling_strategies").NodeAffinitySchedulingStrategy
    here = ray.get_runtime_context().get_node_id()
    thing = Thing.options(scheduling_strategy=strategy(here, soft=False)).remote()
    return ray.get(thing.node.remote()) == here


@row("`runtime_env`: `env_vars`")
def env_vars():
    thing = Thing.options(runtime_env={"env_vars": {"PROBE_COLOUR": "red"}}).remote()
    return raised(lambda: ray.get(thing.env.remote("PROBE_COLOUR"), timeout=15)), os.environ.get("PROBE_COLOUR")


@row("`runtime_env` `env_vars` that are no strings, `working_dir` that is none")
def env_bad():
    return (
        raised(lambda: Thing.options(runtime_env={"env_vars": {"A": 5}}).remote()),
        raised(lambda: Thing.options(runtime_env={"working_dir": 5}).remote()),
    )


@row("`runtime_env` with a key nobody knows", why="refused; Ray takes it and does nothing")
def env_unknown_key():
    return raised(lambda: Thing.options(runtime_env={"colour": "red"}).remote() and None)


@row("`runtime_env` of `init` and of the actor: merged by name", fresh=True)
def env_merged():
    start(runtime_env={"env_vars": {"PROBE_A": "1", "PROBE_B": "1"}})
    thing = Thing.options(runtime_env={"env_vars": {"PROBE_B": "2"}}).remote()
    return raised(lambda: [ray.get(thing.env.remote(name), timeout=15) for name in ("PROBE_A", "PROBE_B")])


@row("`runtime_env` of an actor is its child's too")
def env_inherited():
    @ray.remote
    class Parent:
        def ask(self):
            return ray.get(Thing.options(num_cpus=0).remote().env.remote("PROBE_P"))

    parent = Parent.options(runtime_env={"env_vars": {"PROBE_P": "child"}}).remote()
    return raised(lambda: ray.get(parent.ask.remote(), timeout=15))


def _folder():
    folder = tempfile.mkdtemp()
    with open(os.path.join(folder, "probe_module.py"), "w") as file:
        file.write("VALUE = 41\n")
    with open(os.path.join(folder, "data.txt"), "w") as file:
        file.write("x")
    return folder


def _package():
    folder = os.path.join(tempfile.mkdtemp(), "probe_package")
    os.mkdir(folder)
    with open(os.path.join(folder, "__init__.py"), "w") as file:
        file.write("VALUE = 42\n")
    return folder


@row("`init(runtime_env=)`: `working_dir` and a module in it", fresh=True, seconds=60)
def working_dir_of_init():
    start(runtime_env={"working_dir": _folder()})
    thing = Thing.remote()
    return (
        raised(lambda: ray.get(thing.cwd.remote(), timeout=30)),
        raised(lambda: ray.get(thing.module.remote("probe_module"), timeout=20)),
    )


@row("`init(runtime_env=)`: `py_modules`", fresh=True, seconds=60)
def py_modules_of_init():
    start(runtime_env={"py_modules": [_package()]})
    return raised(lambda: ray.get(Thing.remote().module.remote("probe_package"), timeout=30))


@row("`working_dir` of one actor", why="a folder is taken there too; Ray wants the address of an archive")
def working_dir_of_actor():
    def make():
        thing = Thing.options(runtime_env={"working_dir": _folder()}).remote()
        return ray.get(thing.cwd.remote(), timeout=20)

    return raised(make)


@row("`py_modules` of one actor", why="a folder is taken there too; Ray wants the address of an archive")
def py_modules_of_actor():
    def make():
        thing = Thing.options(runtime_env={"py_modules": [_package()]}).remote()
        return ray.get(thing.module.remote("probe_package"), timeout=20)

    return raised(make)


@row(
    "`runtime_env`: a `working_dir` that is not there",
    why="`RuntimeEnvError`, as for every environment that cannot be made",
)
def working_dir_missing():
    def make():
        thing = Thing.options(runtime_env={"working_dir": "/nowhere/at/all"}).remote()
        return ray.get(thing.ok.remote(), timeout=10)

    return raised(make)


if __name__ == "__main__":
    main()
