"""Kinds of methods, and the order in which calls run."""

import asyncio
import threading
import time

from engine import main, raised, ray, row


@ray.remote
class Gives:
    """Gives several values."""

    def pair(self):
        return 1, 2

    def three(self):
        return [1, 2, 3]

    def one(self):
        return 1

    def none(self):
        return None

    @ray.method(num_returns=2)
    def decorated(self):
        return "a", "b"

    def count(self, n):
        for i in range(n):
            yield i

    async def acount(self, n):
        for i in range(n):
            await asyncio.sleep(0)
            yield i

    def breaks(self, n):
        for i in range(n):
            yield i
        raise ValueError("broken")


@ray.remote
class Async:
    """Waits without blocking."""

    def __init__(self):
        self.seen = []
        self.event = asyncio.Event()

    async def wait(self):
        await self.event.wait()
        return "woken"

    async def wake(self):
        self.event.set()

    async def sleep(self, seconds):
        await asyncio.sleep(seconds)
        return seconds

    async def note(self, x):
        self.seen.append(x)
        return list(self.seen)

    def plain(self):
        return threading.current_thread() is threading.main_thread(), "plain"

    async def all(self):
        return self.seen

    async def loop_running(self):
        return asyncio.get_running_loop().is_running()


@row("`num_returns=2` gives two references")
def num_returns_two():
    gives = Gives.remote()
    return ray.get(gives.pair.options(num_returns=2).remote()), ray.get(gives.decorated.remote())


@row("`num_returns=0` gives None")
def num_returns_zero():
    return raised(lambda: Gives.remote().none.options(num_returns=0).remote())


@row("`num_returns=1` of a method that returns a tuple")
def num_returns_one_tuple():
    return ray.get(Gives.remote().pair.remote())


@row("`num_returns=0` of a method that returns a value")
def num_returns_zero_value():
    return raised(lambda: Gives.remote().one.options(num_returns=0).remote())


@row("more values than `num_returns`")
def num_returns_too_many():
    one, two = Gives.remote().three.options(num_returns=2).remote()
    return raised(lambda: ray.get(one)), raised(lambda: ray.get(two))


@row("fewer values than `num_returns`")
def num_returns_too_few():
    refs = Gives.remote().pair.options(num_returns=3).remote()
    return [raised(lambda ref=ref: ray.get(ref)) for ref in refs]


@row("`num_returns=2` of a method that returns no sequence")
def num_returns_no_sequence():
    one, two = Gives.remote().one.options(num_returns=2).remote()
    return raised(lambda: ray.get(one)), raised(lambda: ray.get(two))


@row("`num_returns=2` of a method that raises")
def num_returns_raises():
    @ray.remote
    class Bad:
        def f(self):
            raise KeyError("k")

    one, two = Bad.remote().f.options(num_returns=2).remote()
    return raised(lambda: ray.get(one)), raised(lambda: ray.get(two))


@row("`num_returns=3` of a generator method")
def num_returns_generator():
    refs = Gives.remote().count.options(num_returns=3).remote(3)
    return ray.get(refs)


@row("a generator method: an iterator of references")
def generator():
    return [ray.get(ref) for ref in Gives.remote().count.remote(3)]


@row("an async generator method, read with `for` and with `async for`")
def async_generator():
    gives = Gives.remote()

    async def read():
        return [await ref async for ref in gives.acount.remote(3)]

    return [ray.get(ref) for ref in gives.acount.remote(3)], asyncio.run(read())


@row("a generator that raises: values first, then the error, then the end")
def generator_raises():
    seen = []
    stream = Gives.remote().breaks.remote(2)
    for ref in stream:
        seen.append(raised(lambda ref=ref: ray.get(ref)))
    return seen


@row("`yield from` an iterator in a generator method", why="it works; Ray asks the iterator for `send`")
def generator_yield_from():
    @ray.remote
    class Gives:
        def count(self, n):
            yield from range(n)

    return raised(lambda: [ray.get(ref) for ref in Gives.remote().count.remote(3)])


@row(
    "`num_returns='streaming'` given, to a generator and to a plain method",
    why="any method that returns an iterable can be streamed",
)
def streaming_given():
    gives = Gives.remote()
    return (
        [ray.get(ref) for ref in gives.count.options(num_returns="streaming").remote(2)],
        raised(lambda: [ray.get(ref) for ref in gives.one.options(num_returns="streaming").remote()]),
    )


@row("`num_returns='dynamic'`", why="refused: Ray itself has deprecated it")
def dynamic_given():
    gives = Gives.remote()
    return raised(lambda: [ray.get(ref) for ref in ray.get(gives.count.options(num_returns="dynamic").remote(2))])


