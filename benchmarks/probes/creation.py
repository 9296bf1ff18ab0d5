"""How actors are made and named."""

import os

from engine import main, raised, ray, row, start


@ray.remote
class Counter:
    """Counts."""

    def __init__(self, value=0, *, step=1):
        self.value = value
        self.step = step

    def add(self, times=1):
        """Adds."""
        self.value += times * self.step
        return self.value

    def pid(self):
        """Returns its process."""
        return os.getpid()


@row("an actor keeps state; arguments by position and by name")
def actor_keeps_state():
    counter = Counter.remote(10, step=2)
    return ray.get([counter.add.remote(), counter.add.remote(times=3)])


@row("`.remote()` returns before the constructor has run")
def remote_returns_at_once():
    import time

    @ray.remote
    class Slow:
        def __init__(self):
            time.sleep(1.5)

        def ready(self):
            return True

    began = time.monotonic()
    slow = Slow.remote()
    return time.monotonic() - began < 1.0, ray.get(slow.ready.remote())


@row("`ray.remote(Class)` without decorator syntax")
def remote_as_function():
    class Plain:
        def f(self):
            return 7

    return ray.get(ray.remote(Plain).remote().f.remote())


@row("`@remote(options)` and `.options()` over it")
def options_override():
    @ray.remote(num_cpus=1, max_restarts=1)
    class Thing:
        def f(self):
            return 1

    return ray.get(Thing.options(num_cpus=0, max_restarts=0).remote().f.remote())


@row("calling the class itself instead of `.remote()`")
def class_called_directly():
    return raised(Counter)


@row("calling a method itself instead of `.remote()`")
def method_called_directly():
    counter = Counter.remote()
    return raised(lambda: counter.add())


@row("the plain class behind `@remote`", why="the plain class stays usable, as `Counter.cls`")
def plain_class():
    return raised(lambda: Counter.cls(5).add())


@row("inheriting from an actor class")
def inherit_from_actor_class():
    def derive():
        class More(Counter):
            pass

        return ray.get(ray.remote(More).remote().add.remote())

    return raised(derive)


@row("an actor class whose plain base has methods")
def inherits_plain_base():
    class Base:
        def hello(self):
            return "base"

    @ray.remote
    class Derived(Base):
        def hello(self):
            return "derived of " + super().hello()

    return ray.get(Derived.remote().hello.remote())


@row("wrong arguments of the constructor")
def constructor_wrong_arguments():
    return raised(lambda: Counter.remote(1, 2, 3)), raised(lambda: Counter.remote(unknown=1))


@row("wrong arguments of a method")
def method_wrong_arguments():
    counter = Counter.remote()
    return raised(lambda: counter.add.remote(1, 2)), raised(lambda: counter.add.remote(unknown=1))


@row("a method that does not exist")
def unknown_method():
    counter = Counter.remote()
    return raised(lambda: counter.nothing.remote())


@row("an attribute instead of a method")
def attribute_of_actor():
    counter = Counter.remote()
    return raised(lambda: counter.value)


@row("static and class methods of an actor")
def static_and_class_methods():
    @ray.remote
    class Kinds:
        @staticmethod
        def static(x):
            return x + 1

        @classmethod
        def of_class(cls, x):
            return cls.__name__, x

    kinds = Kinds.remote()
    return raised(lambda: ray.get(kinds.static.remote(1))), raised(lambda: ray.get(kinds.of_class.remote(2)))


@row("private methods and dunders: `_hidden`, `__call__`, `__len__`")
def private_methods():
    @ray.remote
    class Kinds:
        def _hidden(self):
            return "hidden"

        def __call__(self):
            return "called"

        def __len__(self):
            return 3

    kinds = Kinds.remote()
    return (
        raised(lambda: ray.get(kinds._hidden.remote())),
        raised(lambda: ray.get(kinds.__call__.remote())),
        raised(lambda: ray.get(kinds.__len__.remote())),
    )


@row("a property of an actor")
def property_of_actor():
    @ray.remote
    class Has:
        @property
        def size(self):
            return 3

    has = Has.remote()
    return raised(lambda: has.size.remote())


@row("a class made in a function, with a closure")
def closure_class():
    base = 40

    @ray.remote
    class Adds:
        def add(self, x):
            return base + x

    return ray.get(Adds.remote().add.remote(2))


@row("handles are equal, hash alike and pickle as arguments")
def handles_compare():
    @ray.remote
    class Same:
        def back(self, handles):
            return handles[0]

        def add_at(self, handles):
            return ray.get(handles[0].add.remote())

    counter = Counter.remote()
    same = Same.remote()
    back = ray.get(same.back.remote([counter]))
    return back == counter, hash(back) == hash(counter), ray.get(same.add_at.remote([counter]))


@row("a handle as `self`: `get_runtime_context().current_actor`")
def handle_of_self():
    @ray.remote
    class Me:
        def me(self):
            return ray.get_runtime_context().current_actor

        def who(self):
            return 5

    me = Me.remote()
    return ray.get(ray.get(me.me.remote()).who.remote())


