"""What is known to hurt."""

import asyncio
import logging
import os
import time

from engine import main, raised, ray, row


@ray.remote
class Node:
    """Calls others and is called."""

    def __init__(self):
        self.other = None

    def link(self, handles):
        self.other = handles[0]

    def ok(self):
        return "ok"

    def ask(self):
        return ray.get(self.other.back.remote())

    def back(self):
        return ray.get(self.other.ok.remote())

    def ask_self(self):
        return ray.get(ray.get_runtime_context().current_actor.ok.remote())


@row("A calls B, which calls A back, and both wait", why="`ActorCycleError`, which names the chain")
def cycle_of_two():
    a, b = Node.remote(), Node.remote()
    ray.get([a.link.remote([b]), b.link.remote([a])])
    outcome = raised(lambda: ray.get(a.ask.remote(), timeout=4))
    return "waits for ever" if outcome == "GetTimeoutError" else outcome


@row("an actor that calls itself and waits", why="`ActorCycleError`")
def cycle_of_one():
    outcome = raised(lambda: ray.get(Node.remote().ask_self.remote(), timeout=4))
    return "waits for ever" if outcome == "GetTimeoutError" else outcome


@row("a cycle through async methods is no deadlock")
def cycle_async():
    @ray.remote
    class Async:
        async def link(self, handles):
            self.other = handles[0]

        async def ask(self):
            return await self.other.back.remote()

        async def back(self):
            return await self.other.ok.remote()

        async def ok(self):
            return "ok"

    a, b = Async.remote(), Async.remote()
    ray.get([a.link.remote([b]), b.link.remote([a])])
    return raised(lambda: ray.get(a.ask.remote(), timeout=5))


@row("a class changed between two definitions: new actors use the new code")
def redefined():
    def define(value):
        @ray.remote
        class Changing:
            def f(self):
                return value

        return Changing

    first = define(1).remote()
    second = define(2).remote()
    return ray.get([first.f.remote(), second.f.remote()])


@row("a named actor taken by `get_if_exists` after its class was changed", why="an error says so")
def redefined_named():
    def define(value):
        @ray.remote
        class Changing:
            def f(self):
                return value

        return Changing.options(name="changing", get_if_exists=True)

    first = define(1).remote()
    ray.get(first.f.remote())
    return raised(lambda: ray.get(define(2).remote().f.remote()))


@row("a blocking call in an async method holds up all others of the actor")
def async_blocked():
    @ray.remote
    class Blocks:
        async def block(self):
            time.sleep(1)

        async def ok(self):
            return "ok"

    actor = Blocks.remote()
    ray.get(actor.ok.remote())
    actor.block.remote()
    began = time.monotonic()
    ray.get(actor.ok.remote())
    return "waits" if time.monotonic() - began > 0.5 else "answers"


@row("a method that returns its own handle's `self`")
def returns_self():
    @ray.remote
    class Fluent:
        def me(self):
            return self

    return raised(lambda: type(ray.get(Fluent.remote().me.remote(), timeout=5)).__name__)


@row("an actor's constructor that asks its own maker's other actor")
def constructor_calls():
    @ray.remote
    class Asks:
        def __init__(self, other):
            self.answer = ray.get(other.ok.remote())

        def get(self):
            return self.answer

    return raised(lambda: ray.get(Asks.remote(Node.remote()).get.remote(), timeout=8))


@row("many calls in flight: 10 000 answers")
def many_calls():
    node = Node.remote()
    return len(ray.get([node.ok.remote() for _ in range(10_000)], timeout=18))


@row("a call from a thread, and from several at once")
def from_threads():
    from concurrent.futures import ThreadPoolExecutor

    node = Node.remote()
    with ThreadPoolExecutor(4) as threads:
        return set(threads.map(lambda _: ray.get(node.ok.remote()), range(50)))


@row("an actor that makes threads, and calls from them")
def threads_in_actor():
    @ray.remote
    class Threads:
        def ask(self, handles):
            from concurrent.futures import ThreadPoolExecutor

            with ThreadPoolExecutor(3) as threads:
                return set(threads.map(lambda _: ray.get(handles[0].ok.remote()), range(10)))

    return ray.get(Threads.remote().ask.remote([Node.remote()]), timeout=8)


@row("`asyncio.run` in a plain method")
def asyncio_run_inside():
    @ray.remote
    class Runs:
        def run(self, handles):
            async def ask():
                return await handles[0].ok.remote()

            return asyncio.run(ask())

    return raised(lambda: ray.get(Runs.remote().run.remote([Node.remote()]), timeout=8))


@row("a child process made by an actor ends with it, after `kill`", why="ends with its actor")
def children_of_actor():
    import subprocess
    import sys

    @ray.remote
    class Makes:
        def make(self):
            self.child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(30)"])
            return self.child.pid

    actor = Makes.remote()
    pid = ray.get(actor.make.remote())
    ray.kill(actor)
    for _ in range(60):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return "ended"
        with open(f"/proc/{pid}/stat") as file:
            if file.read().rsplit(")", 1)[1].split()[0] == "Z":
                return "ended"
        time.sleep(0.05)
    os.kill(pid, 9)
    return "left behind"


@row("`logging` in an actor")
def logging_in_actor():
    @ray.remote
    class Logs:
        def log(self):
            logging.getLogger("probe").warning("seen")
            return len(logging.getLogger().handlers)

    return raised(lambda: ray.get(Logs.remote().log.remote()) >= 0)


@row("environment of a worker: `sys.argv`, the current folder, `__name__` of the program's classes")
def worker_environment():
    import sys

    @ray.remote
    class Env:
        def argv(self):
            return len(sys.argv) >= 1

        def cwd(self):
            return os.getcwd()

    env = Env.remote()
    return ray.get(env.argv.remote()), ray.get(env.cwd.remote()) == os.getcwd()


@row("a large argument (50 MB) and result")
def large():
    @ray.remote
    class Size:
        def size(self, x):
            return len(x)

        def make(self, n):
            return b"x" * n

    size = Size.remote()
    return ray.get(size.size.remote(b"x" * 50_000_000)), len(ray.get(size.make.remote(50_000_000)))


if __name__ == "__main__":
    main()