@row("`get` of the generator itself")
def get_generator():
    return raised(lambda: type(ray.get(Gives.remote().count.remote(2), timeout=5)).__name__)


@row("`wait` on a generator")
def wait_generator():
    stream = Gives.remote().count.remote(2)
    return raised(lambda: len(ray.wait([stream], timeout=5)[0])), [ray.get(ref) for ref in stream]


@row("`next()` after the end")
def generator_end():
    stream = Gives.remote().count.remote(1)
    return ray.get(next(stream)), raised(lambda: next(stream)), raised(lambda: next(stream))


@row("a generator nobody reads: how many values it makes ahead", why="back-pressure: it stops when nobody reads")
def generator_ahead():
    @ray.remote
    class Makes:
        def __init__(self):
            self.made = 0

        def stream(self):
            for i in range(3000):
                self.made = i + 1
                yield i

        def how_many(self):
            return self.made

    makes = Makes.options(max_concurrency=2).remote()
    stream = makes.stream.remote()
    ray.get(next(stream))
    before = -1
    while (made := ray.get(makes.how_many.remote())) != before:
        before = made
        time.sleep(0.5)
    return "all" if made == 3000 else "some"


@row("a generator closed early ends in the actor", why="it does; in Ray it goes on")
def generator_closed():
    @ray.remote
    class Makes:
        def __init__(self):
            self.ended = False

        async def stream(self):
            try:
                while True:
                    await asyncio.sleep(0.01)
                    yield 1
            finally:
                self.ended = True

        async def has_ended(self):
            return self.ended

    makes = Makes.remote()
    stream = makes.stream.remote()
    ray.get(next(stream))
    del stream
    for _ in range(60):
        if ray.get(makes.has_ended.remote()):
            return "ended"
        time.sleep(0.05)
    return "goes on"


@row("calls of one caller run in the order they were made")
def order():
    @ray.remote
    class Log:
        def __init__(self):
            self.seen = []

        def note(self, x):
            self.seen.append(x)

        def all(self):
            return self.seen

    log = Log.remote()
    for i in range(100):
        log.note.remote(i)
    return ray.get(log.all.remote()) == list(range(100))


@row(
    "a call whose argument is late holds back those after it",
    why="order holds for async actors too; `allow_out_of_order_execution=True` gives it up",
)
def order_with_late_argument():
    slow = Async.remote()
    log = Async.remote()
    ray.get([slow.all.remote(), log.all.remote()])
    late = slow.sleep.remote(0.6)
    first = log.note.remote(late)
    second = log.note.remote("second")
    ray.get([first, second])
    return ray.get(second)


@row("the same for a plain (not async) actor")
def order_with_late_argument_plain():
    @ray.remote
    class Log:
        def __init__(self):
            self.seen = []

        def note(self, x):
            self.seen.append(x)
            return list(self.seen)

    log = Log.remote()
    first = log.note.remote(Async.remote().sleep.remote(0.6))
    second = log.note.remote("second")
    ray.get([first, second])
    return ray.get(second)


@row("`allow_out_of_order_execution`: a call may overtake one whose argument is late")
def out_of_order():
    @ray.remote
    class Log:
        def __init__(self):
            self.seen = []

        def note(self, x):
            self.seen.append(x)
            return list(self.seen)

    log = Log.options(allow_out_of_order_execution=True).remote()
    ray.get(log.note.remote("ready"))
    first = log.note.remote(Async.remote().sleep.remote(0.8))
    second = log.note.remote("second")
    ray.get([first, second])
    return ray.get(second)


@row("async methods interleave; one waits for another")
def async_interleaves():
    actor = Async.remote()
    waiting = actor.wait.remote()
    actor.wake.remote()
    return ray.get(waiting, timeout=5)


@row("an async actor runs 1000 calls at once")
def async_thousand():
    actor = Async.remote()
    ray.get(actor.loop_running.remote())
    began = time.monotonic()
    ray.get([actor.sleep.remote(0.5) for _ in range(1000)], timeout=15)
    return time.monotonic() - began < 5


@row("`max_concurrency=2` of an async actor")
def async_bounded():
    @ray.remote
    class Most:
        def __init__(self):
            self.now = self.most = 0

        async def work(self):
            self.now += 1
            self.most = max(self.most, self.now)
            await asyncio.sleep(0.05)
            self.now -= 1

        async def seen(self):
            return self.most

    most = Most.options(max_concurrency=2).remote()
    ray.get([most.work.remote() for _ in range(10)])
    return ray.get(most.seen.remote())


@row(
    "a plain method of an async actor: on the main thread?",
    why="it is, between two steps of the coroutines; not in Ray",
)
def plain_of_async():
    actor = Async.remote()
    return ray.get(actor.plain.remote())


