"""References: get, wait, put, and what travels."""

import asyncio
import concurrent.futures
import gc
import threading
import time

import numpy as np
from engine import main, part, raised, ray, row


@ray.remote
class Echo:
    """Gives back what it gets."""

    def echo(self, x):
        return x

    def kind(self, x):
        return type(x).__name__

    def kinds(self, xs):
        return [type(x).__name__ for x in xs]

    def sleep(self, seconds):
        time.sleep(seconds)
        return seconds

    def fail(self):
        raise ValueError("bad")

    def writable(self, array):
        return bool(array.flags.writeable)

    def write(self, array):
        array[0] = 5

    def put(self, x):
        return ray.put(x)

    def get_inner(self, refs):
        return ray.get(refs[0])


@row("`put` and `get`")
def put_get():
    return ray.get(ray.put({"a": 1}))


@row("`put` of a reference, of an actor handle, of None")
def put_odd():
    ref = ray.put(1)
    return (
        raised(lambda: type(ray.get(ray.put(ref))).__name__),
        raised(lambda: ray.get(ray.get(ray.put(Echo.remote())).echo.remote(5))),
        raised(lambda: ray.get(ray.put(None))),
    )


@row("`put` of what does not pickle")
def put_unpicklable():
    return raised(lambda: ray.put(threading.Lock()))


@row("an argument that does not pickle")
def argument_unpicklable():
    echo = Echo.remote()
    return raised(lambda: echo.echo.remote(threading.Lock()))


@row("the value is serialised at once: later changes are not seen")
def later_changes():
    value = [1]
    ref = ray.put(value)
    value.append(2)
    again = ray.get(ref)
    argument = [1]
    call = Echo.remote().echo.remote(argument)
    argument.append(2)
    return again, ray.get(call), again is ray.get(ref)


@row("`get` of a tuple, `wait` of a tuple", why="taken; Ray wants a list")
def tuples():
    refs = (ray.put(1), ray.put(2))
    return raised(lambda: ray.get(refs)), raised(lambda: len(ray.wait(refs, num_returns=2)[0]))


@row("`get` of a list, of an empty list, of a generator expression, of no reference")
def get_kinds():
    refs = [ray.put(i) for i in range(3)]
    return (
        ray.get(refs),
        ray.get([]),
        raised(lambda: ray.get(ref for ref in refs)),
        raised(lambda: ray.get(5)),
        raised(lambda: ray.get([5])),
        raised(lambda: ray.get({"a": refs[0]})),
        raised(lambda: ray.get([[refs[0]]])),
    )


@row("`get` of a list with an error in it")
def get_list_with_error():
    echo = Echo.remote()
    return raised(lambda: ray.get([echo.echo.remote(1), echo.fail.remote(), echo.echo.remote(2)]))


@row("`get` of the same reference twice, also when it is an error")
def get_twice():
    echo = Echo.remote()
    bad = echo.fail.remote()
    return raised(lambda: ray.get(bad)), raised(lambda: ray.get(bad)), ray.get([ray.put(1)] * 2)


@row("`get(timeout=-1)`", why="refused, as `wait` does")
def get_timeout_negative():
    return raised(lambda: ray.get(ray.put(1), timeout=-1))


@row("`get(timeout=)`: too late, 0, None")
def get_timeout():
    echo = Echo.remote()
    ray.get(echo.echo.remote(1))
    slow = echo.sleep.remote(1.5)
    ready = ray.put(1)
    return (
        raised(lambda: ray.get(slow, timeout=0.2)),
        raised(lambda: ray.get(slow, timeout=0)),
        raised(lambda: ray.get(ready, timeout=0)),
        raised(lambda: ray.get(slow, timeout=None)),
    )


@row("`GetTimeoutError` is a `TimeoutError`; the call goes on")
def timeout_goes_on():
    slow = Echo.remote().sleep.remote(0.5)
    try:
        ray.get(slow, timeout=0.05)
    except TimeoutError as error:
        return isinstance(error, ray.exceptions.GetTimeoutError), ray.get(slow)
    return "no error"