@row("named actor: `get_actor` finds it, `list_named_actors`")
def named():
    counter = Counter.options(name="named").remote()
    ray.get(counter.add.remote())
    return ray.get(ray.get_actor("named").add.remote()), ray.util.list_named_actors()


@row("a name that is taken")
def name_taken():
    one = Counter.options(name="taken").remote()
    ray.get(one.add.remote())
    return raised(lambda: Counter.options(name="taken").remote())


@row("a name that nobody has")
def name_unknown():
    return raised(lambda: ray.get_actor("nobody"))


@row("an empty name, or one that is no string")
def name_bad():
    return (
        raised(lambda: Counter.options(name="").remote()),
        raised(lambda: Counter.options(name=5).remote()),
        raised(lambda: ray.get_actor("")),
    )


@row("a name is free again after `kill`")
def name_free_again():
    import time

    one = Counter.options(name="again").remote(5)
    ray.get(one.add.remote())
    ray.kill(one)
    for tries in range(100):
        try:
            two = Counter.options(name="again").remote(50)
            return ray.get(two.add.remote()), "at once" if tries == 0 else "soon"
        except ValueError:
            time.sleep(0.05)
    return "never"


@row("`get_if_exists` takes the one there is, and ignores its arguments")
def get_if_exists():
    one = Counter.options(name="shared", get_if_exists=True).remote(5)
    two = Counter.options(name="shared", get_if_exists=True).remote(500)
    return ray.get(one.add.remote()), ray.get(two.add.remote()), one == two


@row("`get_if_exists` without a name")
def get_if_exists_nameless():
    return raised(lambda: Counter.options(get_if_exists=True).remote())


@row("`get_if_exists` with another class", why="says that the class is another one instead of returning the old one")
def get_if_exists_other_class():
    @ray.remote
    class Other:
        def hello(self):
            return "other"

    one = Counter.options(name="other", get_if_exists=True).remote()
    ray.get(one.add.remote())
    two = raised(lambda: Other.options(name="other", get_if_exists=True).remote())
    return two if "Error" in two else "the old actor"


@row("namespaces keep names apart")
def namespaces():
    one = Counter.options(name="spaced", namespace="red").remote(1)
    ray.get(one.add.remote())
    return (
        raised(lambda: ray.get_actor("spaced")),
        ray.get(ray.get_actor("spaced", namespace="red").add.remote()),
        [found for found in ray.util.list_named_actors(all_namespaces=True) if found["name"] == "spaced"],
    )


@row("namespace of a program that gave none", why="one namespace, `default`, for all drivers: they find each other")
def namespace_default():
    space = ray.get_runtime_context().namespace
    return "of its own" if len(space) > 30 else space


@row("namespace given to `init`", fresh=True)
def namespace_of_init():
    start(namespace="blue")
    counter = Counter.options(name="x").remote()
    ray.get(counter.add.remote())
    found = ray.util.list_named_actors(all_namespaces=True)
    ray.shutdown()
    return found


@row(
    "a handle from `get_actor` does not keep the actor alive",
    why="a handle keeps its actor alive, however it was come by",
)
def get_actor_is_weak():
    import gc
    import time

    one = Counter.options(name="weak").remote()
    ray.get(one.add.remote())
    weak = ray.get_actor("weak")
    ray.get(weak.add.remote())
    del one
    gc.collect()
    deadline = time.monotonic() + 6
    while time.monotonic() < deadline:
        try:
            ray.get(weak.add.remote(), timeout=5)
        except ray.exceptions.RayActorError as error:
            return "ended: " + type(error).__name__
        time.sleep(0.1)
    return "lives"


@row("the first `.remote()` calls `init`", fresh=True)
def init_by_itself():
    before = ray.is_initialized()
    result = ray.get(Counter.options(num_cpus=0).remote().add.remote())
    after = ray.is_initialized()
    ray.shutdown()
    return before, result, after


@row("`init` twice", fresh=True, why="with equal arguments the cluster that is there, with others an error")
def init_twice():
    start()
    again = raised(lambda: start() and None), raised(lambda: start(ignore_reinit_error=True) and None)
    ray.shutdown()
    return again


@row("`shutdown` twice, and calls after it", fresh=True)
def shutdown_twice():
    start()
    counter = Counter.remote()
    ref = counter.add.remote()
    ray.get(ref)
    ray.shutdown()
    ray.shutdown()
    return (
        ray.is_initialized(),
        "Error" in raised(lambda: ray.get(ref, timeout=5)),
        "no error" not in raised(lambda: counter.add.remote()),
    )


@row("`nodes()`, `cluster_resources()`, `available_resources()`")
def cluster_views():
    total = ray.cluster_resources()
    return len(ray.nodes()), total["CPU"], total.get("gold"), ray.available_resources().get("gold")


@row("a node as `nodes()` shows it", why="a typed value with attributes instead of a dict in CamelCase")
def node_shape():
    node = ray.nodes()[0]
    return "dict" if isinstance(node, dict) else "attributes", raised(lambda: bool(node["Alive"]))


if __name__ == "__main__":
    main()