@row("`await ref` and `asyncio.gather` in the driver and in an async method")
def awaits():
    actor = Async.remote()

    @ray.remote
    class Asks:
        async def ask(self, handles):
            return await asyncio.gather(*[handles[0].sleep.remote(0) for _ in range(3)])

    async def ask():
        return await asyncio.gather(*[actor.sleep.remote(0) for _ in range(2)]), await actor.sleep.remote(0)

    return asyncio.run(ask()), ray.get(Asks.remote().ask.remote([actor]))


@row("`get` inside an async method")
def get_in_async():
    @ray.remote
    class Asks:
        async def ask(self, handles):
            return ray.get(handles[0].sleep.remote(0))

    return raised(lambda: ray.get(Asks.remote().ask.remote([Async.remote()]), timeout=8))


@row("threaded actor: `max_concurrency=2` of plain methods")
def threaded():
    @ray.remote
    class Meets:
        def __init__(self):
            self.barrier = threading.Barrier(2)

        def meet(self):
            self.barrier.wait(5)
            return True

    meets = Meets.options(max_concurrency=2).remote()
    return ray.get([meets.meet.remote(), meets.meet.remote()])


@row("a plain actor runs one call at a time, on its main thread")
def plain_thread():
    @ray.remote
    class Where:
        def __init__(self):
            self.made = threading.get_ident()

        def main(self):
            return threading.current_thread() is threading.main_thread(), self.made == threading.get_ident()

    return ray.get(Where.remote().main.remote())


@row("concurrency groups: by decorator, by `.options()` at the call, and the default group apart")
def concurrency_groups():
    @ray.remote(concurrency_groups={"io": 2, "compute": 1})
    class Groups:
        def __init__(self):
            self.barrier = threading.Barrier(2)

        @ray.method(concurrency_group="io")
        def meet(self):
            self.barrier.wait(5)
            return "io"

        @ray.method(concurrency_group="compute")
        def compute(self):
            return "compute"

        def plain(self):
            return "default"

        def meet_any(self):
            self.barrier.wait(5)
            return "any"

    groups = Groups.remote()
    return (
        ray.get([groups.meet.remote(), groups.meet.remote(), groups.compute.remote(), groups.plain.remote()]),
        ray.get([groups.meet_any.options(concurrency_group="io").remote(), groups.meet.remote()]),
    )


@row("concurrency groups of async methods")
def concurrency_groups_async():
    @ray.remote(concurrency_groups={"one": 1})
    class Groups:
        def __init__(self):
            self.now = self.most = 0

        @ray.method(concurrency_group="one")
        async def work(self):
            self.now += 1
            self.most = max(self.most, self.now)
            await asyncio.sleep(0.02)
            self.now -= 1

        async def seen(self):
            return self.most

    groups = Groups.remote()
    ray.get([groups.work.remote() for _ in range(5)])
    return ray.get(groups.seen.remote())


@row("a method of an undeclared concurrency group", seconds=30, why="a `ValueError` that names the groups")
def concurrency_group_undeclared():
    def define():
        @ray.remote(concurrency_groups={"io": 1})
        class Groups:
            @ray.method(concurrency_group="typo")
            def f(self):
                return 1

        return ray.get(Groups.remote().f.remote(), timeout=5)

    return raised(define)


@row("`max_pending_calls`: one call too many")
def max_pending_calls():
    actor = Gives.options(max_pending_calls=2).remote()

    @ray.remote
    class Slow:
        def sleep(self):
            time.sleep(1)

    slow = Slow.options(max_pending_calls=2).remote()
    calls = [slow.sleep.remote(), slow.sleep.remote()]
    outcome = raised(lambda: slow.sleep.remote())
    ray.get(calls)
    return outcome, raised(lambda: ray.get(slow.sleep.remote())), raised(lambda: ray.get(actor.one.remote()))


@row("thread-local state of a plain actor stays")
def thread_locals():
    @ray.remote
    class Keeps:
        def __init__(self):
            self.local = threading.local()
            self.local.x = 5

        def x(self):
            return self.local.x

    return raised(lambda: ray.get(Keeps.remote().x.remote()))


@row("methods with `*args`, `**kwargs`, defaults, keyword-only, a parameter called `self_`")
def signatures():
    @ray.remote
    class Takes:
        def f(self, a, b=2, *rest, c, **more):
            return a, b, rest, c, more

    return ray.get(Takes.remote().f.remote(1, 5, 6, c=7, d=8))


@row("`await` of a call that raises")
def await_raises():
    @ray.remote
    class Bad:
        def f(self):
            raise KeyError("k")

    async def ask():
        await Bad.remote().f.remote()

    return raised(lambda: asyncio.run(ask()))


if __name__ == "__main__":
    main()