@row("`wait`: one of two")
def wait_basic():
    echo = Echo.remote()
    other = Echo.remote()
    ray.get([echo.echo.remote(1), other.echo.remote(1)])
    slow, quick = other.sleep.remote(3), echo.echo.remote(1)
    done, rest = ray.wait([slow, quick], timeout=2)
    return done == [quick], rest == [slow]


@row("`wait` gives the ready ones in the order given: two of four, all four", why="always; in Ray it is chance which")
def wait_order():
    ready = [ray.put(i) for i in range(4)]
    two, left = ray.wait(ready, num_returns=2)
    all_of_them, none = ray.wait(ready, num_returns=4)
    return two == ready[:2], left == ready[2:], all_of_them == ready, none


@row("`wait(timeout=0)`, and with nothing ready in time")
def wait_timeout():
    slow = Echo.remote().sleep.remote(1)
    return len(ray.wait([slow], timeout=0)[0]), len(ray.wait([slow], timeout=0.1)[1]), len(ray.wait([slow])[0])


@row("`wait` returns no more than `num_returns`")
def wait_no_more():
    refs = [ray.put(i) for i in range(3)]
    done, rest = ray.wait(refs, num_returns=1)
    return len(done), len(rest)


@row("`wait` with duplicates")
def wait_duplicates():
    ref = ray.put(1)
    return raised(lambda: ray.wait([ref, ref]))


@row("`wait` with `num_returns` above the number of references, 0, negative")
def wait_too_many():
    ref = ray.put(1)
    return (
        raised(lambda: ray.wait([ref], num_returns=2)),
        raised(lambda: ray.wait([ref], num_returns=0)),
        raised(lambda: ray.wait([ref], num_returns=-1)),
    )


@row("`wait` with an empty list, a single reference, no reference, a negative timeout, a set")
def wait_odd():
    ref = ray.put(1)
    return (
        raised(lambda: ray.wait([])),
        raised(lambda: ray.wait(ref)),
        raised(lambda: ray.wait([5])),
        raised(lambda: ray.wait([ref], timeout=-1)),
        raised(lambda: len(ray.wait({ref})[0])),
    )


@row("`wait` counts a call that failed as ready")
def wait_failed():
    bad = Echo.remote().fail.remote()
    return len(ray.wait([bad], timeout=5)[0])


@row("`wait(fetch_local=False)`")
def wait_fetch_local():
    return raised(lambda: len(ray.wait([ray.put(1)], fetch_local=False)[0]))


@row("a reference as argument arrives as its value; nested, as a reference")
def resolved_at_top():
    echo = Echo.remote()
    ref = ray.put([1])
    return (
        ray.get(echo.kind.remote(ref)),
        ray.get(echo.kind.remote(x=ref)),
        ray.get(echo.kinds.remote([ref, 1])),
        ray.get(echo.get_inner.remote([ref])),
    )


@row("a reference in the constructor's arguments arrives as its value")
def resolved_in_constructor():
    @ray.remote
    class Has:
        def __init__(self, x):
            self.x = x

        def get(self):
            return self.x

    return ray.get(Has.remote(ray.put(7)).get.remote())


@row("an argument that is the reference of a failed call")
def argument_failed():
    echo = Echo.remote()
    other = Echo.remote()
    return raised(lambda: ray.get(echo.echo.remote(other.fail.remote())))


@row("a constructor's argument that is the reference of a failed call")
def constructor_argument_failed():
    @ray.remote
    class Has:
        def __init__(self, x):
            self.x = x

        def get(self):
            return self.x

    return raised(lambda: ray.get(Has.remote(Echo.remote().fail.remote()).get.remote(), timeout=8))


@row("a reference returned by a method: `get` of it gives the reference")
def returned_reference():
    echo = Echo.remote()
    inner = ray.get(echo.put.remote(9))
    return type(inner).__name__, ray.get(inner)


@row("a value put by an actor that is killed then")
def owner_died():
    echo = Echo.remote()
    inner = ray.get(echo.put.remote(list(range(50000))))
    ray.kill(echo)
    time.sleep(1)
    return raised(lambda: ray.get(inner, timeout=8))


@row("a reference is hashed, compared, and shown as a hex id")
def reference_identity():
    ref = ray.put(1)
    same = ray.get(Echo.remote().echo.remote([ref]))[0]
    return ref == same, hash(ref) == hash(same), len({ref, same}), len(ref.hex()) > 8, ref.hex() in repr(ref)


@row("`ref.future()`, `concurrent.futures.as_completed`")
def futures():
    echo = Echo.remote()
    refs = [echo.echo.remote(i) for i in range(3)]
    return sorted(f.result(5) for f in concurrent.futures.as_completed([ref.future() for ref in refs]))


@row("`asyncio.wrap_future(ref.future())`, `asyncio.wait_for(ref)`, `asyncio.wait([ref])`")
def asyncio_of_refs():
    echo = Echo.remote()

    async def ask():
        one = await asyncio.wrap_future(echo.echo.remote(1).future())
        two = await asyncio.wait_for(echo.echo.remote(2), 5)
        done, _ = await asyncio.wait([asyncio.ensure_future(_of(echo.echo.remote(3)))])
        return one, two, [task.result() for task in done]

    return asyncio.run(ask())


async def _of(ref):
    return await ref


@row("`asyncio.wait_for(ref, …)` that runs out of time; the reference is still good")
def wait_for_timeout():
    slow = Echo.remote().sleep.remote(0.8)

    async def ask():
        try:
            await asyncio.wait_for(slow, 0.1)
        except TimeoutError:
            return "timeout"

    return asyncio.run(ask()), raised(lambda: ray.get(slow, timeout=5))


@row("pickling a reference by hand", why="refused: nobody would count it; send it as an argument")
def pickle_by_hand():
    import pickle

    return raised(lambda: type(pickle.loads(pickle.dumps(ray.put(1)))).__name__)


@row("arrays arrive read-only")
def arrays_read_only():
    echo = Echo.remote()
    big = np.zeros(1 << 18)
    return (
        ray.get(echo.writable.remote(big)),
        bool(ray.get(ray.put(big)).flags.writeable),
        bool(ray.get(echo.echo.remote(big)).flags.writeable),
        raised(lambda: ray.get(echo.write.remote(big))),
    )


@row("small arrays too")
def small_arrays_read_only():
    echo = Echo.remote()
    small = np.zeros(4)
    return ray.get(echo.writable.remote(small)), bool(ray.get(echo.echo.remote(small)).flags.writeable)


@row("`put` once, read in the same process: no copy of an array")
def put_no_copy():
    ref = ray.put(np.zeros(1 << 18))
    return np.shares_memory(ray.get(ref), ray.get(ref))


@row("the same object twice in one argument stays one object", why="it does, as by pickle; Ray loses it in plain data")
def shared_structure():
    thing = []
    back = ray.get(Echo.remote().echo.remote([thing, thing]))
    return back[0] is back[1]


@row("lambdas, closures and classes of the program as arguments")
def code_as_argument():
    class Point:
        def __init__(self, x):
            self.x = x

    @ray.remote
    class Calls:
        def call(self, f, x):
            return f(x)

        def x_of(self, point):
            return point.x

    calls = Calls.remote()
    offset = 3
    return ray.get(calls.call.remote(lambda x: x + offset, 4)), ray.get(calls.x_of.remote(Point(6)))


@row("references that are dropped free their values: 400 MB in all, 200 MB of room")
def dropped():
    for _ in range(20):
        ref = ray.put(np.ones(20 << 17))
        del ref
        gc.collect()
    return "went through"


@row("the types `ray.ObjectRef`, `ray.ObjectRefGenerator`, `ray.actor.ActorHandle`, `ray.actor.ActorClass`")
def types_of_things():
    echo = Echo.remote()
    return (
        isinstance(ray.put(1), ray.ObjectRef),
        raised(lambda: ray.ObjectRefGenerator.__name__),
        isinstance(echo, part("actor").ActorHandle),
        isinstance(Echo, part("actor").ActorClass),
    )


if __name__ == "__main__":
    main()
